"""Layers against autograd's own way, and where gradients lie."""

import copy

import pytest
import torch
from timm.models.hgnet import LearnableAffineBlock
from torch import nn

from boxwright.models.backbones.affine import Affine
from boxwright.models.layers import ConvNorm, with_dense_gradient

LAYOUTS = (torch.channels_last, torch.contiguous_format)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_affine_block_is_timms(layout, dtype):
    theirs = LearnableAffineBlock(1.3, 0.2)
    ours = Affine(copy.deepcopy(theirs))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    maps = torch.randn(2, 8, 5, 7).to(dtype).contiguous(memory_format=layout)
    wanted = torch.randn(2, 16, 5, 7)[:, 3:11]  # a part of larger memory, as of what is put together
    seen = []
    for block in (theirs, ours):
        own = maps.clone().requires_grad_()
        block(own).backward(wanted)
        seen.append((block(own), own.grad, block.scale.grad, block.bias.grad))
    for expected, found in zip(*seen):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert torch.equal(ours(maps), theirs(maps))


def test_gradients_of_an_affine_block_are_those_of_small_steps():
    block = Affine(LearnableAffineBlock(0.7, -0.4).double())
    maps = torch.randn(2, 3, 4, 5, dtype=torch.double, requires_grad=True)
    parameters = tuple(block.parameters())
    assert torch.autograd.gradcheck(lambda m, *_: block(m), (maps, *parameters))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_is_put_into_the_layout_of_its_maps(layout):
    layer, layouts = ConvNorm(4, 8, activation=None).to(memory_format=layout), []
    images, weight = torch.randn(2, 4, 6, 6).contiguous(memory_format=layout), torch.randn(2, 36, 8)
    gradients = []
    for dense in (with_dense_gradient, nn.Identity()):
        maps = layer(images)
        maps.register_hook(lambda g: layouts.append(g.is_contiguous(memory_format=layout)))
        joined = torch.cat([dense(maps), torch.ones_like(maps)], dim=1)[:, :8]
        layer.zero_grad()
        ((joined.flatten(2).transpose(1, 2) * weight).sum() + joined[:, :3].square().sum()).backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    assert layouts == [True, False]
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
