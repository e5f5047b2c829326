"""Batches that are made while one is trained on."""

import threading
import time

import pytest
from torch.utils.data import DataLoader, Dataset

import boxwright
from boxwright.data.dataset import DetectionDataset
from boxwright.errors import DataError
from boxwright.training.display import TrainingDisplay
from boxwright.training.machine import ahead
from tests.scenes import square_experiment

PATIENCE = 30.0  # seconds


class Numbers(Dataset):
    """0, 1, 2 …, each of which tells when it is made."""

    def __init__(self, broken: int | None = None):
        self.made = [threading.Event() for _ in range(6)]
        self.broken = broken

    def __len__(self):
        return len(self.made)

    def __getitem__(self, index):
        self.made[index].set()
        if index == self.broken:
            raise DataError("broken")
        return index


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("ThreadPoolExecutor")]


def test_the_next_batch_is_made_before_it_is_asked_for():
    numbers = Numbers()
    batches = ahead(DataLoader(numbers, 1), 4)
    assert next(batches).item() == 0
    assert numbers.made[1].wait(PATIENCE)
    assert not numbers.made[2].is_set()  # one is ahead, not the whole epoch
    assert [batch.item() for batch in batches] == [1, 2, 3]
    assert not numbers.made[4].is_set()


def test_an_error_comes_with_its_own_batch():
    batches = ahead(DataLoader(Numbers(broken=1), 1), 4)
    assert next(batches).item() == 0
    with pytest.raises(DataError, match="broken"):
        next(batches)


def test_batches_that_nobody_wants_any_more_end_their_thread():
    batches = ahead(DataLoader(Numbers(), 1), 4)
    assert next(batches).item() == 0


def test_workers_make_them_in_their_own_way():
    assert [batch.item() for batch in ahead(DataLoader(Numbers(), 1, num_workers=1), 4)] == [0, 1, 2, 3]


def test_a_run_tells_how_long_it_waits_for_slow_data(tmp_path, monkeypatch):
    make = DetectionDataset.__getitem__

    def make_slowly(dataset, key):
        time.sleep(0.3)
        return make(dataset, key)

    monkeypatch.setattr(DetectionDataset, "__getitem__", make_slowly)
    told = []
    config = square_experiment(tmp_path, epochs=2, log_every=1)
    callbacks = {"log": lambda trainer, numbers: told.append(numbers)}
    folder = boxwright.train(config, runs=tmp_path, callbacks=callbacks).folder
    assert 0.5 < told[-1]["waiting"] < 1
    page = (folder / "report" / "index.html").read_text()
    assert f"waiting for batches for {100 * told[-1]['waiting']:.0f} % of it" in page


def test_the_display_tells_of_waiting_where_it_is_much():
    display = TrainingDisplay(10, 0, 5, shown=False)
    display.show(1.0, 0.1, 50, 0.35)
    assert display.numbers == "loss 1.000  waits 35%  50 img/s"
    display.show(1.0, 0.1, 50, 0.05)
    assert display.numbers == "loss 1.000  lr 1.0e-01  50 img/s"
