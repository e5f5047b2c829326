"""The detectors' table of docs/numbers.md: training and inference beside the same architectures of others.

python -m benchmarks.models                   # on the GPU where there is one, else on the CPU

Peers are torchvision's detectors and, where it is installed (uv sync --group parity), transformers'. Both
sides get the same images and truth, start from random weights, and take whole steps: forward, loss,
backward, SGD. Ours predicts as `boxwright predict` does, with folded batch norms. Rounds alternate between
the two, so that a machine that slows down slows both; the table has each side's best round.
"""

import argparse
import io
import itertools
import json
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.detector import full_precision
from boxwright.models.folding import fold_norms
from boxwright.models.onnx import OPSET, OnnxDetector
from boxwright.models.set_boxes import to_centers

CLASSES = 20
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
WITH_BACKGROUND = (detection.ssd300_vgg16, detection.fasterrcnn_resnet50_fpn)  # as a class of theirs


class Ours:
    """Our detector as the training loop has it, in channels-last memory."""

    def __init__(self, config: dict, device: torch.device, precision: torch.dtype, compiled: bool = False):
        source = {"root": "none"}
        checked = check_config({"data": {"train": source, "val": source}, "model": config}, "benchmark")
        model = build_detector(checked.model, CLASSES)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4)

    def prepare(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> None:
        images_of_bytes = (images * 255).to(torch.uint8).to(self.device)
        self.images = images_of_bytes.contiguous(memory_format=torch.channels_last)
        mask = torch.ones(labels.shape, dtype=torch.bool)
        self.targets = Targets.upright(boxes, labels, mask, ~mask, any_ignored=False).to(self.device)
        height, width = images.shape[-2:]
        self.sizes = torch.tensor([[width, height]] * len(images), dtype=torch.float32, device=self.device)

    def train(self) -> None:
        losses = self.loss(self.train_outputs())
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def train_outputs(self) -> dict:
        self.model.train()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.forward(self.images, self.targets)

    def loss(self, outputs: dict) -> dict:
        return self.model.loss(full_precision(outputs), self.targets)

    def predict(self) -> None:
        self.decode(self.raw())

    def fold(self) -> None:
        """Get ready to predict with the weights as they are."""
        self.folded = fold_norms(self.model)

    def raw(self) -> dict:
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            return self.folded(self.images)

    def decode(self, outputs: dict) -> None:
        with torch.no_grad():
            self.folded.decode(outputs, self.sizes)


class Theirs:
    """torchvision's detector, told not to resize."""

    def __init__(self, make: Callable, side: int, device: torch.device, precision: torch.dtype):
        classes = CLASSES + (make in WITH_BACKGROUND)
        size = {} if make is detection.ssd300_vgg16 else {"min_size": side, "max_size": side}
        if make is detection.fasterrcnn_resnet50_fpn:
            size |= {"rpn_post_nms_top_n_train": 1000}
        model = make(weights=None, weights_backbone=None, num_classes=classes, **size)
        self.model = model.to(device)
        self.first_label = classes - CLASSES
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4)

    def prepare(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> None:
        self.images = list(images.to(self.device))
        self.targets = [
            {"boxes": b.to(self.device), "labels": (n + self.first_label).to(self.device)}
            for b, n in zip(boxes, labels)
        ]

    def train(self) -> None:
        self.model.train()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            losses = self.model(self.images, self.targets)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def predict(self) -> None:
        self.model.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            self.model(self.images)

    def to_onnx(self) -> Callable[[], None]:
        """What predicts in onnxruntime."""
        run = session_of(self.model.eval(), self.images)
        return lambda: run(self.images)


class TheirSets:
    """transformers' detector, without the processor that makes images of files."""

    def __init__(self, make: str, device: torch.device, precision: torch.dtype):
        from tests.parity import theirs_of

        self.model = getattr(theirs_of, make)(num_labels=CLASSES).to(device)
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4)

    def prepare(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> None:
        self.images = images.to(self.device)
        height, width = images.shape[-2:]
        shares = (to_centers(boxes) / torch.tensor([width, height] * 2)).to(self.device)
        self.targets = [
            {"boxes": b, "class_labels": n} for b, n in zip(shares, labels.to(self.device), strict=True)
        ]

    def train(self) -> None:
        self.model.train()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            loss = self.model(self.images, labels=self.targets).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self) -> None:
        self.model.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            outputs = self.model(self.images)
        self.choose(outputs.logits, outputs.pred_boxes)

    def choose(self, logits: torch.Tensor, boxes: torch.Tensor) -> None:
        """As their processor makes detections of outputs."""
        best = logits.float().sigmoid().flatten(1).topk(logits.shape[1], dim=1)
        boxes.gather(1, (best.indices // CLASSES)[..., None].expand(-1, -1, 4))

    def to_onnx(self) -> Callable[[], None]:
        """What predicts in onnxruntime."""
        run = session_of(Outputs(self.model.eval()), self.images)
        return lambda: self.choose(*(torch.from_numpy(t) for t in run([self.images])))


class Outputs(torch.nn.Module):
    """The tensors of transformers' outputs that detections are made of."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(images)
        return outputs.logits, outputs.pred_boxes


def session_of(model: torch.nn.Module, images: torch.Tensor | list[torch.Tensor]) -> Callable:
    """What runs a peer's network in onnxruntime on images of this very shape: tensors to arrays."""
    import onnxruntime

    target, options = io.BytesIO(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # As ours has it: threads that wait in a loop would slow down whatever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), cast(Any, target), dynamo=False, opset_version=OPSET)
    session = onnxruntime.InferenceSession(target.getvalue(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda given: session.run(None, {n: t.numpy() for n, t in zip(names, given, strict=True)})


def scene(batch: int, side: int, boxes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images in 0..1, and boxes of 10 to 100 px with labels."""
    generator = torch.Generator().manual_seed(boxes)
    images = torch.rand(batch, 3, side, side, generator=generator)
    size = torch.rand(batch, boxes, 2, generator=generator) * 90 + 10
    corner = torch.rand(batch, boxes, 2, generator=generator) * (side - size)
    labels = torch.randint(0, CLASSES, (batch, boxes), generator=generator)
    return images, torch.cat([corner, corner + size], -1), labels


def seconds(function: Callable, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def race(ours: Callable, theirs: Callable, rounds: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the best round of each, taken by turns, after one that doesn't count."""
    times = [(seconds(ours, device), seconds(theirs, device)) for _ in range(rounds + 1)][1:]
    return min(t[0] for t in times), min(t[1] for t in times)


def describe(model: torch.nn.Module, side: int, device: torch.device) -> tuple[float, float]:
    """Millions of parameters, and billions of multiplications and additions of an image."""
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side, device=device))
    return parameters, counter.get_total_flops() / 1e9


def named(only: str, detectors: tuple[tuple, ...]) -> list[tuple]:
    """Those with `only` in their names."""
    chosen = [d for d in detectors if only in d[0]]
    if not chosen:
        raise SystemExit(f"--only '{only}', expected a part of {', '.join(d[0] for d in detectors)}")
    return chosen


def measure(
    only: str, batch: int, rounds: int, device: torch.device, precisions: list[torch.dtype]
) -> list[dict]:
    rows = []
    chosen = named(only, PAIRS)
    left = [p[0] for p in chosen if isinstance(p[3], str)] if find_spec("transformers") is None else []
    if left:
        print(f"without transformers (uv sync --group parity) are left out: {', '.join(left)}")
    chosen = [p for p in chosen if p[0] not in left]
    for (name, side, config, make), precision in itertools.product(chosen, precisions):
        torch.manual_seed(0)
        ours = Ours(config, device, precision)
        if isinstance(make, str):
            theirs: Theirs | TheirSets = TheirSets(make, device, precision)
        else:
            theirs = Theirs(make, side, device, precision)
        parameters, flops = describe(ours.model, side, device)
        for boxes in (20, 100):
            for one in (ours, theirs):
                one.prepare(*scene(batch, side, boxes))
            steps = race(ours.train, theirs.train, rounds, device)
            rows.append(row_of(name, f"train, {boxes} boxes", precision, batch, steps))
            if not hasattr(theirs.model, "compute_loss") or name == "SSD300":
                continue  # no one method has the whole loss; SSD's boxes are matched outside of it
            loss = partial(ours.loss, ours.train_outputs())
            mine = min(seconds(loss, device) for _ in range(rounds + 2))
            after = seconds_within(theirs, "compute_loss", theirs.train, rounds, device)
            rows.append(row_of(name, f"loss, {boxes} boxes", precision, batch, (mine, after)))
        ours.fold()
        if make is detection.fasterrcnn_resnet50_fpn and precision == torch.float32:
            rows += pooling_rows(name, ours, batch, side, rounds)
        looks = race(ours.predict, theirs.predict, rounds, device)
        rows.append(row_of(name, "predict", precision, batch, looks))
        rows[-1] |= {"parameters": parameters, "flops": flops}
        network = ours.folded
        if device.type == "cpu" and (isinstance(make, str) or make is detection.fasterrcnn_resnet50_fpn):
            ours.folded = OnnxDetector(network)
            looks = race(ours.predict, theirs.to_onnx(), rounds, device)
            rows.append(row_of(name, "predict, onnxruntime", precision, batch, looks))
            ours.folded = network
        if not hasattr(theirs.model, "postprocess_detections"):
            continue
        decode = partial(ours.decode, ours.raw())
        mine = min(seconds(decode, device) for _ in range(rounds + 2))
        after = seconds_within(theirs, "postprocess_detections", theirs.predict, rounds, device)
        rows.append(row_of(name, "post-processing", precision, batch, (mine, after)))
    return rows


def pooling_rows(name: str, ours: Ours, batch: int, side: int, rounds: int) -> list[dict]:
    """RoIAlign of 1,000 regions an image, and with its gradient, beside torchvision's."""
    from torchvision.ops import MultiScaleRoIAlign

    device, generator = ours.device, torch.Generator().manual_seed(0)
    maps = [
        torch.rand(batch, 256, side // s, side // s, generator=generator).to(device)
        for s in ours.model.strides[:4]
    ]
    corner = torch.rand(batch, 1000, 2, generator=generator) * (side - 70)
    boxes = torch.cat([corner, corner + 10 + torch.rand(batch, 1000, 2, generator=generator) * 60], -1)
    boxes, pooling = boxes.to(device), ours.model.pooling
    peer = MultiScaleRoIAlign([str(n) for n in range(4)], 7, 2)

    def look(gradient: bool, mine: bool) -> None:
        # Each side gets the layout that its network gives.
        layout = torch.channels_last if mine else torch.contiguous_format
        own = [m.detach().contiguous(memory_format=layout).requires_grad_(gradient) for m in maps]
        if mine:
            pooled = pooling(pooling.prepare(own), boxes)
        else:
            pooled = peer({str(n): m for n, m in enumerate(own)}, list(boxes), [(side, side)] * batch)
        if gradient:
            pooled.sum().backward()

    rows = []
    for what, gradient in (("RoIAlign, 1000 regions", False), ("RoIAlign with gradient", True)):
        times = race(partial(look, gradient, True), partial(look, gradient, False), rounds, device)
        rows.append(row_of(name, what, torch.float32, batch, times))
    return rows


def seconds_within(
    theirs: Theirs | TheirSets, name: str, whole: Callable, rounds: int, device: torch.device
) -> float:
    """Seconds of a method of torchvision's detector, timed within a whole step or look."""
    original, times = getattr(theirs.model, name), []

    def timed(*arguments):
        results = []
        times.append(seconds(lambda: results.append(original(*arguments)), device))
        return results[0]

    setattr(theirs.model, name, timed)
    for _ in range(rounds + 1):
        whole()
    setattr(theirs.model, name, original)
    return min(times)


def row_of(name: str, what: str, precision: torch.dtype, batch: int, times: tuple[float, float]) -> dict:
    mine, theirs = times
    return {
        "model": name, "what": what, "precision": str(precision).removeprefix("torch."),
        "ours": batch / mine, "peer": batch / theirs, "ratio": theirs / mine,
    }  # fmt: skip


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
    rows = measure(arguments.only, arguments.batch, arguments.rounds, device, precisions)
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
    if device.type == "cuda":
        where, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**30
    else:
        where = f"{torch.get_num_threads()} CPU threads"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{where}, torch {torch.__version__}, batch {arguments.batch}, peak memory {peak:.1f} GiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
