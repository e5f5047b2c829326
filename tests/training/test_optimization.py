"""Learning rates and averages against numbers worked out by hand."""

import math
from dataclasses import replace

import polars as pl
import pytest
import torch
from torch import nn

import boxwright
from boxwright.config import dump_config
from boxwright.config.training import OptimizerConfig, ScheduleConfig
from boxwright.errors import ConfigError
from boxwright.models.checkpoint import load_detector
from boxwright.training.loop import Trainer
from boxwright.training.optimization import make_average, make_optimizer, make_schedule, own_average
from tests.scenes import square_experiment

FLAT = {"AP": 0.2, "AP50": 0.3, "AP75": 0.1}


def _rates(config: ScheduleConfig, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(optimizer, config, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_rises_over_the_warm_up_and_falls_to_its_final_share():
    rates = _rates(ScheduleConfig(name="cosine", warmup_steps=10, final=0.1), 110)
    assert rates[0] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx(0.5, abs=0.01)
    assert rates[10] == pytest.approx(1.0)
    for step in (30, 60, 109):
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 100)) / 2
        assert rates[step] == pytest.approx(expected, abs=1e-6)


def test_a_short_run_warms_up_for_a_fifth_of_it_at_most():
    rates = _rates(ScheduleConfig(name="constant", warmup_steps=100), 50)
    assert rates[9] < 1.0
    assert rates[10:] == pytest.approx([1.0] * 40)


def test_multistep_falls_at_shares_of_the_run():
    rates = _rates(ScheduleConfig(name="multistep", warmup_steps=5, milestones=[0.5, 0.9], gamma=0.1), 100)
    assert rates[49] == pytest.approx(1.0)
    assert rates[51] == pytest.approx(0.1)
    assert rates[91] == pytest.approx(0.01)


def test_one_cycle_rises_and_falls():
    rates = _rates(ScheduleConfig(name="one_cycle"), 100)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


@pytest.mark.parametrize(
    ("config", "oracle"),
    [
        (
            ScheduleConfig(name="restarts", cycles=4, final=0.1, warmup_steps=0),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 25, eta_min=0.1),
        ),
        (
            ScheduleConfig(name="polynomial", power=2.0, final=0.0, warmup_steps=0),
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 100, 2.0),
        ),
        (
            ScheduleConfig(name="cyclic", cycles=2, final=0.1, warmup_steps=0),
            # Torch's starts at the lower end: half a cycle later.
            lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.1, 1.0, 25, cycle_momentum=False, last_epoch=-1),
        ),
    ],
)
def test_schedules_are_torchs(config, oracle):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = oracle(optimizer)
    late = 25 if config.name == "cyclic" else 0
    expected = []
    for _ in range(100 + late):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert _rates(config, 100) == pytest.approx(expected[late:], abs=1e-6)


def test_every_schedule_starts_with_a_warm_up_and_never_leaves_its_range():
    for name in ("cosine", "restarts", "polynomial", "cyclic"):
        rates = _rates(ScheduleConfig(name=name, warmup_steps=10, final=0.05), 100)
        assert rates[0] < 0.01, name
        assert rates[10] == pytest.approx(1.0), name
        assert min(rates[10:]) >= 0.05 - 1e-9, name
        assert max(rates) <= 1 + 1e-9, name


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    groups = make_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    assert [p.ndim for p in groups[0]["params"]] == [4]
    assert [p.ndim for p in groups[1]["params"]] == [1, 1, 1]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]


def test_the_average_follows_the_weights_and_their_statistics():
    model = nn.BatchNorm1d(1)
    average = make_average(model, decay=0.5)
    expected = None
    for n in range(1, 30):
        nn.init.constant_(model.weight, float(n))
        model.running_mean.fill_(float(-n))
        average.update_parameters(model)
        # The first update copies; later ones have seen n - 1 before.
        decay = min(0.5, (1 + n - 1) / (10 + n - 1))
        expected = float(n) if expected is None else decay * expected + (1 - decay) * n
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.module.running_mean.item() == pytest.approx(-expected, rel=1e-5)


