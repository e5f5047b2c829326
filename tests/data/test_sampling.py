"""Virtual epochs: every image is seen before any is seen twice, on any number of processes, across stops."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxwright
from boxwright.config import check_config
from boxwright.config.data import SourceConfig
from boxwright.data import formats
from boxwright.data.confident import with_thresholds
from boxwright.data.sampling import Draws, EpochSampler, draws_of
from boxwright.data.sources import load_parts
from boxwright.data.tables import concat
from boxwright.errors import ConfigError, DataError
from boxwright.training.loop import Trainer
from boxwright.training.run import make_trainer
from boxwright.training.train import Loaded, load_data
from tests.scenes import square_experiment, square_tables

SIZES = (3, 17, 8, 1, 40, 5, 11)


def source(**draws) -> SourceConfig:
    return SourceConfig(root="x", **draws)


def seen_once_before_twice(seen: list[int], starts: np.ndarray) -> None:
    """Of each source no image has been seen two times more than another, after any number of draws."""
    for start, end in pairwise(starts):
        counts = Counter(range(start, end))  # one each, so that those never seen count
        for image in seen:
            if start <= image < end:
                counts[image] += 1
                assert max(counts.values()) - min(counts.values()) <= 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.1, 3)), min_size=1, max_size=7),
    st.integers(1, 100) | st.none(),
    st.integers(0, 1000),
)
def test_of_each_source_all_are_seen_before_any_is_seen_twice(sources, epoch_images, seed):
    sizes = [size for size, _ in sources]
    factors = [source(repeat=factor) for _, factor in sources]
    if not sum(sizes):
        return
    try:
        draws = draws_of(sizes, factors, epoch_images, 1)
    except ConfigError:
        return
    seen = np.concatenate([draws.epoch(number, seed) for number in range(6)]).tolist()
    starts = np.cumsum([0, *sizes])
    if len(sizes) == 1:
        seen_once_before_twice(seen, starts)
    # Sources are mixed within an epoch: at its end each has been drawn evenly.
    counts = np.bincount(seen, minlength=starts[-1])
    for (start, end), rate in zip(pairwise(starts), draws.rates):
        if end > start:
            assert np.ptp(counts[start:end]) <= 1
            assert abs(counts[start:end].sum() - 6 * rate) < 2


def test_three_processes_with_seven_sources_go_on_where_they_were_stopped():
    draws = draws_of(SIZES, [source(repeat=2.0), *[source()] * 5, source(samples=4)], 30, 3 * 2)
    assert draws.total == 30
    every = []
    for epoch in range(12):
        held = []
        for rank in range(3):
            sampler = EpochSampler(draws, 5, rank=rank, world=3)
            sampler.set_epoch(epoch)
            whole = [image for _, image in sampler]
            assert len(whole) == 10
            # Stopped after two batches of two, another process goes on.
            other = EpochSampler(draws, 5, rank=rank, world=3)
            other.set_epoch(epoch, start=4)
            assert whole[:4] + [image for _, image in other] == whole
            held.append(whole)
        mixed = [image for step in zip(*held) for image in step]
        assert sorted(mixed) == sorted(draws.epoch(epoch, 5).tolist())
        every += mixed
    counts = np.bincount(every, minlength=sum(SIZES))
    starts = np.cumsum([0, *SIZES])
    assert all(np.ptp(counts[a:b]) <= 1 for a, b in pairwise(starts))
    assert counts.min() >= 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(-2, 2), min_size=6, max_size=60),
    st.integers(1, 3),
    st.floats(0.5, 2),
    st.integers(0, 1000),
)
def test_steps_are_of_one_group_as_far_as_groups_go_round(groups, world, repeat, seed):
    together, number = 2 * world, np.array(groups)
    args = ([len(groups)], [source(repeat=repeat)], None, together)
    try:
        plain, alike = draws_of(*args), draws_of(*args, groups=number)
    except ConfigError:
        return
    mixed = []
    for epoch in range(3):
        shares = []
        for rank in range(world):
            sampler = EpochSampler(alike, seed, rank=rank, world=world)
            sampler.set_epoch(epoch)
            shares.append([image for _, image in sampler])
        held = np.stack(shares, axis=1)[: alike.total // together * 2].reshape(-1, together)
        assert sorted(alike.epoch(epoch, seed)) == sorted(plain.epoch(epoch, seed))
        mixed.append(sum(len(set(number[step])) > 1 for step in held))
    # Steps lie side by side by group: one for each border between two groups may hold both.
    assert max(mixed) < len(set(groups))


def test_alike_is_refused_where_all_images_are(tmp_path):
    content = square_experiment(tmp_path).model_dump(mode="json")
    content["data"]["sampling"]["alike"] = "source"
    with pytest.raises(ConfigError, match="alike: source, and there is one"):
        check_config(content, "test")
    content["data"]["sampling"]["alike"] = "shape"
    content["augment"]["crop"] = [64, 64]
    with pytest.raises(ConfigError, match="spares no padding where augment"):
        check_config(content, "test")


def test_alike_images_spare_padding(tmp_path):
    tables = square_tables(tmp_path / "images", images=24)
    shapes = [(64, 32), (32, 64)]
    for n, path in enumerate(tables.images["path"]):
        Image.open(path).crop((0, 0, *shapes[n % 2])).save(path)
    sides = {name: [shapes[n % 2][axis] for n in range(24)] for axis, name in enumerate(("width", "height"))}
    tables = replace(
        tables,
        images=tables.images.with_columns(**{k: pl.Series(v, dtype=pl.Int32) for k, v in sides.items()}),
    )
    experiment = square_experiment(tmp_path / "run")
    (tmp_path / "run/checkpoints").mkdir(parents=True, exist_ok=True)
    areas = {}
    for alike in (None, "shape"):
        sampling = experiment.data.sampling.model_copy(update={"alike": alike})
        data = experiment.data.model_copy(update={"sampling": sampling})
        config = experiment.model_copy(update={"data": data})
        trainer = make_trainer(config, Loaded(tables, tables, (24,)), tmp_path / "run", False)
        steps = [batch for n in range(4) for step in trainer.steps_of(n) for batch in step]
        areas[alike] = sum(batch.images[0, 0].numel() for batch in steps) / len(steps)
    assert areas["shape"] == 64 * 32
    assert areas[None] > 1.3 * 64 * 32


def test_what_an_epoch_draws():
    plain = draws_of([10, 5], [source(), source()], None, 4)
    assert plain == Draws((10, 5), (10, 5), 15, together=4)
    assert not plain.virtual
    assert sorted(plain.epoch(3, 0)) == list(range(15))
    assert draws_of([10, 5], [source(repeat=0.5), source(samples=11)], None, 1).rates == (5, 11)
    assert draws_of([100, 300], [source(), source()], 40, 8).rates == (10, 30)
    assert draws_of([100, 300], [source(repeat=3.0), source()], 43, 8).rates == (20, 20)
    assert draws_of([0, 30], [source(samples=5), source()], 10, 1).rates == (0, 10)
    with pytest.raises(ConfigError, match="an epoch of 6 images is less than a step of 8"):
        draws_of([100], [source()], 6, 8)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.floats(1, 7), max_size=12), min_size=1, max_size=4),
    st.integers(1, 60) | st.none(),
    st.integers(0, 1000),
)
def test_each_image_is_drawn_as_often_as_it_should_be(groups, epoch_images, seed):
    sizes, often = [len(group) for group in groups], np.array([f for group in groups for f in group])
    if not len(often):
        return
    draws = draws_of(sizes, [source() for _ in sizes], epoch_images, 1, often)
    epochs = [draws.epoch(number, seed) for number in range(9)]
    assert {len(epoch) for epoch in epochs} == {draws.total}
    seen = np.concatenate(epochs)
    for start, end in pairwise(np.cumsum([0, *sizes])):
        own = seen[(seen >= start) & (seen < end)]
        passes = len(own) / max(often[start:end].sum(), 1)
        counts = np.bincount(own - start, minlength=end - start)
        # Within a pass that isn't done, and by the rounding of all images of the source.
        slack = 2 + (end - start) / max(often[start:end].sum(), 1)
        assert (np.abs(counts - often[start:end] * passes) <= slack * often[start:end]).all()


def experiment(folder, images: int = 10, **train):
    """The squares in two sources."""
    content = square_experiment(folder, epochs=5, evaluate_every=5, **train).model_dump(mode="json")
    sources = []
    for n, count in enumerate((images, 3)):
        tables = square_tables(folder / f"images{n}", images=count, seed=n + 1)
        boxwright.write(tables, folder / f"{n}.parquet")
        sources.append({"root": str(folder / f"{n}.parquet")})
    content["data"]["train"] = sources
    return content


def test_a_curriculum_begins_with_easy_images_and_then_draws_as_ever():
    hardness = np.random.default_rng(0).random(60)
    draws = draws_of([40, 20], [source(), source()], None, 1, None, hardness)
    plain = draws_of([40, 20], [source(), source()], None, 1)
    assert not draws.virtual
    shares = []
    for number in range(12):
        epoch = draws.epoch(number, 3, ramp=10)
        assert len(epoch) == 60
        assert np.array_equal(epoch, draws.epoch(number, 3, ramp=10))
        if number >= 10:
            assert np.array_equal(epoch, plain.epoch(number, 3))
            continue
        for start, end in ((0, 40), (40, 60)):
            own, counts = np.unique(epoch[(epoch >= start) & (epoch < end)], return_counts=True)
            assert counts.sum() == end - start
            assert counts.max() - counts.min() <= 1
            # The easiest of its source, and no other.
            assert set(own) == set(start + np.argsort(hardness[start:end])[: len(own)])
            shares.append(len(own) / (end - start))
    assert shares[:2] == [0.2, 0.2]
    assert shares[::2] == sorted(shares[::2])
    assert 0.9 < shares[-2] < 1


def test_a_stopped_run_of_virtual_epochs_sees_what_a_whole_one_sees(tmp_path, monkeypatch):
    content = experiment(tmp_path, epoch_images=6)
    content["data"]["train"][1]["repeat"] = 2.0
    config = check_config(content, "test")
    seen = steps_seen(config, tmp_path, monkeypatch)
    counts = np.bincount(seen, minlength=13)
    assert counts.sum() == 30
    # Of ten and twice three six are drawn an epoch: of each source evenly.
    assert np.ptp(counts[:10]) <= 1
    assert np.ptp(counts[10:]) <= 1
    assert counts[10:].sum() > counts[:10].sum() / 2


def test_a_stopped_run_from_easy_to_hard_sees_what_a_whole_one_sees(tmp_path, monkeypatch):
    content = experiment(tmp_path, images=12)
    del content["data"]["train"][1]
    table = boxwright.read(content["data"]["train"][0]["root"])
    # In the first four images all is found, in the others nothing.
    boxes = table.boxes.filter(pl.col("image_id") < 4).with_columns(score=pl.lit(0.9))
    boxwright.write(replace(table, boxes=boxes), tmp_path / "found.parquet")
    content["data"]["sampling"] = {"hard": str(tmp_path / "found.parquet"), "gain": 3.0, "curriculum": 0.4}
    seen = steps_seen(check_config(content, "test"), tmp_path, monkeypatch)
    hard = sorted(set(table.boxes["image_id"]) - {0, 1, 2, 3})
    each = 12 + 3 * len(hard)
    each -= each % 2
    assert len(seen) == 5 * each
    # A curriculum of two epochs: a fifth of twelve at first, from the third on all of them.
    assert set(seen[:each]) <= {0, 1, 2, 3}
    counts = np.bincount(seen[2 * each :], minlength=12)
    assert counts[hard].mean() == pytest.approx(4 * counts[:4].mean(), rel=0.2)


def steps_seen(config, folder, monkeypatch) -> list[int]:
    """The images of a run's steps, which are those of a run that was stopped on its way."""
    seen: dict[str, list[int]] = {}
    honest = Trainer.step

    def look(self, batches):
        seen.setdefault(self.folder.name, []).extend(i for b in batches for i in b.indices.tolist())
        if self.folder.name == "stopped" and len(seen["stopped"]) == 8:
            self.stop.requested = True
        return honest(self, batches)

    monkeypatch.setattr(Trainer, "step", look)
    boxwright.train(config, name="whole", runs=folder / "runs")
    with pytest.raises(KeyboardInterrupt):
        boxwright.train(config, name="stopped", runs=folder / "runs")
    boxwright.train(config, name="stopped", runs=folder / "runs", resume=True)
    assert seen["stopped"] == seen["whole"]
    return seen["whole"]


