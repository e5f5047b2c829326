"""Many settings of one experiment, each a run; a sweep that was killed goes on."""

import pytest

import boxwright
from boxwright.config import dump_config, load_config
from boxwright.errors import ConfigError, NonFiniteError
from boxwright.training import sweep as sweeping
from boxwright.training.sweep import Setting, parse_setting, sweep
from tests.scenes import square_experiment


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "squares.yaml"
    path.write_text(dump_config(square_experiment(tmp_path, epochs=2, evaluate_every=1)))
    return path


def test_settings_are_lists_or_ranges():
    assert parse_setting("a.b=1,2.5,x") == Setting("a.b", (1, 2.5, "x"))
    assert parse_setting("a={name: cosine},null") == Setting("a", ({"name": "cosine"}, None))
    assert parse_setting("a=[1, 2],[3, 4]") == Setting("a", ([1, 2], [3, 4]))
    assert parse_setting("lr=1e-4..1e-2") == Setting("lr", low=1e-4, high=1e-2)
    assert parse_setting("n=2..8") == Setting("n", low=2, high=8, whole=True)
    for wrong in ("a", "a=", "a=2..1", "a=[1"):
        with pytest.raises(ConfigError, match="expected a"):
            parse_setting(wrong)


def test_a_grid_trains_every_combination_once(file, tmp_path):
    settings = ["train.optimizer.lr=1e-3,2e-3", "model.width=0.25,0.5"]
    rows = sweep(file, settings, runs=tmp_path / "runs")
    assert {(r["train.optimizer.lr"], r["model.width"]) for r in rows} == {
        (lr, width) for lr in ("1e-3", "2e-3") for width in ("0.25", "0.5")
    }
    assert [r["AP"] for r in rows] == sorted((r["AP"] for r in rows), reverse=True)
    folder = tmp_path / "runs" / "squares-sweep"
    for row in rows:
        config = load_config(folder / row["run"] / "config.yaml")
        assert config.train.optimizer.lr == float(row["train.optimizer.lr"])
        assert config.model.width == float(row["model.width"])
    assert {r.name for r in boxwright.runs(folder)} == {r["run"] for r in rows}
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("evaluation.json")}
    assert sweep(file, settings, runs=tmp_path / "runs") == rows
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("evaluation.json")} == before


def test_a_longer_list_takes_the_runs_that_are_there(file, tmp_path):
    first = sweep(file, ["train.seed=3,1"], runs=tmp_path / "runs")
    folder = tmp_path / "runs" / "squares-sweep"
    before = {p.parent.name: p.stat().st_mtime_ns for p in folder.rglob("evaluation.json")}
    rows = sweep(file, ["train.seed=1,2,3"], runs=tmp_path / "runs")
    assert sorted(r["train.seed"] for r in rows) == ["1", "2", "3"]
    after = {p.parent.name: p.stat().st_mtime_ns for p in folder.rglob("evaluation.json")}
    assert {name: after[name] for name in before} == before
    assert len(after) == 3
    assert {r["run"]: r["AP"] for r in rows}.items() >= {r["run"]: r["AP"] for r in first}.items()
    # A run of another experiment is no such run.
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 1"))
    with pytest.raises(ConfigError, match="give the sweep another --name"):
        sweep(file, ["train.seed=3,4"], runs=tmp_path / "runs")


def test_a_run_that_diverges_is_one_of_the_rows(file, tmp_path, monkeypatch):
    honest = sweeping.train

    def train(config, changes=None, *arguments, **options):
        if changes == ["train.seed=1"]:
            raise NonFiniteError("step 3: the loss is not finite")
        return honest(config, changes, *arguments, **options)

    monkeypatch.setattr(sweeping, "train", train)
    rows = sweep(file, ["train.seed=0,1,2"], runs=tmp_path / "runs")
    assert [r["state"] for r in rows] == ["done", "done", "diverged"]
    assert rows[-1]["train.seed"] == "1"


def test_a_killed_sweep_goes_on_with_the_run_that_it_was_at(file, tmp_path, monkeypatch):
    honest, calls = sweeping.train, []

    def train(*arguments, callbacks, **options):
        calls.append(options.get("resume", False))

        def look(trainer, numbers):
            callbacks["evaluation"](trainer, numbers)
            if len(calls) == 2 and numbers["epoch"] == 1:
                raise SystemExit  # as a kill: nothing is told to the journal

        return honest(*arguments, callbacks={"evaluation": look}, **options)

    monkeypatch.setattr(sweeping, "train", train)
    settings = ["train.seed=0,1,2"]
    with pytest.raises(SystemExit):
        sweep(file, settings, runs=tmp_path / "runs")
    rows = sweep(file, settings, runs=tmp_path / "runs")
    assert sorted(r["train.seed"] for r in rows) == ["0", "1", "2"]
    assert len({r["run"] for r in rows}) == 3
    # The first was done, the second is resumed, the third is new.
    assert sorted(calls) == [False, False, False, True]
    assert calls[:2] == [False, False]


def test_two_jobs_share_the_trials(file, tmp_path):
    rows = sweep(file, ["train.optimizer.lr=1e-4..1e-2"], "random", trials=4, jobs=2, runs=tmp_path / "runs")
    assert len(rows) == 4
    rates = [float(r["train.optimizer.lr"]) for r in rows]
    assert len(set(rates)) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_hopeless_trials_end_early(file, tmp_path, monkeypatch):
    values = iter([0.5, 0.6] * 5 + [0.1, 0.2])
    honest = sweeping.train

    def train(*arguments, callbacks, **options):
        def look(trainer, numbers):
            callbacks["evaluation"](trainer, numbers | {"AP": next(values)})

        return honest(*arguments, callbacks={"evaluation": look}, **options)

    monkeypatch.setattr(sweeping, "train", train)
    rows = sweep(file, ["train.seed=0..99"], "tpe", trials=6, prune=True, runs=tmp_path / "runs")
    assert [r["state"] for r in rows].count("stopped early") == 1
    assert rows[-1]["state"] == "stopped early"


def test_what_cannot_be_meant_is_told_before_anything_is_trained(file, tmp_path):
    for settings, options, message in (
        (["train.optimizer.lr=1e-3,-1"], {}, r"train.optimizer.lr.*-1"),
        (["train.optimiser.lr=1e-3"], {}, "train.optimiser"),
        (["train.seed=0..9"], {}, "a grid can't take all of a range"),
        (["train.seed=0,1"], {"trials": 3}, "a grid takes every combination"),
        (["train.seed=0,1"], {"sampler": "tpe"}, "how many trials"),
        (["train.seed=0,1"], {"sampler": "best"}, "expected one of grid, random, tpe"),
        ([], {}, "nothing varies"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweep(file, settings, runs=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()