def test_a_plan_is_what_a_run_does(tmp_path, monkeypatch):
    config = square_experiment(tmp_path, epochs=4, batch_size=3, accumulate=2, evaluate_every=4)
    file = tmp_path / "squares.yaml"
    file.write_text(dump_config(config))
    plan = boxwright.schedule(file, ["train.schedule.name=cyclic"])
    rates = []
    honest = Trainer.step

    def look(self, batches):
        rates.append(self.learner.rate)
        return honest(self, batches)

    monkeypatch.setattr(Trainer, "step", look)
    boxwright.train(file, ["train.schedule.name=cyclic"], runs=tmp_path / "runs")
    assert plan.rates.tolist() == pytest.approx(rates)
    rows = plan.rows()
    assert rows[0]["step"] == 0
    assert rows[-1]["step"] == len(rates) - 1
    plan.write(tmp_path / "rate.html", "Rate")
    assert (
        "cyclic, adamw from 0.002: 4 epochs of 8 images, 6 a step, 4 steps."
        in (tmp_path / "rate.html").read_text()
    )
    two = boxwright.schedule(file, processes=2)
    assert (two.together, two.steps_per_epoch) == (12, 1)


def test_a_rate_is_for_a_number_of_images_a_step(tmp_path, monkeypatch, capsys):
    config = square_experiment(tmp_path, epochs=1, batch_size=2, accumulate=2)
    file = tmp_path / "squares.yaml"
    file.write_text(dump_config(config))
    scaled = ["train.optimizer.lr=0.003", "train.optimizer.lr_batch=6", "train.schedule.warmup_steps=0"]
    assert boxwright.schedule(file, scaled).rates[0] == pytest.approx(0.002)
    assert boxwright.schedule(file, scaled, processes=2).rates[0] == pytest.approx(0.004)
    rates, honest = [], Trainer.step

    def look(self, batches):
        rates.append(self.learner.rate)
        return honest(self, batches)

    monkeypatch.setattr(Trainer, "step", look)
    boxwright.train(file, scaled, runs=tmp_path / "runs")
    assert rates[0] == pytest.approx(0.002)
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "batches of 2, 2 of them a step, about 2 steps an epoch, adamw from 0.002 (0.003 for 6 images)"
        in told
    )


def test_a_rate_falls_when_evaluations_get_no_better():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    config = ScheduleConfig(name="plateau", warmup_steps=4, gamma=0.5, patience=2, final=0.2)
    schedule = make_schedule(optimizer, config, 100)
    rates = []

    def steps(count: int) -> None:
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()

    steps(6)
    assert rates[0] < 1e-3
    assert rates[4:] == pytest.approx([0.1, 0.1])
    assert rates[:5] == sorted(set(rates[:5]))
    # Two without a better one halve it, as often as the floor lets; a better one begins to count anew.
    for ap, rate in ((0.3, 0.1), (0.2, 0.1), (0.4, 0.1), (0.4, 0.1), (0.3, 0.05), (0.1, 0.05), (0.1, 0.025)):
        schedule.report(ap)
        steps(1)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate), ap
    kept = schedule.state_dict()
    for _ in range(6):
        schedule.report(0.0)
    steps(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)
    again = make_schedule(optimizer, config, 100)
    again.load_state_dict(kept)
    again.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


def test_a_run_on_a_plateau_learns_slower(tmp_path, monkeypatch):
    honest = Trainer.judge
    monkeypatch.setattr(
        Trainer, "judge", lambda self, model, views: replace(honest(self, model, views), coco=FLAT)
    )
    schedule = {"name": "plateau", "warmup_steps": 0, "patience": 1}
    config = square_experiment(tmp_path, epochs=4, evaluate_every=1, log_every=1, schedule=schedule)
    boxwright.train(config, name="run", runs=tmp_path / "runs")
    metrics = pl.read_parquet(tmp_path / "runs" / "run" / "metrics.parquet")
    rates = (
        metrics.drop_nulls("learning_rate")
        .group_by("epoch", maintain_order=True)
        .agg(pl.col("learning_rate").last())
    )
    first = rates["learning_rate"][0]
    assert (rates["learning_rate"] / first).to_list() == pytest.approx([1, 1, 0.1, 0.01], rel=1e-3)