def test_what_is_taken_is_told(tmp_path, capsys):
    content = experiment(tmp_path, epoch_images=6)
    boxwright.train(check_config(content, "test"), name="run", runs=tmp_path / "runs")
    told = " ".join(capsys.readouterr().err.split())
    assert "5 epochs, batches of 2, about 3 steps an epoch" in told
    assert "all 13 6.0 0.46" in told


def test_a_share_to_judge_by_stays_when_a_source_is_added(tmp_path):
    content = experiment(tmp_path, images=40)
    content["data"] |= {"val": 0.3}
    config = check_config(content, "test")
    learnt, judged = load_parts(config.data)
    assert sum(len(t.images) for t in [*learnt, judged]) == 43
    first = check_config(content | {"data": content["data"] | {"train": content["data"]["train"][0]}}, "test")
    (alone,), own = load_parts(first.data)
    names = set(own.images["file_name"])
    assert 4 <= len(names) <= 20
    assert not names & set(alone.images["file_name"])
    assert names <= set(judged.images["file_name"])
    assert set(alone.images["file_name"]) == set(learnt[0].images["file_name"])
    content["data"] |= {"val": 1e-9}
    with pytest.raises(DataError, match="leaves none to judge by"):
        load_parts(check_config(content, "test").data)


def test_all_of_val_is_judged(tmp_path):
    content = experiment(tmp_path)
    content["data"]["val"] |= {"samples": 3}
    with pytest.raises(ConfigError, match="all of val is judged"):
        check_config(content, "test")
    content["data"] |= {"val": 0.2, "train": {"root": "x", "repeat": 0.5, "samples": 3}}
    with pytest.raises(ConfigError, match="expected one of both"):
        check_config(content, "test")


