"""Batches on a thread each: order, look-ahead, batches that need the machine for themselves."""

import threading
from collections.abc import Iterator

import pytest
import torch

from agetf_pipeline.core.side_by_side import side_by_side

pytestmark = pytest.mark.usefixtures("two_threads")

CPU = torch.device("cpu")


def test_batches_are_read_only_a_little_ahead():
    read = []

    def batches() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    with side_by_side(CPU) as workers:
        results = workers.map(lambda number: number + 1, batches())
        assert [next(results) for _ in range(10)] == list(range(1, 11))
        assert len(read) <= 20
        results.close()
    assert torch.get_num_threads() == 2


def test_nothing_runs_beside_a_batch_that_is_to_be_alone():
    running, seen, lock = [], {}, threading.Lock()

    def work(number: int) -> int:
        with lock:
            running.append(number)
            seen[number] = (list(running), torch.get_num_threads())
        if number < 2:
            meeting.wait()  # these two do run side by side
        with lock:
            running.remove(number)
        return number

    meeting = threading.Barrier(2, timeout=20)
    with side_by_side(CPU) as workers:
        found = list(workers.map(work, range(8), lambda number: number in (3, 4)))
    assert found == list(range(8))
    assert seen[3] == ([3], 2)
    assert seen[4] == ([4], 2)
    assert seen[5][1] == 1


def test_a_map_of_a_map_uses_the_same_threads():
    with side_by_side(CPU) as workers:
        inner = workers.map(lambda number: (number, threading.get_ident()), range(20))
        outer = workers.map(lambda pair: (pair[0], {pair[1], threading.get_ident()}), inner)
        found = list(outer)
    assert [number for number, _ in found] == list(range(20))
    assert len(set().union(*(names for _, names in found)) - {threading.get_ident()}) <= 2


def test_an_error_is_raised_in_its_place_and_ends_the_rest():
    with side_by_side(CPU) as workers:
        results = workers.map(lambda number: 1 // (3 - number), range(1000))
        assert [next(results) for _ in range(3)] == [0, 0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)
    assert torch.get_num_threads() == 2
