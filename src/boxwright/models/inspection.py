"""A look inside a detector: what its parts hold and cost, how far they see, what flows through them."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from boxwright.data.targets import Batch
from boxwright.models.detector import Detector

NOISE = 4  # images that the effective field is the mean of
EFFECTIVE = 0.9  # share of a place's influence that its effective field holds
EXPLODING = 1e4  # activations and gradients beyond it
VANISHING = 1e-6  # share of the greatest deviation of a gradient, below which a layer hardly learns
DEAD = 0.5  # share of channels that are 0 for every place and image


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        name: of the module.
        kind: its class.
        shape: of what it gives for one image, levels apart.
        parameters: of it and its parts.
        trained: those that get gradients.
        gflops: billions of multiplications and additions for one image.
    """

    name: str
    kind: str
    shape: str
    parameters: int
    trained: int
    gflops: float


def parts_of(model: Detector, size: tuple[int, int], depth: int = 2) -> list[Part]:
    """The parts of a model, and the whole of it last.

    Args:
        model: on any device; isn't changed.
        size: (width, height) of the image.
        depth: of the names, 1 for "backbone".
    """
    shapes: dict[str, str] = {}

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        shapes.setdefault(name, _shape_of(output))

    image = _image(model, size)
    with _hooked(model, note), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    counts = counter.get_flop_counts()
    root = type(model).__name__
    rows = []
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        if name and (name.count(".") >= depth or not parameters):
            continue
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        kind = type(module).__name__
        gflops = _flops_of(f"{root}.{name}" if name else root, module, counts) / 1e9
        rows.append(Part(name or "all", kind, shapes.get(name, "") if name else "", total, trained, gflops))
    return rows[1:] + rows[:1]


@dataclass(frozen=True)
class Field:
    """What a place in the middle of a level sees.

    Attributes:
        stride: pixels from a place to the next.
        reach: width and height, pixels, of all that it depends on, whatever the weights, as far as it lies in
            the image.
        effective: side, pixels, of the square that holds `EFFECTIVE` of its influence.
    """

    stride: float
    reach: tuple[int, int]
    effective: int


def fields_of(model: Detector, size: tuple[int, int]) -> list[Field]:
    """The receptive field of each level of the pyramid, finest first, by its gradient.

    Luo et al., Understanding the Effective Receptive Field, NeurIPS 2016. The effective field is the mean
    over a few images of noise.
    """
    model = copy.deepcopy(model).eval().float()
    image = _image(model, size)
    generator = torch.Generator().manual_seed(0)
    noise = [(torch.rand(image.shape, generator=generator) * 255).to(image.device) for _ in range(NOISE)]

    def influence() -> list[np.ndarray]:
        """Of each level, over all images: pooling passes on another pixel of each."""
        return [np.sum(of_level, axis=0) for of_level in zip(*(_influence(model, n) for n in noise))]

    effective = influence()
    _pass_everything_on(model)
    whole = influence()
    with torch.no_grad():
        levels = pyramid_of(model, image)
    fields = []
    for level, near, far in zip(levels, effective, whole):
        stride, cells = image.shape[2] / level.shape[2], level.shape[-2:]
        fields.append(Field(stride, _reach(far), _effective(near, stride, (cells[0], cells[1]))))
    return fields


def pyramid_of(model: Detector, images: Tensor) -> list[Tensor]:
    """The maps (B, C, H, W) that a detector's head reads: its neck's, or its backbone's where it has none."""
    found: list[list[Tensor]] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(list(output))

    source = "neck" if hasattr(model, "neck") else "backbone"
    with _hooked(model, note, [source]):
        model(images)
    return found[0]


@dataclass
class Flow:
    """What flows through a layer in a training step: of its output, and of the loss's gradient to it.

    Attributes:
        name, kind: of the module.
        mean, deviation, greatest: of its activations; the greatest without its sign.
        dead: share of channels that are 0 for every place and image.
        gradient_deviation, gradient_greatest: None where no gradient arrives.
        marks: what is wrong: exploding, vanishing, dead, unused.
    """

    name: str
    kind: str
    mean: float = 0.0
    deviation: float = 0.0
    greatest: float = 0.0
    dead: float = 0.0
    gradient_deviation: float | None = None
    gradient_greatest: float | None = None
    marks: tuple[str, ...] = ()


def flows_of(model: Detector, batch: Batch) -> list[Flow]:
    """One training step without its last act, layer by layer in the order of their calls.

    "Unused" is a parameter that gets no gradient, "exploding" a number above `EXPLODING` or none at all,
    "vanishing" a gradient whose deviation is less than `VANISHING` of the greatest layer's, "dead" a layer
    that leaves more than `DEAD` of its channels at 0.
    """
    model = copy.deepcopy(model).train()
    noted: OrderedDict[str, list[Tensor]] = OrderedDict()
    gradients: dict[str, list[Tensor]] = {}

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        noted.setdefault(name, []).append(_moments(output.detach()))
        if output.requires_grad:
            # Before it is changed in place, as an activation after it may do.
            output.register_hook(lambda g: gradients.setdefault(name, []).append(_moments(g)))

    leaves = [name for name, module in model.named_modules() if not list(module.children())]
    with _hooked(model, note, leaves):
        losses = model.loss(model(batch.images, batch.targets), batch.targets)
        torch.stack(list(losses.values())).sum().backward()
    modules = dict(model.named_modules())
    flows = []
    for name, moments in noted.items():
        mean, deviation, greatest, dead = _joined(moments)
        flow = Flow(name, type(modules[name]).__name__, mean, deviation, greatest, dead)
        if name in gradients:
            _, flow.gradient_deviation, flow.gradient_greatest, _ = _joined(gradients[name])
        flows.append(flow)
    steepest = max((f.gradient_deviation or 0.0 for f in flows), default=0.0)
    for flow in flows:
        flow.marks = tuple(_marks(flow, modules[flow.name], steepest))
    called = {flow.name for flow in flows}
    for name, module in modules.items():
        if name not in called and _is_unused(module):
            flows.append(Flow(name, type(module).__name__, marks=("unused",)))
    return flows


