"""Attention of a set to itself against torch's own forward on the same parameters."""

import pytest
import torch
from torch import nn

from boxwright.models.attention import SelfAttention


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
