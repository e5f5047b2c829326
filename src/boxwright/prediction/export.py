"""`boxwright.export`: a detector to a file that another runtime takes, judged beside the original."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from boxwright.config.places import check_export, find_checkpoint
from boxwright.data.dataset import DetectionDataset
from boxwright.data.formats.files import write_atomic
from boxwright.data.sources import load_parts
from boxwright.data.tables import Tables, concat
from boxwright.data.targets import Batch
from boxwright.data.transforms import PAD_VALUE
from boxwright.errors import DataError, ExportError
from boxwright.evaluation.comparison import ALONE, OTHER_CLASS, compare
from boxwright.evaluation.evaluate import evaluate
from boxwright.models.checkpoint import LoadedDetector, load_detector
from boxwright.models.detector import Detector, collate_for
from boxwright.models.exported import load_exported, load_program
from boxwright.models.exporting import to_graph, write_program
from boxwright.models.folding import fold_norms
from boxwright.models.openvino import write_openvino
from boxwright.models.quantizing import quantize, to_half
from boxwright.prediction.detect import detect, to_tables
from boxwright.prediction.judged import truth_of
from boxwright.progress import progress_bar

CALIBRATING = 64  # images that tell ranges
SEEN = 0.05  # score from which a detection counts in the greatest difference
TIMED = 20  # images, one at a time
NUMBERS = ("AP50", "AP75", "AP")
UNLIKE = (ALONE, OTHER_CLASS)  # outcomes of a box that the other one doesn't have


@dataclass(frozen=True)
class Export:
    """A file, and how it compares.

    Attributes:
        path: of the file.
        bytes: its size.
        images: that both were judged by; 0: none were.
        numbers: AP50, AP75 and AP of the original and of the file, by name; None where nothing was judged.
        milliseconds: an image, one at a time, of the original and of the file.
        gap: greatest difference of a box in pixels of the image, and of its score, among what both found.
        lost: detections of a score of `SEEN` and more that only one of both found.
    """

    path: Path
    bytes: int
    images: int = 0
    numbers: dict[str, tuple[float, float]] | None = None
    milliseconds: tuple[float, float] | None = None
    gap: tuple[float, float] | None = None
    lost: int = 0


def export(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike = "model.onnx",
    image_size: tuple[int, int] | None = None,
    max_detections: int | None = None,
    data: Tables | str | os.PathLike | None = None,
    images: int = 100,
    tolerance: float | None = None,
    force: bool = False,
    int8: bool = False,
    fp16: bool = False,
    raw: bool = False,
) -> Export:
    """Write one graph from uint8 pixels to detections: normalising, network, decoding, suppression.

    It is opened again and judged beside the original by the experiment's validation images. `predict` takes
    it as a checkpoint, but for a .pt2; what another program has to know lies in its metadata.

    Args:
        checkpoint: a run folder or a .safetensors file.
        output: the file; .onnx, .xml of OpenVINO with a .bin beside it, or .pt2 of `torch.export`.
        image_size: (width, height) of images; None: the experiment's. A graph takes others too, where
            candidates aren't taken level by level.
        max_detections: an image; None: the experiment's.
        data: truth to judge by, tables or a path; None: the experiment's.
        images: to judge by at most; 0: none, and nothing is compared.
        tolerance: AP that may be lost; None: 0.001, and 0.01 with `int8` or `fp16`.
        force: write it though more is.
        int8: convolutions of an .onnx in eight bits, whose ranges come from the experiment's training images.
        fp16: the network in float16, of OpenVINO its weights.
        raw: the candidates before suppression and vote, for programs with their own.

    Returns:
        The file and the comparison.

    Raises:
        ExportError: the file finds less than the original, by more than `tolerance`; it isn't written.
        ConfigError: another suffix, options that don't go together, or what writes it isn't installed.
        CheckpointError: the checkpoint can't be used.
        DataError: the data to judge by can't be read, or the file can't be written.

    Example:
        >>> boxwright.export("runs/bccd", "bccd.onnx").numbers["AP"]
    """
    target = Path(output)
    check_export(target, int8, fp16)
    loaded = load_detector(find_checkpoint(checkpoint))
    size = image_size or loaded.config.image_size
    model = fold_norms(loaded.model)
    model.selection = model.selection.limited_to(max_detections or model.selection.max_detections)
    truth = truth_of(loaded, data, images) if images else None
    loaded = replace(loaded, model=model)
    tolerance = tolerance if tolerance is not None else 0.01 if int8 or fp16 else 0.001
    with _beside(target) as folder:
        made = Path(folder) / target.name
        _write(loaded, size, made, int8, fp16, raw)
        parts = sorted(made.parent.iterdir())  # weights before the .xml that tells that they are there
        done = Export(target, sum(part.stat().st_size for part in parts))
        if truth is not None:
            again = load_program(made) if target.suffix == ".pt2" else load_exported(made)
            done = _compare(loaded, again.model, truth, size, done)
        loss = 0.0 if done.numbers is None else done.numbers["AP"][0] - done.numbers["AP"][1]
        if loss > tolerance and not force:
            raise ExportError(
                f"the graph loses {loss:.4f} of AP, more than {tolerance:g}: {target} isn't written."
            )
        for part in parts:
            os.replace(part, target.with_name(part.name))
    return done


def _beside(target: Path) -> TemporaryDirectory:
    """A folder on the disk that the file is to lie on."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(dir=target.parent, prefix=".export-")
    except OSError as error:
        raise DataError(f"{target}: can't be written: {error}.") from error