def test_sources_speak_of_the_same_classes(tmp_path):
    content = experiment(tmp_path)
    source = content["data"]["train"][0]
    source["class_map"] = {"dark": "square", "bright": "square"}
    (first, second), _ = load_parts(check_config(content, "test").data)
    assert first.categories["name"].to_list() == ["square"]
    assert set(first.boxes["category_id"]) == {0}
    assert len(first.boxes) == 20
    assert concat([first, second]).categories["name"].to_list() == ["square", "bright", "dark"]
    source["class_map"] = {"drak": "square"}
    with pytest.raises(ConfigError, match=r"class_map of .*0.parquet: no class 'drak'. Did you mean 'dark'"):
        load_parts(check_config(content, "test").data)


@pytest.mark.parametrize("root", ["images0", "0.parquet"])
def test_a_source_of_background_needs_no_labels(tmp_path, root):
    content = experiment(tmp_path)
    content["data"]["train"] = [
        content["data"]["train"][1],
        {"root": str(tmp_path / root), "role": "background"},
    ]
    config = check_config(content, "test")
    (labelled, background), _ = load_parts(config.data)
    assert len(background.images) == 10
    assert not len(background.boxes)
    both = load_data(config)
    assert both.sizes == [3, 10]
    assert len(both.train.boxes) == len(labelled.boxes)
    assert both.train.categories["name"].to_list() == ["bright", "dark"]
    run = boxwright.train(config, name="run", runs=tmp_path / "runs")
    assert run.evaluation.coco["AP"] >= 0
    content["data"]["train"][1]["class_map"] = {"dark": "square"}
    with pytest.raises(ConfigError, match="is background: class_map and tightness are for boxes"):
        check_config(content, "test")


