"""`boxwright.runs`: every run folder as a row of one table."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from boxwright.errors import DataError


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        name: of its folder.
        finished: it was trained to the end and judged.
        ap: AP 0.50:0.95 of its best weights; None before there is one.
        ap_by_iou: AP at each IoU threshold, by "0.50" and so on.
        epochs: done.
        seconds: spent training.
        differs: `key=value` where its config isn't that of most runs.
    """

    name: str
    finished: bool
    ap: float | None
    ap_by_iou: dict[str, float]
    epochs: int
    seconds: float | None
    differs: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def runs(folder: str | os.PathLike = "runs") -> list[RunRow]:
    """Read the run folders below `folder`, best first.

    Raises:
        DataError: there is none.
    """
    found = sorted(p.parent for p in Path(folder).glob("*/config.yaml"))
    if not found:
        raise DataError(f"{folder}: no run folder there; `boxwright train` makes them.")
    configs = [_flat(_read_config(p / "config.yaml")) for p in found]
    rows = [_read_run(p, _differences(c, configs)) for p, c in zip(found, configs)]
    return sorted(rows, key=lambda r: -1.0 if r.ap is None else r.ap, reverse=True)


def _read_run(folder: Path, differs: list[str]) -> RunRow:
    epochs, seconds = 0, None
    if (folder / "metrics.parquet").is_file():
        try:
            metrics = pl.read_parquet(folder / "metrics.parquet")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{folder / 'metrics.parquet'}: can't be read: {error}.") from error
        if len(metrics):
            epochs = int(metrics["epoch"].to_numpy().max())
            seconds = float(metrics["seconds"].to_numpy().max())
    numbers: dict[str, Any] = {}
    if (folder / "evaluation.json").is_file():
        try:
            numbers = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{folder / 'evaluation.json'}: not JSON: {error}.") from error
    ap = numbers.get("coco", {}).get("AP")
    return RunRow(folder.name, bool(numbers), ap, numbers.get("ap_by_iou", {}), epochs, seconds, differs)


def _read_config(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{path}: not usable YAML: {' '.join(str(error).split())}.") from error
    return content if isinstance(content, dict) else {}


def _flat(config: Any, path: str = "") -> dict[str, str]:
    """Leaves by dotted path, those of a list of parts by its number; what is null is not there."""
    if isinstance(config, list) and any(isinstance(part, dict) for part in config):
        config = dict(enumerate(config))
    if isinstance(config, dict):
        return {
            k: v for name, part in config.items() for k, v in _flat(part, f"{path}.{name}".strip(".")).items()
        }
    return {} if config is None else {path: json.dumps(config, ensure_ascii=False)}


def _differences(config: dict[str, str], all_configs: list[dict[str, str]]) -> list[str]:
    """Settings of a config that differ from most others'."""
    result = []
    for key in sorted({k for c in all_configs for k in c}):
        values = [c.get(key) for c in all_configs]
        usual = max(dict.fromkeys(values), key=values.count)
        parent = key.rpartition(".")[0]
        there = key in config or any(own.startswith(f"{parent}.") for own in config)
        if config.get(key) != usual and there:
            result.append(f"{key}={config.get(key, 'null')}")
    return result
