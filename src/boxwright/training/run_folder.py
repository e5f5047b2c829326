"""The folder of a run: what is where, and which one a command means."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from boxwright.config import ExperimentConfig, dump_config
from boxwright.data.formats.files import write_atomic
from boxwright.errors import ConfigError

CONFIG = "config.yaml"
PACKAGES = ("boxwright", "torch", "torchvision", "timm", "accelerate", "numpy", "polars")


def choose_folder(runs: Path, name: str, resume: bool) -> Path:
    """The folder to train in: a new one, `name-2` and so on where `name` is taken, or the one to resume.

    Raises:
        ConfigError: there is nothing to resume.
    """
    numbered = [p for p in runs.glob(f"{name}-*") if p.name.removeprefix(f"{name}-").isdigit()]
    taken = [p for p in (runs / name, *numbered) if (p / CONFIG).is_file()]
    if resume:
        if not taken:
            raise ConfigError(f"{runs / name}: no run of this name to resume.")
        return max(taken, key=lambda p: (p / CONFIG).stat().st_mtime)
    if not (runs / name).exists():
        return runs / name
    number = 2
    while (runs / f"{name}-{number}").exists():
        number += 1
    return runs / f"{name}-{number}"


def start_folder(folder: Path, config: ExperimentConfig) -> None:
    """Make the folder and write what ran where."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    write_atomic(folder / "environment.json", json.dumps(describe_environment(), indent=2).encode())


def write_config(folder: Path, config: ExperimentConfig) -> None:
    """Write what a run is trained by, from which it resumes."""
    write_atomic(folder / CONFIG, dump_config(config).encode())


def describe_environment() -> dict[str, str | int]:
    """Versions, processor, threads, processes, and the commit of the working folder."""
    import torch  # which names the folder's commands don't wait for

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts = {"python": platform.python_version(), "system": platform.platform(), "gpu": device}
    return (
        versions
        | facts
        | {"processor": _processor(), "threads": torch.get_num_threads(), "commit": _commit()}
        | {"processes": int(os.environ.get("WORLD_SIZE", 1))}
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "no git repository"
