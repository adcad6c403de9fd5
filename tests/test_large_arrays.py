"""in_one_block, for_each_in_two_threads: where arrays lie, and what happens to items and errors."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.large_arrays import for_each_in_two_threads, in_one_block

SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=4).map(tuple), max_size=6)


@settings(deadline=None)
@given(SHAPES, st.sampled_from(["float16", "float32", "float64"]))
def test_arrays_are_aligned_and_do_not_overlap(shapes, dtype):
    arrays = in_one_block(shapes, dtype)
    for number, array in enumerate(arrays):
        array[...] = number
    for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.size == 0 or array.ctypes.data % 64 == 0
        assert (array == number).all()


@settings(deadline=None)  # a thread is started each time
@given(st.lists(st.integers()))
def test_each_item_comes_once(items):
    found = []
    for_each_in_two_threads(found.append, items)
    assert sorted(found) == sorted(items)


def test_two_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    for_each_in_two_threads(lambda _: both.wait(), range(2))


def test_an_error_in_either_thread_is_raised_and_ends_the_work():
    main, done = threading.get_ident(), []

    def fail_where(fails_in_main, item):
        done.append(item)
        both.wait()  # for each thread to have an item
        if (threading.get_ident() == main) == fails_in_main:
            raise OSError("no more")

    both = threading.Barrier(2, timeout=30)
    for fails_in_main in (True, False):
        with pytest.raises(OSError, match="no more"):
            for_each_in_two_threads(partial(fail_where, fails_in_main), range(2))
    assert sorted(done) == [0, 0, 1, 1]


def test_after_an_error_the_items_that_are_left_are_left_out():
    done = []

    def fail(item):
        done.append(item)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        for_each_in_two_threads(fail, range(1000))
    assert len(done) <= 2


def test_without_a_second_thread_the_first_does_it_all(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found = []
    for_each_in_two_threads(found.append, range(5))
    assert found == [0, 1, 2, 3, 4]
