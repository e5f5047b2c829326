"""Batches across requests: full ones at once, small ones after a while, none lost."""

import threading
import time

import pytest

from boxwright.serving.batching import Batcher
from boxwright.serving.limits import BusyError


def test_what_comes_together_is_worked_on_together():
    sizes = []

    def work(items):
        sizes.append(len(items))
        return [item * 2 for item in items]

    batcher = Batcher(work, most=4, wait=0.2, queue=100)
    futures = [batcher.submit(n) for n in range(10)]
    assert [f.result(5) for f in futures] == [2 * n for n in range(10)]
    batcher.close()
    assert sum(sizes) == 10
    assert max(sizes) == 4
    assert len(sizes) <= 5


def test_several_work_side_by_side_and_all_end():
    both, prepared = threading.Barrier(2), []

    def work(items):
        both.wait(5)  # broken unless another batch is worked on meanwhile
        return items

    batcher = Batcher(work, 1, 0.0, 10, workers=2, prepare=lambda: prepared.append(1))
    assert [f.result(10) for f in [batcher.submit(n) for n in range(4)]] == [0, 1, 2, 3]
    batcher.close()
    assert not batcher.alive
    assert len(prepared) == 2


def test_one_alone_waits_no_longer_than_told():
    batcher = Batcher(lambda items: items, most=8, wait=0.02, queue=8)
    start = time.perf_counter()
    assert batcher.submit("one").result(5) == "one"
    assert time.perf_counter() - start < 1.0
    batcher.close()


def test_too_many_are_refused_and_an_error_reaches_everyone_of_its_batch():
    go, worked = threading.Event(), []

    def work(items):
        worked.extend(items)
        go.wait(5)
        if "bad" in items:
            raise ValueError("bad")
        return items

    batcher = Batcher(work, most=1, wait=0.0, queue=2)
    first = batcher.submit("first")
    while batcher.waiting:
        time.sleep(0.001)
    second, bad = batcher.submit("second"), batcher.submit("bad")
    with pytest.raises(BusyError):
        batcher.submit("fourth")
    assert second.cancel()
    go.set()
    assert first.result(5) == "first"
    with pytest.raises(ValueError, match="bad"):
        bad.result(5)
    assert batcher.submit("fifth").result(5) == "fifth"
    batcher.close()
    assert worked == ["first", "bad", "fifth"]  # who gave up cost nothing
