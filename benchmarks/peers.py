"""The two sides of `benchmarks.models`: a detector of ours, and the same architecture of others.

A side is given images and truth by `prepare` and does one thing a call: `train` takes a whole step, `predict`
looks at the images, after `to_onnx` in onnxruntime.
"""

import io
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.detector import full_precision
from boxwright.models.folding import fold_norms
from boxwright.models.memory import keep_memory
from boxwright.models.onnx import OPSET, OnnxDetector
from boxwright.models.set_boxes import to_centers

CLASSES = 20
WITH_BACKGROUND = (detection.ssd300_vgg16, detection.fasterrcnn_resnet50_fpn)  # as a class of theirs
REST = 0.05  # seconds, in which threads of the side before stop waiting for more work in a loop
PARTS = {"loss": "compute_loss", "post-processing": "postprocess_detections"}  # torchvision's methods


class Side:
    """What both can be asked for."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def time(self, what: str) -> float:
        """Seconds of one `train` or `predict`."""
        return seconds(getattr(self, what), self.device)

    def peak(self) -> float:
        """GiB, of the card or of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Ours(Side):
    """Our detector as its commands have it: in channels-last memory, and freed memory is kept."""

    def __init__(self, config: dict, device: torch.device, precision: torch.dtype, compiled: bool = False):
        if device.type == "cpu":
            keep_memory()
        source = {"root": "none"}
        checked = check_config({"data": {"train": source, "val": source}, "model": config}, "benchmark")
        model = build_detector(checked.model, CLASSES)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4)

    def prepare(self, batch: int, side: int, boxes: int) -> None:
        images, truth, labels = scene(batch, side, boxes)
        images_of_bytes = (images * 255).to(torch.uint8).to(self.device)
        self.images = images_of_bytes.contiguous(memory_format=torch.channels_last)
        mask = torch.ones(labels.shape, dtype=torch.bool)
        self.targets = Targets.upright(truth, labels, mask, ~mask, any_ignored=False).to(self.device)
        self.sizes = torch.tensor([[side, side]] * batch, dtype=torch.float32, device=self.device)

    def train(self) -> None:
        losses = self.loss(self.train_outputs())
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def train_outputs(self) -> dict:
        self.model.train()
        with self.autocast():
            return self.forward(self.images, self.targets)

    def loss(self, outputs: dict) -> dict:
        return self.model.loss(full_precision(outputs), self.targets)

    def fold(self) -> None:
        """Get ready to predict with the weights as they are."""
        self.folded = fold_norms(self.model.eval())

    def predict(self) -> None:
        self.decode(self.raw())

    def raw(self) -> dict:
        with torch.no_grad(), self.autocast():
            return self.folded(self.images)

    def decode(self, outputs: dict) -> None:
        with torch.no_grad():
            self.folded.decode(outputs, self.sizes)

    def to_onnx(self) -> None:
        self.folded = OnnxDetector(self.folded)

    def part(self, what: str, rounds: int) -> float:
        """Seconds of one of `PARTS`."""
        act = partial(self.loss, self.train_outputs()) if what == "loss" else partial(self.decode, self.raw())
        return min(seconds(act, self.device) for _ in range(rounds + 2))

    def describe(self, side: int) -> tuple[float, float]:
        """Millions of parameters, and billions of multiplications and additions of an image."""
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model.eval()(torch.zeros(1, 3, side, side, device=self.device))
        return parameters, counter.get_total_flops() / 1e9

    def pooling(self, batch: int, side: int, rounds: int) -> list[tuple[float, float]]:
        """Seconds of RoIAlign of 1,000 regions an image, ours and torchvision's, and with its gradient."""
        from torchvision.ops import MultiScaleRoIAlign

        generator = torch.Generator().manual_seed(0)
        maps = [
            torch.rand(batch, 256, side // s, side // s, generator=generator).to(self.device)
            for s in self.model.strides[:4]
        ]
        corner = torch.rand(batch, 1000, 2, generator=generator) * (side - 70)
        size = 10 + torch.rand(batch, 1000, 2, generator=generator) * 60
        boxes, pooling = torch.cat([corner, corner + size], -1).to(self.device), self.model.pooling
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

        def timed(gradient: bool, mine: bool) -> Callable[[], float]:
            return lambda: seconds(partial(look, gradient, mine), self.device)

        return [race(timed(gradient, True), timed(gradient, False), rounds) for gradient in (False, True)]


class Theirs(Side):
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
        self.session: Callable | None = None

    def prepare(self, batch: int, side: int, boxes: int) -> None:
        images, truth, labels = scene(batch, side, boxes)
        self.images = list(images.to(self.device))
        self.targets = [
            {"boxes": b.to(self.device), "labels": (n + self.first_label).to(self.device)}
            for b, n in zip(truth, labels)
        ]

    def train(self) -> None:
        self.model.train()
        with self.autocast():
            losses = self.model(self.images, self.targets)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def predict(self) -> None:
        if self.session is not None:
            self.session(self.images)
            return
        self.model.eval()
        with torch.no_grad(), self.autocast():
            self.model(self.images)

    def to_onnx(self) -> None:
        self.session = session_of(self.model.eval(), self.images)

    def part(self, what: str, rounds: int) -> float | None:
        """Seconds of one of `PARTS`, timed within a whole step or look; None: no one method has it."""
        if not hasattr(self.model, PARTS[what]):
            return None
        original, times = getattr(self.model, PARTS[what]), []

        def timed(*arguments):
            results = []
            times.append(seconds(lambda: results.append(original(*arguments)), self.device))
            return results[0]

        setattr(self.model, PARTS[what], timed)
        for _ in range(rounds + 1):
            (self.train if what == "loss" else self.predict)()
        setattr(self.model, PARTS[what], original)
        return min(times)


class TheirSets(Side):
    """transformers' detector, without the processor that makes images of files."""

    def __init__(self, make: str, device: torch.device, precision: torch.dtype):
        from tests.parity import theirs_of

        self.model = getattr(theirs_of, make)(num_labels=CLASSES).to(device)
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4)
        self.session: Callable | None = None

    def prepare(self, batch: int, side: int, boxes: int) -> None:
        images, truth, labels = scene(batch, side, boxes)
        self.images = images.to(self.device)
        shares = (to_centers(truth) / side).to(self.device)
        self.targets = [
            {"boxes": b, "class_labels": n} for b, n in zip(shares, labels.to(self.device), strict=True)
        ]

    def train(self) -> None:
        self.model.train()
        with self.autocast():
            loss = self.model(self.images, labels=self.targets).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self) -> None:
        if self.session is not None:
            self.choose(*(torch.from_numpy(t) for t in self.session([self.images])))
            return
        self.model.eval()
        with torch.no_grad(), self.autocast():
            outputs = self.model(self.images)
        self.choose(outputs.logits, outputs.pred_boxes)

    def choose(self, logits: torch.Tensor, boxes: torch.Tensor) -> None:
        """As their processor makes detections of outputs."""
        best = logits.float().sigmoid().flatten(1).topk(logits.shape[1], dim=1)
        boxes.gather(1, (best.indices // CLASSES)[..., None].expand(-1, -1, 4))

    def to_onnx(self) -> None:
        self.session = session_of(Outputs(self.model.eval()), self.images)

    def part(self, what: str, rounds: int) -> None:
        """No method has one of `PARTS` alone."""


class Outputs(torch.nn.Module):
    """The tensors of transformers' outputs that detections are made of."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(images)
        return outputs.logits, outputs.pred_boxes


class Apart:
    """A side in a process of its own, whose allocator and threads are nobody else's.

    Args:
        make: the side, of `arguments`.
    """

    def __init__(self, make: Callable[..., Side], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_answer, args=(other, make, *arguments), daemon=True)
        self.process.start()
        other.close()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """What a method of the side returns."""
        self.connection.send((name, arguments))
        return self.connection.recv()

    def close(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join()


def _answer(connection, make: Callable[..., Side], *arguments: Any) -> None:
    torch.manual_seed(0)
    side = make(*arguments)
    while asked := connection.recv():
        name, given = asked
        connection.send(getattr(side, name)(*given))


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


def race(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Seconds of the best round of each, taken by turns, after one that doesn't count."""

    def rested(act: Callable[[], float]) -> float:
        time.sleep(REST)
        return act()

    times = [(rested(ours), rested(theirs)) for _ in range(rounds + 1)][1:]
    return min(t[0] for t in times), min(t[1] for t in times)
