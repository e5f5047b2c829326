"""Which rows of which tensors belong to a class, so that a classifier can be carried over to another list."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OF_CLASS = "class"  # rows of each prior: its classes
WITH_BACKGROUND = "class, background"  # the same, the background last
BOXES_OF_CLASS = "class, box"  # of each class the numbers of a box
AFTER_FIVE = "five, class"  # of each prior box and objectness, then its classes

# Patterns of our names to the layout of the first axis.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "ssd": ((r"head\.cls\.\d+\.\w+", WITH_BACKGROUND),),
    "dssd": ((r"head\.predict\.cls\.\d+\.\w+", WITH_BACKGROUND),),
    "yolox": ((r"head\.cls\.\d+\.\w+", OF_CLASS),),
    "yolov3": ((r"head\.predict\.\d+\.\w+", AFTER_FIVE),),
    "efficientdet": ((r"head\.cls\.predict\.1\.\w+", OF_CLASS),),
    "retinaface": ((r"head\.cls\.\w+", WITH_BACKGROUND),),
    "faster_rcnn": (
        (r"roi_heads\.\d+\.cls\.\w+", WITH_BACKGROUND),
        (r"roi_heads\.\d+\.box\.\w+", BOXES_OF_CLASS),
    ),
    "classifier": ((r"classes\.\w+", OF_CLASS),),
    "detr": ((r"cls\.\w+", WITH_BACKGROUND),),
    "rtdetr": (
        (r"select\.cls\.\w+", OF_CLASS),
        (r"decoder\.cls\.\d+\.\w+", OF_CLASS),
        (r"noisy\.embed\.weight", WITH_BACKGROUND),
    ),
}
LAYOUTS |= dict.fromkeys(("cascade_rcnn", "faster_rcnn_obb"), LAYOUTS["faster_rcnn"])
LAYOUTS |= dict.fromkeys(("dfine", "dfine_obb"), LAYOUTS["rtdetr"])
DENSE = ((r"head\.cls\.\w+", OF_CLASS),)


@dataclass(frozen=True)
class Carried:
    """What became of the classes.

    Attributes:
        source: of each class of the new list the one it starts from, or None.
        left: classes of the old list that none starts from.
    """

    source: dict[str, str | None]
    left: list[str]


def match_classes(old: Sequence[str], new: Sequence[str], class_map: dict[str, str]) -> Carried:
    """Which old class each new one starts from: by `class_map` (old to new), else by name in any case."""
    mapped = {after: before for before, after in class_map.items()}
    by_name = {name.casefold(): name for name in reversed(old)}
    source = {name: mapped.get(name) or by_name.get(name.casefold()) for name in new}
    used = set(source.values())
    return Carried(source, [name for name in dict.fromkeys(old) if name not in used])


def layout_of(detector: str, name: str) -> str | None:
    """How the first axis of a tensor follows the classes; None where it doesn't."""
    layouts = LAYOUTS.get(detector, DENSE)
    return next((kind for pattern, kind in layouts if re.fullmatch(pattern, name)), None)


def carry_rows(
    detector: str, name: str, old: Tensor, new: Tensor, rows: list[int | None], old_classes: int
) -> Tensor | None:
    """A tensor for the new classes: the rows that are carried over, the rest as they are.

    Args:
        detector: our name of it.
        name: our name of the tensor.
        old, new: of the checkpoint and of the model.
        rows: of each new class the old one, or None.
        old_classes: how many there are.

    Returns:
        None where no rows of this tensor belong to classes.
    """
    layout = layout_of(detector, name)
    if layout is None:
        return None
    before, after = (_by_class(t, layout, n) for t, n in ((old, old_classes), (new, len(rows))))
    if before is None or after is None or before.shape[:1] != after.shape[:1]:
        return None
    if before.shape[2:] != after.shape[2:]:
        return None
    result = after.clone()
    kept = [(n, row) for n, row in enumerate(rows) if row is not None]
    if kept:
        there, here = torch.tensor([row for _, row in kept]), torch.tensor([n for n, _ in kept])
        first = 5 if layout == AFTER_FIVE else 0
        result[:, here + first] = before[:, there + first]
    if layout == AFTER_FIVE:
        result[:, :5] = before[:, :5]
    if layout == WITH_BACKGROUND:
        result[:, -1] = before[:, -1]
    return result.reshape(new.shape)


def _by_class(tensor: Tensor, layout: str, classes: int) -> Tensor | None:
    """(priors, classes and what stands beside them, ...)."""
    if layout == BOXES_OF_CLASS:  # one prior; a box's numbers go to the end
        fits = tensor.shape[0] in (4 * classes, 5 * classes)
        return tensor.unflatten(0, (classes, -1))[None] if fits else None
    each = classes + {OF_CLASS: 0, WITH_BACKGROUND: 1, AFTER_FIVE: 5}[layout]
    return tensor.unflatten(0, (-1, each)) if tensor.shape[0] % each == 0 else None