def _write(
    loaded: LoadedDetector, size: tuple[int, int], path: Path, int8: bool, fp16: bool, raw: bool
) -> None:
    selection = loaded.model.selection
    if path.suffix == ".pt2":
        write_program(loaded, size, selection, path, raw)
        return
    graph = to_graph(loaded, size, selection, raw)
    if int8:
        graph = quantize(graph, _seen(loaded, size))
    if path.suffix == ".xml":
        write_openvino(graph, path, fp16)
    else:
        write_atomic(path, to_half(graph) if fp16 else graph)


def _seen(loaded: LoadedDetector, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Training images as a graph takes them."""
    tables = concat(load_parts(loaded.config.data)[0])
    chosen = np.random.default_rng(0).permutation(len(tables.images))[:CALIBRATING]
    dataset = DetectionDataset(tables.select_images(np.isin(np.arange(len(tables.images)), chosen)), size)
    width, height = loaded.model.padded(size)
    for batch in DataLoader(dataset, 1, collate_fn=collate_for(loaded.model)):
        images = batch.images.round().to(torch.uint8)
        pad = (0, width - images.shape[3], 0, height - images.shape[2])
        yield F.pad(images, pad, value=PAD_VALUE).numpy()


def _compare(
    loaded: LoadedDetector, graph: Detector, truth: Tables, size: tuple[int, int], done: Export
) -> Export:
    dataset, cpu = DetectionDataset(truth, size), torch.device("cpu")
    tables, times = [], []
    with progress_bar("judge", 2 * len(dataset)) as tell:
        for model in (loaded.model, graph):
            batches = list(DataLoader(dataset, 1, collate_fn=collate_for(model)))
            detect(model, batches[:1], cpu)  # warms up
            spent: list[float] = []
            rows = [_timed(model, batch, spent, tell) for batch in batches]
            tables.append(to_tables(rows, truth.images, loaded.categories, "export"))
            times.append(1000 * median(spent[:TIMED]))
    found = [evaluate(truth, own).coco for own in tables]
    gap, lost = _gap(*tables)
    return replace(
        done,
        images=len(dataset),
        numbers={name: (found[0][name], found[1][name]) for name in NUMBERS},
        milliseconds=(times[0], times[1]),
        gap=gap,
        lost=lost,
    )


def _timed(model: Detector, batch: Batch, spent: list[float], tell: Callable[[int], None]) -> np.ndarray:
    began = time.perf_counter()
    (found,) = detect(model, [batch], torch.device("cpu"))
    spent.append(time.perf_counter() - began)
    tell(1)
    return found


def _gap(ours: Tables, theirs: Tables) -> tuple[tuple[float, float], int]:
    """Greatest difference in px and in score of boxes that lie on each other, and how many lie alone; of a
    score of `SEEN` and more.
    """
    found = compare(ours, theirs)
    same = found.pairs.filter(pl.col("outcome") == "matched")
    a, b = (t.boxes[same[rows].to_list()] for t, rows in ((found.a, "a_row"), (found.b, "b_row")))
    seen = ((a["score"] >= SEEN) | (b["score"] >= SEEN)).to_numpy()
    off = [np.abs((a[name] - b[name]).to_numpy())[seen] for name in ("x", "y", "w", "h", "score")]
    lost = sum(
        int((np.isin(outcome, UNLIKE) & (t.boxes["score"].to_numpy() >= SEEN)).sum())
        for t, outcome in ((found.a, found.outcome_a), (found.b, found.outcome_b))
    )
    return (float(np.max(off[:4], initial=0)), float(np.max(off[4], initial=0))), lost
