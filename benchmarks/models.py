"""The detectors' table of docs/numbers.md: training and inference beside the same architectures of others.

python -m benchmarks.models                   # on the GPU where there is one, else on the CPU

Peers are torchvision's detectors and, where it is installed (uv sync --group parity), transformers'. Both
sides get the same images and truth, start from random weights, and take whole steps: forward, loss,
backward, SGD. Each has a process of its own and is there as its users have it: ours keeps the memory that it
frees, as `boxwright train` and `predict` do, and predicts with folded norms. Rounds alternate between the
two, so that a machine that slows down slows both; the table has each side's best round.
"""

import argparse
import itertools
import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torchvision.models import detection

from benchmarks.peers import Apart, Ours, Theirs, TheirSets, race

CANDIDATES = {"candidates": 1000, "per_level": True}
RESNET = {"backbone": {"name": "resnet50", "pretrained": False}, "neck": {"extra_from": "output"}}
REGIONS = {"neck": {"channels": 256}, "backbone": {"name": "resnet50", "pretrained": False}}
# Name, input side, our config, the peer's constructor. Both keep equally many candidates and detections.
PAIRS = (
    (
        "RetinaNet R50", 320,
        {"name": "retinanet", **RESNET,
         "selection": CANDIDATES | {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 300}},
        detection.retinanet_resnet50_fpn,
    ),
    (
        "FCOS R50", 320,
        {"name": "fcos", **RESNET,
         "selection": CANDIDATES | {"score_threshold": 0.2, "iou_threshold": 0.6, "max_detections": 100}},
        detection.fcos_resnet50_fpn,
    ),
    (
        "SSD300", 300,
        {"name": "ssd", "selection": {"score_threshold": 0.01, "candidates": 400, "max_detections": 200}},
        detection.ssd300_vgg16,
    ),
    (
        "Faster R-CNN R50", 320,
        {"name": "faster_rcnn", **REGIONS, "anchors": {"rounded": True},
         "rpn": {"candidates": 1000, "train_candidates": 2000, "proposals": 1000},
         "regions": {"sampling_ratio": 2, "aligned": False},
         "selection": {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 100}},
        detection.fasterrcnn_resnet50_fpn,
    ),
    ("D-FINE N", 640, {"name": "dfine", "size": "n", "pretrained": False}, "dfine_n"),
    ("D-FINE S", 320, {"name": "dfine", "size": "s", "pretrained": False}, "dfine_s"),
    ("RT-DETRv2 R18", 320, {"name": "rtdetr", "size": 18, "pretrained": False}, "rtdetr_r18"),
)  # fmt: skip


def named(only: str, detectors: tuple[tuple, ...]) -> list[tuple]:
    """Those with `only` in their names."""
    chosen = [d for d in detectors if only in d[0]]
    if not chosen:
        raise SystemExit(f"--only '{only}', expected a part of {', '.join(d[0] for d in detectors)}")
    return chosen


def compare(pair: tuple, batch: int, rounds: int, device: torch.device, precision: torch.dtype) -> list[dict]:
    """The rows of one of `PAIRS`."""
    name, side, config, make = pair
    ours = Apart(Ours, config, device, precision)
    peer = (TheirSets, make) if isinstance(make, str) else (Theirs, make, side)
    theirs = Apart(*peer, device, precision)
    parameters, flops = ours("describe", side)
    rows = []

    def add(what: str, times: tuple[float, float]) -> None:
        mine, other = times
        rates = {"ours": batch / mine, "peer": batch / other, "ratio": other / mine}
        print(f"{name}, {what}: {rates['ratio']:.2f} times the peer's rate", file=sys.stderr, flush=True)
        rows.append({"model": name, "what": what, "precision": str(precision).removeprefix("torch.")} | rates)

    def take_turns(what: str) -> tuple[float, float]:
        return race(partial(ours, "time", what), partial(theirs, "time", what), rounds)

    def add_part(part: str, what: str) -> None:
        if (other := theirs("part", part, rounds)) is not None:
            add(what, (ours("part", part, rounds), other))

    for boxes in (20, 100):
        ours("prepare", batch, side, boxes)
        theirs("prepare", batch, side, boxes)
        add(f"train, {boxes} boxes", take_turns("train"))
        if make is not detection.ssd300_vgg16:  # whose boxes are matched outside of its loss's method
            add_part("loss", f"loss, {boxes} boxes")
    ours("fold")
    has_regions = make is detection.fasterrcnn_resnet50_fpn
    if has_regions and precision == torch.float32:
        without, with_gradient = ours("pooling", batch, side, rounds)
        add("RoIAlign, 1000 regions", without)
        add("RoIAlign with gradient", with_gradient)
    add("predict", take_turns("predict"))
    rows[-1] |= {"parameters": parameters, "flops": flops}
    add_part("post-processing", "post-processing")
    if device.type == "cpu" and (has_regions or isinstance(make, str)):
        ours("to_onnx")
        theirs("to_onnx")
        add("predict, onnxruntime", take_turns("predict"))
    rows[-1] |= {"peak": (ours("peak"), theirs("peak"))}
    ours.close()
    theirs.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="Part of the name of the models to measure.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precisions = [torch.float32] + ([torch.bfloat16] if device.type == "cuda" else [])
    chosen = named(arguments.only, PAIRS)
    if find_spec("transformers") is None and (left := [p[0] for p in chosen if isinstance(p[3], str)]):
        print(f"without transformers (uv sync --group parity) are left out: {', '.join(left)}")
        chosen = [p for p in chosen if p[0] not in left]
    rows = [
        row
        for pair, precision in itertools.product(chosen, precisions)
        for row in compare(pair, arguments.batch, arguments.rounds, device, precision)
    ]
    table = Table(box=None, pad_edge=False)
    for column in ("model", "what", "precision"):
        table.add_column(column)
    for column in ("ours, images/s", "peer", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (f"{row['ours']:.1f}", f"{row['peer']:.1f}", f"{row['ratio']:.2f}")
        table.add_row(row["model"], row["what"], row["precision"], *numbers)
    console = Console(width=100)
    console.print(table)
    for row in rows:
        if "flops" in row and row["precision"] == "float32":
            console.print(
                f"{row['model']}: {row['parameters']:.1f} M parameters, {row['flops']:.1f} GFLOPs an image"
            )
    mine, other = (max(row["peak"][n] for row in rows if "peak" in row) for n in (0, 1))
    threads = f"{torch.get_num_threads()} CPU threads"
    where = torch.cuda.get_device_name() if device.type == "cuda" else threads
    console.print(f"{where}, torch {torch.__version__}, batch {arguments.batch}")
    console.print(f"peak memory of a process: {mine:.1f} GiB, the peers' {other:.1f} GiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
