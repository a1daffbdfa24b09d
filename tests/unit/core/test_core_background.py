import threading

import pytest

from agetf_pipeline.core.background import map_ahead


def test_results_come_in_order_and_from_another_thread():
    threads = set()

    def square(number: int) -> int:
        threads.add(threading.get_ident())
        return number**2

    assert list(map_ahead(square, range(20))) == [n**2 for n in range(20)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_only_a_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ahead(lambda number: number, items(), num_ahead=3)
    assert next(results) == 0
    assert len(taken) == 4
    results.close()
    assert len(taken) == 4


def test_an_exception_comes_where_the_result_would_have():
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = map_ahead(fail_at_two, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_several_threads_take_items_and_the_order_stays():
    meeting = threading.Barrier(3, timeout=20)

    def meet(number: int) -> int:
        if number < 3:
            meeting.wait()  # three at a time, or this breaks
        return number

    results = map_ahead(meet, range(10), num_ahead=3, num_threads=3)
    assert list(results) == list(range(10))
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 1 // number, range(4), num_threads=2))