def _marks(flow: Flow, module: nn.Module, steepest: float) -> Iterator[str]:
    greatest = max(flow.greatest, flow.gradient_greatest or 0.0)
    if not np.isfinite(greatest) or greatest > EXPLODING:
        yield "exploding"
    if flow.gradient_deviation is not None and flow.gradient_deviation < VANISHING * steepest:
        yield "vanishing"
    if flow.dead > DEAD:
        yield "dead"
    if _is_unused(module):
        yield "unused"


def _is_unused(module: nn.Module) -> bool:
    own = [p for p in module.parameters(recurse=False) if p.requires_grad]
    return bool(own) and all(p.grad is None for p in own)


def _moments(values: Tensor) -> Tensor:
    """Sum, sum of squares, count, greatest, and of each channel the greatest, one behind the other."""
    values = values.float()
    channels = values.movedim(1, 0) if values.dim() == 4 else values.movedim(-1, 0)
    size = values.abs()
    first = [values.sum(), values.square().sum(), values.new_tensor(float(values.numel())), size.max()]
    return torch.cat([torch.stack(first), channels.flatten(1).abs().amax(1)]).double().cpu()


def _joined(moments: list[Tensor]) -> tuple[float, float, float, float]:
    """Mean, deviation, greatest and share of dead channels over all calls."""
    total, squares, count = torch.stack([m[:3] for m in moments]).sum(0).tolist()
    mean = total / count
    channels = torch.stack([m[4:] for m in moments if len(m) == len(moments[0])]).amax(0)
    dead = float((channels == 0).double().mean())
    greatest = max(float(m[3]) for m in moments)
    return mean, max(squares / count - mean**2, 0.0) ** 0.5, greatest, dead


@contextmanager
def _hooked(model: nn.Module, note: Any, names: list[str] | None = None) -> Iterator[None]:
    """Call `note` with the name, module, inputs and output of modules whenever they are called."""
    wanted = None if names is None else set(names)
    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in model.named_modules()
        if wanted is None or name in wanted
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _image(model: Detector, size: tuple[int, int]) -> Tensor:
    """A grey image that a detector takes, of `size` (width, height) or a little larger."""
    width, height = (-(-max(side, model.least_side) // model.stride) * model.stride for side in size)
    return torch.full((1, 3, height, width), 114.0, device=next(model.parameters()).device)


def _shape_of(output: Any) -> str:
    if isinstance(output, Tensor):
        return " x ".join(str(side) for side in output.shape[1:])
    if isinstance(output, list | tuple):
        shapes = [_shape_of(part) for part in output]
        return "; ".join(shape for shape in shapes if shape)
    return ""


def _flops_of(name: str, module: nn.Module, counts: dict[str, dict[Any, int]]) -> int:
    """Of a module, or of its parts where it isn't called itself, as a list of layers isn't."""
    if name in counts:
        return sum(counts[name].values())
    return sum(_flops_of(f"{name}.{n}", child, counts) for n, child in module.named_children())


def _influence(model: Detector, image: Tensor) -> list[np.ndarray]:
    """(H, W) how much each pixel changes the place in the middle of each level."""
    image = image.requires_grad_()
    seen = []
    for level in pyramid_of(model, image):
        middle = level[0, :, level.shape[2] // 2, level.shape[3] // 2]
        # Channels weigh differently: a plain sum could cancel.
        direction = torch.rand(middle.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        (gradient,) = torch.autograd.grad((middle * direction.to(middle)).sum(), image, retain_graph=True)
        seen.append(gradient[0].abs().sum(0).cpu().double().numpy())
    return seen


@torch.no_grad()
def _pass_everything_on(model: nn.Module) -> None:
    """Make every layer a mean of what it gets, so that nothing that it depends on is without influence."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 1.0)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()


def _reach(influence: np.ndarray) -> tuple[int, int]:
    rows, columns = (np.flatnonzero(influence.sum(axis=axis)) for axis in (1, 0))
    width, height = (int(np.ptp(places)) + 1 if len(places) else 0 for places in (columns, rows))
    return width, height


def _effective(influence: np.ndarray, stride: float, cells: tuple[int, int]) -> int:
    middle = [round((count // 2 + 0.5) * stride) for count in cells]  # of the place, row and column
    total, half = influence.sum(), 0
    while half < max(influence.shape):
        top, left = (max(0, place - half) for place in middle)
        held = influence[top : middle[0] + half + 1, left : middle[1] + half + 1].sum()
        if held >= EFFECTIVE * total:
            break
        half += 1
    return min(2 * half + 1, max(influence.shape))
