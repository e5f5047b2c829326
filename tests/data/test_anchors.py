"""Anchors: what they reach, against brute force; what is fitted, against random choices."""

import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import boxwright
from boxwright.data.anchors import (
    aspect_bound,
    centered_iou,
    certain_iou,
    fit_anchors,
    fitted_sizes,
    judge_anchors,
)
from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError, DataError
from tests.cli.test_cli import run


def around_origin(sizes: np.ndarray) -> torch.Tensor:
    half = torch.tensor(sizes) / 2
    return torch.cat([-half, half], dim=1)


def test_centered_iou_is_that_of_boxes_about_one_point():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 90, (40, 2)), rng.uniform(1, 90, (7, 2))
    assert np.allclose(centered_iou(a, b), box_iou(around_origin(a), around_origin(b)).numpy())


@pytest.mark.parametrize(("anchor", "step"), [((20.0, 30.0), 8), ((9.0, 9.0), 16), ((40.0, 10.0), 16)])
def test_certain_iou_is_the_worst_over_all_places_of_a_box(anchor, step):
    places = np.arange(-4, 5) * step
    grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
    anchors = torch.tensor(np.concatenate([grid - np.divide(anchor, 2), grid + np.divide(anchor, 2)], 1))
    for size in ((25.0, 25.0), (10.0, 50.0), (6.0, 6.0)):
        shift = np.linspace(0, step, 33)
        centers = np.stack(np.meshgrid(shift, shift), -1).reshape(-1, 2)
        boxes = torch.tensor(np.concatenate([centers - np.divide(size, 2), centers + np.divide(size, 2)], 1))
        worst = float(box_iou(boxes, anchors).max(dim=1).values.min())
        assert certain_iou(np.array([size]), np.array([anchor]), step)[0, 0] == pytest.approx(worst, abs=1e-9)


@pytest.mark.parametrize("n", [1.0, 2.0, 5.0, 12.0])
def test_a_square_anchor_reaches_the_closed_form_and_no_more(n):
    for x in (1.0, 1.7, 4.0):
        assert centered_iou(np.array([[1.0, n * x]]), np.array([[x, x]]))[0, 0] == pytest.approx(
            1 / (x + n - 1)
        )
    sides = np.linspace(0.2, 1.2 * n, 20_001)
    for ratio in (1.0, 0.5):
        anchors = np.stack([sides / ratio**0.5, sides * ratio**0.5], axis=1)
        reached = centered_iou(np.array([[1.0, n]]), anchors).max()
        assert aspect_bound(n, ratio) == pytest.approx(reached, rel=1e-6)
    assert aspect_bound(1 / n) == pytest.approx(aspect_bound(n))


def tables_of(sizes: np.ndarray, ignore: bool = False):
    """A box of each size, all in one image of 1000 x 500."""
    builder = TableBuilder("sizes")
    builder.category("thing")
    image = builder.image("a.png", None, 1000, 500)
    for n, (width, height) in enumerate(sizes.tolist()):
        builder.box(("row", n), image, 0, (0, 0, width, height), ignore=ignore)
    return builder.build()


def test_fitted_anchors_find_clusters_and_beat_random_choices():
    rng = np.random.default_rng(1)
    centers = np.array([[20.0, 40.0], [100.0, 90.0], [300.0, 60.0]])
    sizes = np.repeat(centers, 50, axis=0) * np.exp(rng.normal(0, 0.05, (150, 2)))
    tables = tables_of(sizes)
    fit = fit_anchors(tables, 3, (500, 500), 300)  # images are halved
    assert np.allclose(fit.anchors, centers[[0, 1, 2]] / 2, rtol=0.1)
    assert sorted(fit.counts.tolist()) == [50, 50, 50]
    spread = tables_of(np.exp(rng.normal(4, 0.5, (400, 2))))
    halved = fitted_sizes(spread, (500, 500))
    plain, evolved = (fit_anchors(spread, 6, (500, 500), n) for n in (0, 500))
    assert evolved.mean_iou >= plain.mean_iou
    chosen = [judge_anchors(halved, rng.choice(halved, 6, replace=False)).mean_iou for _ in range(500)]
    assert plain.mean_iou > np.mean(chosen)
    assert evolved.mean_iou > max(chosen)
    best = centered_iou(halved, evolved.anchors).max(axis=1)
    assert evolved.recall == pytest.approx((best >= 0.5).mean())
    assert evolved.certain_recall is not None
    assert 0 < evolved.certain_recall < evolved.recall
    assert judge_anchors(halved, halved[:4]).certain_recall is None


def test_long_boxes_bound_what_a_square_anchor_reaches():
    sizes = np.array([[10.0, 10.0]] * 90 + [[90.0, 10.0]] * 10)
    fit = judge_anchors(sizes, np.array([[10.0, 10.0]]))
    assert fit.long_ratio == pytest.approx(9)
    sides = np.linspace(1, 100, 5000)
    reached = centered_iou(np.array([[90.0, 10.0]]), np.stack([sides, sides], 1)).max()
    assert fit.square_iou == pytest.approx(reached, rel=1e-3)


def test_what_can_not_be_fitted_is_said():
    few = tables_of(np.array([[5.0, 5.0], [7.0, 5.0]]))
    with pytest.raises(DataError, match="2 different sizes of boxes, fewer than 9"):
        boxwright.fit_anchors(few)
    with pytest.raises(ConfigError, match="0 anchors"):
        boxwright.fit_anchors(few, 0)
    with pytest.raises(DataError, match="no box has an area"):
        boxwright.fit_anchors(tables_of(np.array([[5.0, 5.0]]), ignore=True), 1)


def test_anchors_from_the_command_line(tmp_path):
    rng = np.random.default_rng(2)
    boxwright.write(tables_of(np.exp(rng.normal(4, 0.5, (60, 2)))), tmp_path / "t.parquet")
    words = ["data", "anchors", tmp_path / "t.parquet", "--count", "6", "--generations", "20"]
    text = run(*words, "--json", tmp_path / "a.json").stdout
    assert "best possible recall" in text
    assert "wherever a box lies" in text
    assert len(json.loads((tmp_path / "a.json").read_text())["anchors"]) == 6
    for size in ("640", "0x480", "64.5x48", "-64x48"):
        assert "--image-size" in run(*words, "--image-size", size, check=2).stderr
