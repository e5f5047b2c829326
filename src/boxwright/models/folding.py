"""Batch norms folded into the convolutions before them: the same outputs in fewer passes over memory."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from timm.models._features import FeatureListNet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Model = TypeVar("Model", bound=nn.Module)
IN_ORDER = (nn.Sequential, FeatureListNet)  # modules that call their children one after the other
NUMBERED = (BasicBlock, Bottleneck)  # whose convolution convN is followed by bnN


def fold_norms(model: Model) -> Model:
    """A copy in eval mode, for prediction only, whose batch norms are part of the convolutions.

    Folded are a convolution and the plain batch norm right after it, in modules that call their children in
    order and in the blocks of timm's ResNets; whatever else there is stays as it is.
    """
    folded = copy.deepcopy(model).eval()
    for parent in folded.modules():
        if isinstance(parent, IN_ORDER):
            pairs = list(pairwise(parent._modules))
        elif isinstance(parent, NUMBERED):
            pairs = [(f"conv{n}", f"bn{n}") for n in (1, 2, 3)]
        else:
            continue
        for conv_name, norm_name in pairs:
            conv, norm = (getattr(parent, name, None) for name in (conv_name, norm_name))
            # timm's own norms carry an activation along; they keep it.
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return folded.to(memory_format=torch.channels_last)