def pseudo_source(folder: Path, scores: list[float]) -> dict:
    """What a detector has found, as a source: a bright and a dark square an image."""
    tables = square_tables(folder / "found", len(scores) // 2, seed=7)
    found = tables.with_boxes(tables.boxes.with_columns(score=pl.Series(scores, dtype=pl.Float64)))
    categories = with_thresholds(found.categories, {"bright": 0.5, "dark": 0.8})
    formats.write(replace(found, categories=categories), folder / "found.parquet")
    return {"root": str(folder / "found.parquet"), "role": "pseudo"}


def test_pseudo_boxes_are_objects_doubtful_or_left_out(tmp_path):
    content = experiment(tmp_path)
    source = pseudo_source(tmp_path, [0.6, 0.6, 0.4, 0.9, 0.05, 0.02])
    content["data"]["train"].append(source)

    def read(**options: object) -> list[tuple[float, bool]]:
        content["data"]["train"][-1] = source | options
        boxes = load_parts(check_config(content, "test").data)[0][-1].boxes
        return list(zip(boxes["score"].to_list(), boxes["ignore"].to_list(), strict=True))

    assert read() == [(0.6, False), (0.6, True), (0.4, True), (0.9, False)]
    assert read(scores=0.5, doubt=0.5) == [(0.6, False), (0.6, False), (0.9, False)]
    assert read(scores={"dark": 0.95}, doubt=0.5) == [(0.6, False), (0.6, True), (0.9, True)]
    with pytest.raises(ConfigError, match=r"no class 'drak'. Did you mean 'dark'"):
        read(scores={"drak": 0.5})
    with pytest.raises(DataError, match=r"6 of 6 boxes have no score"):
        read(root=content["data"]["train"][1]["root"])
    with pytest.raises(ConfigError, match="scores are for role: pseudo"):
        read(role="labels", scores=0.5)
    content["data"]["val"] = source
    with pytest.raises(ConfigError, match="a detector is judged by truth"):
        read()


def test_a_source_of_less_weight_teaches_less(tmp_path, monkeypatch):
    content = experiment(tmp_path)
    content["data"]["train"].append(pseudo_source(tmp_path, [0.9] * 6) | {"weight": 0.25})
    weights, images, honest = [], [], Trainer.step

    def step(self, batches):
        images.extend(batch.indices for batch in batches)
        return honest(self, batches)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr("boxwright.training.learner.weigh", lambda outputs, own: weights.append(own))
    config = check_config(content, "test")
    boxwright.train(config, name="run", runs=tmp_path / "runs")
    sizes = load_data(config).sizes
    # The last source's images have a quarter, and no others.
    late = torch.cat(images) >= sum(sizes[:-1])
    assert late.any()
    assert torch.equal(torch.cat(weights), torch.where(late, 0.25, 1.0))
