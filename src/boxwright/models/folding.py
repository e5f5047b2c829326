"""Batch norms folded into the convolutions before them: the same outputs in fewer passes over memory."""

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from boxwright.models.backbones.stems import ReachingStem
from boxwright.models.layers import Normalize

if TYPE_CHECKING:
    from timm.models.hgnet import StemV2

Model = TypeVar("Model", bound=nn.Module)
# By name, so that detectors without timm don't wait for its import.
IN_ORDER = ("Sequential", "FeatureListNet")  # modules that call their children one after the other
NUMBERED = ("BasicBlock", "Bottleneck")  # timm's, whose convolution convN is followed by bnN
NAMED = ("ConvBNAct",)  # timm's, whose convolution conv is followed by bn


def fold_norms(model: Model) -> Model:
    """A copy in eval mode, for prediction only, whose batch norms are part of the convolutions.

    Folded are a convolution and the plain batch norm right after it, in modules that call their children in
    order and in the blocks of timm's ResNets and HGNets. An HGNet's convolutions take in the affine blocks
    behind their ReLUs, its stem scales images itself and is a `ReachingStem`. Modules of ours that can be
    made cheaper then have a method `merge`. Whatever else there is stays as it is.
    """
    folded = copy.deepcopy(model).eval()
    for parent in folded.modules():
        kinds = [
            kind.__name__ for kind in type(parent).__mro__ if kind.__module__.startswith(("torch.", "timm."))
        ]
        if not set(kinds).isdisjoint(IN_ORDER):
            pairs = list(pairwise(parent._modules))
        elif not set(kinds).isdisjoint(NUMBERED):
            pairs = [(f"conv{n}", f"bn{n}") for n in (1, 2, 3)]
        elif not set(kinds).isdisjoint(NAMED):
            pairs = [("conv", "bn")]
        else:
            continue
        for conv_name, norm_name in pairs:
            conv, norm = (getattr(parent, name, None) for name in (conv_name, norm_name))
            holder = parent
            if isinstance(conv, nn.Sequential) and len(conv):  # a stem, whose last layer is a convolution
                holder, conv_name, conv = conv, str(len(conv) - 1), conv[-1]
            # timm's own norms carry an activation along; they keep it.
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(holder, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
        if "ConvBNAct" in kinds:
            _take_in_affine(parent)
    for parent in list(folded.modules()):
        if hasattr(type(parent), "merge"):  # the class's: a part of somebody's may have the name
            cast(Any, parent).merge()
        for name, child in parent.named_children():
            if type(child).__name__ == "StemV2" and not isinstance(parent, ReachingStem):
                _scale_inside(folded, cast("StemV2", child))
                setattr(parent, name, ReachingStem(cast("StemV2", child)))
    return folded.to(memory_format=torch.channels_last)


def _take_in_affine(layer: Any) -> None:
    """The affine block of a `ConvBNAct`: s·max(x, 0) + b = max(s·x + b, b), min where s is negative."""
    conv = layer.conv
    if isinstance(layer.lab, nn.Identity) or not isinstance(layer.bn, nn.Identity):
        return
    scale, bias = layer.lab.scale.item(), layer.lab.bias.item()
    conv.weight.data *= scale
    conv.bias.data = conv.bias.data * scale + bias
    if scale < 0 or bias != 0:
        bounds = (bias, float("inf")) if scale >= 0 else (float("-inf"), bias)
        layer.act = nn.Hardtanh(*bounds)
    layer.lab = nn.Identity()


def _scale_inside(model: nn.Module, stem: "StemV2") -> None:
    """The first convolution scales the images, where nothing is taken from them."""
    normalize, conv = getattr(model, "normalize", None), cast(nn.Conv2d, stem.stem1.conv)
    if isinstance(normalize, Normalize) and not normalize.mean.any():
        conv.weight.data /= normalize.variance.sqrt()[:, None, None]
        model.normalize = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
