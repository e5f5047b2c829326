"""Statistics of batch norms are those of training images under the weights that are judged."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import boxwright
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset
from boxwright.models.checkpoint import load_detector
from boxwright.models.detector import collate_for
from boxwright.training import norms
from boxwright.training.norms import AFTER, draws_that_tell, gather_statistics
from tests.scenes import square_experiment


class Small(nn.Module):
    """Three norms, of which the last has a part in training alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images):
        return self.second(2 * self.first(images) + 1)


def test_statistics_are_the_means_of_batches_and_some_norms_keep_theirs():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 3, 8, 8, generator=generator) * scale + scale for scale in (1.0, 2.0, 3.0)]
    model, like = Small(), Small()
    for norm in (model.second, model.third):
        norm.running_mean.fill_(7.0)
    model.train(), like.train()
    like.second.eval()
    gather_statistics(model, like, batches, Accelerator(cpu=True))
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variance = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(model.first.running_mean, mean)
    torch.testing.assert_close(model.first.running_var, variance)
    assert model.second.running_mean.eq(7).all()
    assert model.third.running_mean.eq(7).all()
    assert model.third.running_var.eq(1).all()
    assert not any(module.training for module in model.modules())
    assert {norm.momentum for norm in (model.first, model.second, model.third)} == {0.1}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": None},
        {"optimizer": {"name": "schedule_free", "lr": 5e-3}, "schedule": {"name": "constant"}, "ema": None},
    ],
)
def test_a_run_keeps_those_of_its_images_under_the_weights_that_are_judged(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(norms, "LEAST", 8)
    config = square_experiment(tmp_path, epochs=4, **settings)
    augment = config.augment.model_copy(update={"crop": (48, 48), "grow_from": 0.5, "mosaic": 0.5})
    run = boxwright.train(config.model_copy(update={"augment": augment}), runs=tmp_path)
    model = load_detector(run.folder / "checkpoints/last.safetensors").model
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    seen = []
    conv.register_forward_hook(lambda module, given, out: seen.append(out.mean((0, 2, 3))))
    alone = augment.model_copy(update={"mosaic": 0.0})
    images = DetectionDataset(formats.read(config.data.train.root), config.image_size, alone, seed=0)
    with torch.no_grad():
        model(collate_for(model)([images[AFTER, n] for n in range(len(images))]).images)
    torch.testing.assert_close(norm.running_mean, seen[0], rtol=1e-3, atol=1e-4)


def test_few_images_tell_nothing_and_many_are_not_all_looked_at():
    assert draws_that_tell(63, 8, seed=0) == []
    assert sorted(draws_that_tell(64, 8, seed=0)) == [(AFTER, n) for n in range(64)]
    assert len(draws_that_tell(70, 16, seed=0)) == 64
    many = {n for _, n in draws_that_tell(100_000, 8, seed=0)}
    assert len(many) == 512
    assert max(many) > 90_000
    parts = [draws_that_tell(100, 8, 0, rank, 3) for rank in range(3)]
    assert [len(set(part)) for part in parts] == [32, 32, 32]
    assert len({draw for part in parts for draw in part}) == 96
