"""Muon beside torch's own for matrices, and AdamW's for the rest."""

import copy

import pytest
import torch
from torch import nn

from boxwright.config.training import OptimizerConfig
from boxwright.training.muon import matrices, orthogonal
from boxwright.training.optimization import make_optimizer

CONFIG = OptimizerConfig(name="muon", lr=0.02, weight_decay=0.1)


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 3))


def set_gradients(*models, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        gradient = torch.randn(parameters[0].shape, generator=generator)
        for parameter in parameters:
            parameter.grad = gradient.clone()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
def test_steps_are_torchs():
    own, theirs = small_model(), small_model()
    before = own[0].weight.detach().clone()
    muon = torch.optim.Muon(
        [theirs[0].weight], lr=CONFIG.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    biases = [theirs[0].bias, theirs[1].bias]
    groups = [{"params": [theirs[1].weight], "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    adamw, optimizer = torch.optim.AdamW(groups, lr=CONFIG.lr), make_optimizer(own, CONFIG)
    for n in range(5):
        set_gradients(own, theirs, seed=n)
        for one in (optimizer, muon, adamw):
            one.step()
    torch.testing.assert_close(own[1].state_dict(), theirs[1].state_dict())
    torch.testing.assert_close(own[0].bias, theirs[0].bias)
    # Torch iterates in bfloat16.
    moved, wanted = own[0].weight - before, theirs[0].weight - before
    assert (moved - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 64, 9)])
def test_singular_values_become_alike(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(given)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    assert ((found * (left @ right)).sum() / (found.norm() * (left @ right).norm())) > 0.97


@pytest.mark.parametrize("least", [1e-2, 1e-4, 1e-8, 0.0])
def test_matrices_of_few_directions_are_as_the_plain_iteration_has_them(least):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 32, generator=generator).double())[0] for n in (32, 288))
    values = torch.logspace(0, -1, 32).double().where(torch.arange(32) < 4, least)
    given = (left * values) @ right.mT
    wanted = given / given.norm()
    for _ in range(5):  # Jordan et al.
        product = wanted @ wanted.mT
        wanted = 3.4445 * wanted + (-4.7750 * product + 2.0315 * product @ product) @ wanted
    # Squares of small values are near the rounding of the largest; bfloat16 would lose a tenth and more.
    found = orthogonal(given.float()[None])[0].double()
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


def test_no_gradient_is_no_step():
    assert orthogonal(torch.zeros(2, 4, 9)).eq(0).all()


def test_convolutions_that_mix_channels_are_matrices():
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1)
    )
    assert matrices(model) == {model[0].weight}


def test_a_state_goes_on_where_it_was():
    model = small_model()
    optimizer = make_optimizer(model, CONFIG)
    for n in range(3):
        set_gradients(model, seed=n)
        optimizer.step()
    again = copy.deepcopy(model)
    other = make_optimizer(again, CONFIG)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    set_gradients(model, again, seed=9)
    optimizer.step()
    other.step()
    torch.testing.assert_close(model.state_dict(), again.state_dict(), rtol=0, atol=0)
