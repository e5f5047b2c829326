"""What a detector's layers see in an image, as arrays that can be drawn."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boxwright.models.attention import DeformableAttention
from boxwright.models.detector import Detector
from boxwright.models.inspection import pyramid_of
from boxwright.models.set_boxes import kind_of
from boxwright.models.sets import Costs

CHANNELS = 8  # shown of each level, those that vary most


@dataclass(frozen=True)
class Attention:
    """Where a query of the last decoder layer looks, and what it predicts.

    Attributes:
        box: (4,) x1, y1, x2, y2 in shares of the input.
        score: of its best class.
        label: of it.
        places: (N, 2) x, y in shares of the input.
        weights: (N,) how much is read there; they add up to 1.
    """

    box: np.ndarray
    score: float
    label: int
    places: np.ndarray
    weights: np.ndarray


def filters_of(model: Detector) -> tuple[str, np.ndarray]:
    """Name and weights (O, I, H, W) of the first convolution that sees the image."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module.weight.detach().float().cpu().numpy()
    raise ValueError("a detector without a convolution")


@torch.no_grad()
def feature_maps(model: Detector, images: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each level, for the first image: the mean size of its features (H, W), and the `CHANNELS` channels
    (K, H, W) that vary most.
    """
    shown = []
    for level in pyramid_of(model.eval(), images):
        features = level[0].float().cpu()
        chosen = features.flatten(1).std(dim=1, correction=0).topk(min(CHANNELS, len(features))).indices
        shown.append((features.abs().mean(0).numpy(), features[chosen].numpy()))
    return shown


@torch.no_grad()
def attention_of(model: Detector, images: Tensor, count: int = 4) -> list[Attention]:
    """Where the `count` queries of greatest score look in the first image; none of a detector without."""
    deformable = [m for m in model.modules() if isinstance(m, DeformableAttention)]
    crossing = [m for n, m in model.named_modules() if n.endswith("cross_attention")]
    if not crossing:
        return []
    calls: list[tuple[tuple, dict[str, Any], Any]] = []
    last = crossing[-1]
    handle = last.register_forward_hook(lambda m, a, k, o: calls.append((a, k, o)), with_kwargs=True)
    try:
        outputs = model.eval()(images)
    finally:
        handle.remove()
    logits, costs = outputs["cls_logits"][0, -1].float(), model.costs
    assert isinstance(costs, Costs)
    # A set predictor whose classes exclude each other has the background as its last.
    scores = logits.softmax(-1)[:, :-1] if costs.softmax else logits.sigmoid()
    best, labels = scores.max(-1)
    queries = best.topk(min(count, len(best))).indices
    arguments = calls[-1][0]
    if deformable:
        places, weights = _deformable(last, arguments)
    else:
        places, weights = _dense(last, arguments, pyramid_of(model, images)[-1])
    boxes, image_size = outputs["boxes"][0, -1].float(), outputs["image_size"]
    corners = kind_of(boxes).hulls(boxes, image_size) / image_size.repeat(2)
    return [
        Attention(
            corners[q].cpu().numpy(), float(best[q]), int(labels[q]), places[q].numpy(), weights[q].numpy()
        )
        for q in queries.tolist()
    ]


def _deformable(module: nn.Module, arguments: tuple) -> tuple[Tensor, Tensor]:
    """Places (Q, N, 2) and weights (Q, N) that the heads of the first image's queries read together."""
    assert isinstance(module, DeformableAttention)
    queries, boxes = arguments[:2]
    place, weight = module.sample(queries[:1], boxes[:1])  # (1, Q, heads, P, 2), (1, Q, heads, P)
    return place[0].flatten(1, 2).cpu(), (weight[0] / module.heads).flatten(1).cpu()


def _dense(module: nn.Module, arguments: tuple, read: Tensor) -> tuple[Tensor, Tensor]:
    """The same of attention to every cell of the map (B, C, H, W) that is read."""
    assert isinstance(module, nn.MultiheadAttention)
    _, weight = module(*arguments, need_weights=True)
    height, width = read.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = torch.stack([x / width, y / height], dim=-1).flatten(0, 1)
    return place.expand(weight.shape[1], -1, -1), weight[0].cpu()
