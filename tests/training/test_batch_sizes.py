"""Batches of several sizes: each step has one of its own, and the truth has moved with the pixels."""

import pytest

from boxwright.config.augment import AugmentConfig
from boxwright.models.compact import Compact
from boxwright.training.train import train
from tests.scenes import square_experiment


@pytest.fixture
def seen(monkeypatch):
    """Sizes that the detector has learnt from, in order."""
    sizes, honest = [], Compact.forward

    def look(self, images, targets=None):
        if targets is not None:
            assert (targets.boxes[targets.mask].amax() <= max(images.shape[-2:])).item()
            sizes.append(tuple(images.shape[-2:]))
        return honest(self, images, targets)

    monkeypatch.setattr(Compact, "forward", look)
    return sizes


def test_each_step_has_a_size_of_its_own(tmp_path, seen):
    experiment = square_experiment(tmp_path, epochs=4, evaluate_every=4)
    for name, low, high in (("several", 0.5, 2.0), ("again", 0.5, 2.0), ("one", 1.0, 1.0)):
        augment = AugmentConfig(batch_scale=(low, high))
        train(experiment.model_copy(update={"augment": augment}), name=name, runs=tmp_path / "runs")
    several, again, one = seen[:16], seen[16:32], seen[32:]
    assert several == again
    assert {side for size in several for side in size} <= {32, 64, 96, 128}
    assert len(set(several)) > 2
    assert set(one) == {(64, 64)}


def test_batches_grow_into_the_whole_size(tmp_path, seen):
    experiment = square_experiment(tmp_path, epochs=4, evaluate_every=4)
    augment = AugmentConfig(grow_from=0.25, grow_until=0.5)
    train(experiment.model_copy(update={"augment": augment}), name="grown", runs=tmp_path / "runs")
    sides = [width for width, _ in seen]
    assert sides == sorted(sides)
    # A quarter of 64 px, and the greatest of the growing ones (58 px), are padded to multiples of 32.
    assert sides[0] == 32
    assert sides[8:] == [64] * 8


def test_sizes_grow_in_a_line():
    experiment = AugmentConfig(grow_from=0.5, grow_until=0.8)
    assert [round(experiment.growth(share), 9) for share in (0, 0.4, 0.8, 1)] == [0.5, 0.75, 1, 1]
