"""Work in order, by few threads, with no more drawn than is worked on."""

import time

import pytest
import torch

from boxwright.prediction.pipeline import in_order

CPU = torch.device("cpu")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_the_order_of_the_items(count, threads, four_threads):
    torch.set_num_threads(threads)

    def slow_if_even(item):
        time.sleep(0.002 * (item % 2 == 0))
        return item**2

    assert list(in_order(slow_if_even, iter(range(count)), CPU)) == [(n, n**2) for n in range(count)]
    assert torch.get_num_threads() == threads


def test_two_share_the_threads_and_one_has_them_all(four_threads):
    assert [found for _, found in in_order(lambda item: torch.get_num_threads(), range(5), CPU)] == [2] * 5
    assert [found for _, found in in_order(lambda item: torch.get_num_threads(), range(1), CPU)] == [4]
    # A device needs one that feeds it.
    gpu = torch.device("cuda")
    assert {found for _, found in in_order(lambda item: torch.get_num_threads(), range(5), gpu)} == {4}


def test_no_more_is_drawn_than_is_worked_on(four_threads):
    drawn = []

    def items():
        for n in range(20):
            drawn.append(n)
            yield n

    for item, _ in in_order(lambda item: item, items(), CPU):
        assert len(drawn) <= item + 3


def test_what_work_raises_is_raised_and_the_threads_are_given_back(four_threads):
    def fail(item):
        if item == 3:
            raise ValueError("tile 3")
        return item

    seen = []
    with pytest.raises(ValueError, match="tile 3"):
        seen.extend(item for item, _ in in_order(fail, range(100), CPU))
    assert torch.get_num_threads() == 4
