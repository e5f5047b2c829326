"""Backbones, necks and their options, as a config names them."""

import pytest
import timm
import torch
from torch import nn

from boxwright.config.models import ATSSConfig
from boxwright.errors import ConfigError
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.layers import halve
from boxwright.models.necks.fpn import FPN
from boxwright.models.necks.ssh import SSHContext
from boxwright.models.pyramid import make_pyramid

RESNET = {"name": "resnet18", "pretrained": False}


@pytest.mark.parametrize(
    "neck",
    [
        {},
        {"levels": [2, 6]},
        {"levels": [3, 5]},
        {"levels": [4, 8], "extra_from": "lateral"},
        {"name": "pafpn", "extra_from": "input"},
        {"name": "pafpn", "norm": "group", "levels": [2, 5]},
        {"name": "bifpn", "repeats": 2},
        {"name": "bifpn", "levels": [2, 5]},
        {"context": "ssh"},
    ],
    ids=str,
)
def test_every_neck_gives_its_levels_and_learns(neck):
    config = ATSSConfig.model_validate({"name": "atss", "backbone": RESNET, "neck": {"channels": 16, **neck}})
    backbone, pyramid, strides = make_pyramid(config, "output")
    low, high = neck.get("levels", [3, 7])
    assert strides == tuple(2**level for level in range(low, high + 1))
    maps = pyramid(backbone(torch.rand(2, 3, 128, 192)))
    assert [tuple(m.shape) for m in maps] == [(2, 16, -(-128 // s), -(-192 // s)) for s in strides]
    sum(m.square().mean() for m in maps).backward()
    idle = [name for name, p in pyramid.named_parameters() if p.grad is None]
    assert idle == []


def test_a_pafpn_whose_way_up_is_silent_is_an_fpn():
    torch.manual_seed(0)
    fpn, pafpn = FPN([8, 16, 32], 12, 1), FPN([8, 16, 32], 12, 1, bottom_up=True)
    pafpn.load_state_dict(fpn.state_dict(), strict=False)
    maps = [torch.rand(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4))]
    assert not torch.allclose(fpn(maps)[1], pafpn(maps)[1])
    for conv in [down[0] for down in pafpn.downs]:
        nn.init.zeros_(conv.weight)
    for conv in [mend[0] for mend in pafpn.mends]:
        nn.init.dirac_(conv.weight)
    for ours, theirs in zip(pafpn(maps), fpn(maps)):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_context_module_looks_seven_pixels_wide():
    context = SSHContext(8, 1).eval()
    image = torch.zeros(1, 8, 15, 15)
    moved = image.clone()
    moved[0, :, 7, 7] = 1.0
    reach = ((context([moved])[0] - context([image])[0]).abs().sum(1)[0] > 0).nonzero()
    assert (reach.min().item(), reach.max().item()) == (4, 10)


def test_pooling_as_tensorflow_pads():
    """SAME: output ceil(n / 2), what is missing shared with more at the end."""
    row = torch.tensor([3.0, 1, 4, 1, 5, 9]).expand(1, 1, 6, 6)
    assert halve(row, same=True)[0, 0, 0].tolist() == [4, 5, 9]  # 0-2, 2-4, 4-5
    assert halve(row[..., :5], same=True)[0, 0, 0].tolist() == [3, 4, 5]  # 0-1, 1-3, 3-4
    assert halve(row)[0, 0, 0].tolist() == [3, 4, 9]  # 0-1, 1-3, 3-5


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_attention_is_in_every_block_of_a_resnet(attention):
    plain, attentive = TimmBackbone("resnet18"), TimmBackbone("resnet18", attention=attention)
    more = attentive.state_dict().keys() - plain.state_dict().keys()
    assert {name.split(".")[1] for name in more} == {"layer1", "layer2", "layer3", "layer4"}
    assert [m.shape for m in attentive(torch.rand(1, 3, 64, 64))] == [
        m.shape for m in plain(torch.rand(1, 3, 64, 64))
    ]
    with pytest.raises(ConfigError, match="only ResNets have it"):
        TimmBackbone("mobilenetv3_small_100", attention=attention)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv3_small_100", "resnext101_64x4d", "vgg16"])
def test_backbones_by_name(name):
    # Built on no device: only shapes are asked for.
    with torch.device("meta"):
        backbone = TimmBackbone(name)
        maps = backbone(torch.empty(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [8, 4, 2]
    assert [m.shape[1] for m in maps] == backbone.channels


@pytest.mark.parametrize(("strides", "indices"), [((8, 32), (2, 4)), ((2, 16), (0, 3))])
def test_a_resnet_is_timms_own_with_its_gradients(strides, indices):
    torch.manual_seed(0)
    ours = TimmBackbone("resnet18", strides=strides)
    theirs = timm.create_model("resnet18", features_only=True, out_indices=indices)
    theirs.load_state_dict(ours.body.state_dict())
    images = torch.rand(2, 3, 64, 96)
    for model in (ours, theirs):
        torch.stack([m.square().mean() for m in model(images)]).sum().backward()
    grads = [[p.grad for p in model.parameters()] for model in (ours.body, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    pairs = zip(ours.eval()(images), theirs.eval()(images), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    stem = list(ours.body)[2:4]
    assert stem == (["act1", "maxpool"] if 2 in strides else ["maxpool", "act1"])


def test_options_that_do_not_fit_are_refused():
    for neck, told in (
        ({"levels": [5, 5]}, "levels"),
        ({"name": "bifpn", "norm": "group"}, "batch norm"),
        ({"repeats": 2}, "repeats is for bifpn"),
        ({"channels": 18, "context": "ssh"}, "context ssh needs a multiple of 4"),
    ):
        with pytest.raises(ValueError, match=told):
            ATSSConfig.model_validate({"name": "atss", "neck": neck})
