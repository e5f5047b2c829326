"""Padded detections beside those of `select_detections`, for every detector."""

from dataclasses import replace

import pytest
import torch

from boxwright.models.detections import Scored, Selection, select_detections
from boxwright.models.detector import full_precision
from boxwright.models.padded import select_padded, stay
from tests.models.test_detectors import CONFIGS, make

CHANGES = [
    {},
    {"iou_threshold": 0.1},
    {"iou_threshold": 1.0},
    {"max_detections": 5},
    {"score_threshold": 0.6},
    {"score_threshold": 1.0},
    {"candidates": 30},
    {"per_level": True, "candidates": 20},
]


def dense(images=3, places=120, classes=3, oriented=False, seed=0):
    make_random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=make_random)  # noqa: E731
    center, side = draw(images, places, 2) * 60, 5 + draw(images, places, 2) * 25
    if oriented:
        boxes = torch.cat([center, side, (draw(images, places, 1) - 0.5) * 6], dim=2)
    else:
        boxes = torch.cat([center - side / 2, center + side / 2], dim=2)
    return boxes, draw(images, places, classes) ** 2


def same(padded, lists, atol=1e-4):
    for n, wanted in enumerate(lists):
        count = len(wanted.scores)
        assert (padded.scores[n, count:] == 0).all()
        assert torch.allclose(padded.scores[n, :count], wanted.scores)
        assert torch.equal(padded.labels[n, :count], wanted.labels)
        torch.testing.assert_close(padded.boxes[n, :count], wanted.boxes, atol=atol, rtol=1e-4)
        if wanted.landmarks is not None:
            torch.testing.assert_close(padded.landmarks[n, :count], wanted.landmarks, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("vote", [False, True])
@pytest.mark.parametrize("changes", CHANGES)
def test_the_same_detections(oriented, vote, changes):
    boxes, scores = dense(oriented=oriented)
    selection = replace(Selection(0.05, 0.4, 300, 1000, vote=vote), **changes)
    scored = Scored(boxes, scores, torch.tensor([80, 30, 10]))
    same(select_padded(scored, selection), select_detections(scored, selection))


@pytest.mark.parametrize("seed", range(5))
def test_long_chains_are_followed_to_their_end(seed):
    # Each box lies on the next: every second one stays, however long the chain is.
    x = torch.arange(60.0) * 4
    boxes = torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1)[None]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed)) if seed else torch.arange(60)
    scores = (1 - order / 100)[None, :, None]
    scored, selection = Scored(boxes, scores), Selection(0.0, 0.3)
    same(select_padded(scored, selection), select_detections(scored, selection))


def test_stay_is_greedy():
    random = torch.Generator().manual_seed(0)
    pairs = torch.rand(4, 40, 40, generator=random) < 0.2
    pairs = pairs | pairs.transpose(1, 2)
    found = stay(pairs)
    for n in range(4):
        kept = []
        for row in range(40):
            if not any(pairs[n, row, other] for other in kept):
                kept.append(row)
        assert found[n].nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_every_detector_gives_the_same(name):
    model = make(name).eval()
    images = torch.randint(0, 255, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).float()
    sizes = torch.tensor([[96.0, 64.0], [70.0, 50.0]])
    outputs = full_precision(model(images))
    selection = replace(model.selection, score_threshold=0.0, candidates=60, max_detections=20)
    scored = model.scored(outputs, sizes)
    # Random weights score many places alike, and of equals any may come first.
    noise = torch.rand(scored.scores.shape, generator=torch.Generator().manual_seed(2))
    scored = replace(scored, scores=scored.scores * (1 - noise / 4))
    same(select_padded(scored, selection), select_detections(scored, selection), atol=2e-3)
