"""Work in processes of its own: results in order, errors raised, one thread each."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from agetf_pipeline.core import parallel
from agetf_pipeline.core.parallel import run_in_processes


def _square(number: int) -> tuple[int, str, int]:
    return number**2, os.environ["OMP_NUM_THREADS"], os.getpid()


def _fail(number: int) -> int:
    raise ValueError(f"no {number}")


def test_results_keep_the_order_of_the_calls():
    results = run_in_processes(_square, [(3,), (1,), (2,)])
    assert [result[0] for result in results] == [9, 1, 4]
    assert {result[1] for result in results} == {"1"}
    assert os.getpid() not in {result[2] for result in results}


def test_an_error_of_a_call_is_raised():
    with pytest.raises(ValueError, match="no 4"):
        run_in_processes(_fail, [(4,)])


def test_no_call_is_no_work():
    assert run_in_processes(_square, []) == []


class _Interrupted(BaseException):
    pass


def _take_long(marker: Path) -> None:
    try:
        marker.with_suffix(".begun").touch()
        time.sleep(600)
    finally:
        marker.with_suffix(".tidied").touch()


def test_an_interrupt_ends_the_processes_and_lets_them_tidy_up(tmp_path, monkeypatch):
    marker = tmp_path / "a"

    def wait(futures, timeout):
        while not marker.with_suffix(".begun").exists():
            time.sleep(0.01)
        raise _Interrupted

    monkeypatch.setattr(parallel, "wait", wait)
    before = multiprocessing.active_children()
    with pytest.raises(_Interrupted):
        run_in_processes(_take_long, [(marker,), (marker,), (marker,)])
    assert marker.with_suffix(".tidied").exists()
    # Asked of the kernel: two threads of the pool wait for a process, and the list of children may
    # still name one for a moment that the other has seen off.
    assert not [
        child.pid
        for child in multiprocessing.active_children()
        if child not in before and Path(f"/proc/{child.pid}").exists()
    ]
