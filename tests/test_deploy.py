"""What is deployed fits the program: options that are there, paths that answer, files that are copied."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from boxwright.cli import app
from boxwright.serving.watching import OPEN

ROOT = Path(__file__).parent.parent
CONTAINERFILE = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))
KUBERNETES = list(yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text("utf-8")))
TARGETS = re.findall(r"^FROM \S+ AS (\w+)$", CONTAINERFILE, re.MULTILINE)


def lines(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.+)$", CONTAINERFILE, re.MULTILINE)


def entry() -> list[str]:
    return yaml.safe_load(lines("ENTRYPOINT")[0])


def check_command(command: list[str]) -> dict:
    """The options of a command line of boxwright's, as the program reads it."""
    group = typer.main.get_command(app)
    assert command[0] == "boxwright"
    own = group.commands[command[1]]
    return own.make_context(command[1], command[2:], resilient_parsing=False).params


def container() -> dict:
    return next(d for d in KUBERNETES if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][
        0
    ]


def test_commands_are_ones_that_the_program_knows():
    served = COMPOSE["services"]["boxwright"]
    assert COMPOSE["services"]["boxwright"]["build"]["target"] in TARGETS
    for more in (served["command"], container()["args"]):
        params = check_command([*entry(), *more])
        assert (params["host"], params["port"], params["watch"]) == ("0.0.0.0", 8000, True)
        assert len(params["checkpoints"]) == 1


def test_probes_ask_what_is_open_and_ports_are_the_same():
    probes = [container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
    assert set(probes) <= set(OPEN)
    assert "http://localhost:8000/health" in CONTAINERFILE
    assert container()["ports"] == [{"name": "http", "containerPort": 8000}]
    assert lines("EXPOSE") == [
        "8000",
        re.search(r"^Port (\d+)", (ROOT / "deploy/sshd_config").read_text(), re.M)[1],
    ]
    prometheus = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["boxwright:8000"]


def test_nobody_is_root():
    assert TARGETS == ["base", "build", "app", "dev", "ssh"]
    stages = CONTAINERFILE.split("\nFROM ")
    assert "USER 10001" in stages[3]
    assert "USER 10001" in stages[4]
    assert "USER" not in stages[5].replace("USER 10001", "")
    spec = next(d for d in KUBERNETES if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001


def test_what_is_copied_is_there_and_not_ignored():
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line[:1] == "!"}
    copied = [word for line in lines("COPY") for word in shlex.split(line)[:-1] if word[:2] != "--"]
    for name in copied:
        assert name in {"/venv", "."} or name.removeprefix("./") in kept, name
    for name in kept:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("line", range(2))
def test_requirements_of_the_image_come_from_the_lock(line, tmp_path):
    """The exports of the build, as it runs them: torch apart from all others, nothing of CUDA among them."""
    exports = re.findall(r"uv export ([^&|]*)", CONTAINERFILE)
    assert len(exports) == 2
    words = [w.replace("/tmp/locked.txt", str(tmp_path / "locked.txt")) for w in shlex.split(exports[line])]
    command = [str(Path(sys.executable).parent / "uv"), "export", *words, "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    text = (tmp_path / "locked.txt").read_text() if "--output-file" in words else done.stdout
    names = set(re.findall(r"^([a-z0-9_.-]+)==", text, re.MULTILINE))
    assert {"fastapi", "uvicorn", "onnxruntime", "numba"} <= names
    torches = {name for name in names if name in ("torch", "torchvision")}
    assert torches == (set() if "--prune" in words else {"torch", "torchvision"})
    if "--prune" in words:
        assert not {name for name in names if name.startswith(("nvidia", "triton", "cuda"))}
