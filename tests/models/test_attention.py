"""Attention of a set to itself against torch's own forward on the same parameters; layers of maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boxwright.models.attention import MapLinear, SelfAttention
from boxwright.models.necks.hybrid import JoiningConv


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torchs_multihead_attention(masked):
    torch.manual_seed(0)
    ours = SelfAttention(32, 4)
    nn.init.normal_(ours.in_proj_bias)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    features, positions = torch.randn(2, 9, 32, requires_grad=True), torch.randn(9, 32)
    mask = torch.rand(9, 9) < 0.5 if masked else None
    if mask is not None:
        mask.fill_diagonal_(False)  # each sees something
    placed = features + positions
    expected, _ = theirs(placed, placed, features, attn_mask=mask, need_weights=False)
    found = ours(features, positions, mask)
    assert torch.allclose(found, expected, atol=1e-5)
    (wanted,) = torch.autograd.grad(expected.square().sum(), features, retain_graph=True)
    (gradient,) = torch.autograd.grad(found.square().sum(), features)
    assert torch.allclose(gradient, wanted, atol=1e-4)


def test_a_layer_of_maps_takes_in_what_projects_them():
    torch.manual_seed(0)
    layer, convolutions = MapLinear(8, 6), [nn.Conv2d(5, 8, 1, bias=n > 0) for n in range(2)]
    maps = [torch.randn(2, 5, 4, 3), torch.randn(2, 5, 2, 2)]
    projected = [conv(m) for conv, m in zip(convolutions, maps)]
    found = [layer(n, m) for n, m in enumerate(projected)]
    for values, m in zip(found, projected):
        wanted = F.linear(m.movedim(1, -1), layer.weight, layer.bias).movedim(-1, 1)
        assert torch.allclose(values, wanted, atol=1e-5)
    layer.take_in(convolutions)
    for n, m in enumerate(maps):
        assert torch.allclose(layer(n, m), found[n], atol=1e-5)


@pytest.mark.parametrize("small", [(3, 2), (6, 4)])
def test_a_convolution_of_maps_is_that_of_one_on_the_other(small):
    torch.manual_seed(0)
    conv = JoiningConv(7, 4, 1)
    maps = [torch.randn(2, 3, *small), torch.randn(2, 4, 6, 4)]
    whole = torch.cat([F.interpolate(maps[0], size=(6, 4)), maps[1]], dim=1)
    expected = F.conv2d(whole, conv.weight, conv.bias)
    assert torch.allclose(conv(maps), expected, atol=1e-5)
    weight = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), conv.weight)
    (gradient,) = torch.autograd.grad((conv(maps) * weight).sum(), conv.weight)
    assert torch.allclose(gradient, wanted, atol=1e-5)

    before = nn.Conv2d(2, 4, 1)
    fine = torch.randn(2, 2, 6, 4)
    expected = conv([maps[0], before(fine)])
    conv.take_in(before)
    assert torch.allclose(conv([maps[0], fine]), expected, atol=1e-5)
