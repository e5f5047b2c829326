"""Batches of several sizes: each step has one of its own, and the truth has moved with the pixels."""

from boxwright.config.experiment import AugmentConfig
from boxwright.models.compact import Compact
from boxwright.training.train import train
from tests.scenes import square_experiment


def test_each_step_has_a_size_of_its_own(tmp_path, monkeypatch):
    seen, honest = [], Compact.forward

    def look(self, images, targets=None):
        if targets is not None:
            assert (targets.boxes[targets.mask].amax() <= max(images.shape[-2:])).item()
            seen.append(tuple(images.shape[-2:]))
        return honest(self, images, targets)

    monkeypatch.setattr(Compact, "forward", look)
    experiment = square_experiment(tmp_path, epochs=4, evaluate_every=4)
    for name, low, high in (("several", 0.5, 2.0), ("again", 0.5, 2.0), ("one", 1.0, 1.0)):
        augment = AugmentConfig(batch_scale=(low, high))
        train(experiment.model_copy(update={"augment": augment}), name=name, runs=tmp_path / "runs")
    several, again, one = seen[:16], seen[16:32], seen[32:]
    assert several == again
    assert {side for size in several for side in size} <= {32, 64, 96, 128}
    assert len(set(several)) > 2
    assert set(one) == {(64, 64)}