def test_a_run_that_gets_no_better_ends(tmp_path, monkeypatch):
    aps = iter([0.2, 0.3, 0.25, 0.1, 0.4])
    honest, seen = Trainer.judge, []

    def judge(self, model, views):
        evaluation = honest(self, model, views)
        return replace(evaluation, coco=evaluation.coco | {"AP": next(aps)})

    monkeypatch.setattr(Trainer, "judge", judge)
    config = square_experiment(tmp_path, epochs=9, evaluate_every=1, patience=2)
    look = {"evaluation": lambda trainer, numbers: seen.append((numbers["epoch"], numbers["AP"]))}
    boxwright.train(config, name="run", runs=tmp_path / "runs", callbacks=look)
    assert seen == [(1, 0.2), (2, 0.3), (3, 0.25), (4, 0.1)]


def test_runs_of_one_process_have_their_own_precisions(tmp_path):
    weights = {}
    for precision in ("fp32", "bf16"):
        config = square_experiment(tmp_path, epochs=1, precision=precision)
        run = boxwright.train(config, name=precision, runs=tmp_path / "runs")
        weights[precision] = load_detector(run.folder / "checkpoints" / "last.safetensors").model.state_dict()
    differ = [
        name for name, tensor in weights["fp32"].items() if not torch.equal(tensor, weights["bf16"][name])
    ]
    assert any(name.endswith("weight") for name in differ)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights["bf16"].values())


@pytest.mark.parametrize("power", [0, 3])
def test_schedule_free_weights_are_those_of_the_paper(power):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    start = model.weight.detach().double().clone()
    config = OptimizerConfig(name="schedule_free", lr=0.05, weight_decay=0.0, power=power)
    optimizer = make_optimizer(model, config)
    inputs, wanted = torch.randn(40, 3), torch.tensor([[1.0, -2.0, 0.5]])
    # Defazio et al., algorithm 1, in doubles and without any trick.
    z, x, second, beta1, beta2 = start.clone(), start.clone(), torch.zeros_like(start), 0.9, 0.999
    for n in range(1, 61):
        y = (1 - beta1) * z + beta1 * x
        assert torch.allclose(model.weight.double(), y, atol=1e-4)
        gradient = 2 * ((y - wanted) @ inputs.double().T) @ inputs.double() / 40
        second = beta2 * second + (1 - beta2) * gradient**2
        z = z - 0.05 * gradient / ((second / (1 - beta2**n)).sqrt() + 1e-8)
        x = x + (z - x) * n**power / sum(k**power for k in range(1, n + 1))
        optimizer.zero_grad()
        (((model(inputs) - inputs @ wanted.T) ** 2).mean()).backward()
        optimizer.step()
    before = model.weight.detach().clone()
    judged = own_average(model, optimizer)
    assert torch.allclose(judged.weight.double(), x, atol=1e-4)
    assert not torch.allclose(judged.weight, model.weight, atol=1e-3)
    assert torch.equal(model.weight, before)


def test_a_schedule_free_run_keeps_the_mean_and_goes_on(tmp_path, monkeypatch):
    free = {"optimizer": {"name": "schedule_free", "lr": 2e-3}, "schedule": {"name": "constant"}, "ema": None}
    config = square_experiment(tmp_path, **free)
    boxwright.train(config, name="whole", runs=tmp_path / "runs")
    checkpoints = tmp_path / "runs" / "whole" / "checkpoints"
    kept = load_detector(checkpoints / "last.safetensors").model.state_dict()
    trained = torch.load(checkpoints / "state.pt", weights_only=True)["model"]
    assert any(not torch.equal(kept[name], trained[name]) for name in kept)
    honest = Trainer.step

    def stop(self, batches):
        self.stop.requested = self.progress.step == 5
        return honest(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            boxwright.train(config, name="stopped", runs=tmp_path / "runs")
    boxwright.train(config, name="stopped", runs=tmp_path / "runs", resume=True)
    again = tmp_path / "runs" / "stopped" / "checkpoints" / "last.safetensors"
    assert all(torch.equal(t, kept[name]) for name, t in load_detector(again).model.state_dict().items())
    with pytest.raises(ConfigError, match="found cosine and an average"):
        square_experiment(tmp_path, optimizer={"name": "schedule_free"})
