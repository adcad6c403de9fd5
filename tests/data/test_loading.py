"""Loading ahead keeps the order and the bound, whatever the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.data.loading import load_ahead
from resnet_tools.errors import ImageError


def load(path: str) -> str:
    if path.endswith("3"):
        raise ImageError(f"{path}: bad")
    return path.upper()


@given(count=st.integers(0, 40), workers=st.integers(0, 5), ahead=st.integers(1, 20))
def test_items_come_in_the_order_of_the_paths_with_errors_in_their_place(count, workers, ahead):
    paths = [f"p{number}" for number in range(count)]
    found = list(load_ahead(paths, load, workers=workers, ahead=ahead))
    assert [path for path, _ in found] == paths
    for path, item in found:
        assert str(item) == (f"{path}: bad" if path.endswith("3") else path.upper())
        assert isinstance(item, ImageError) == path.endswith("3")


@pytest.mark.parametrize(("workers", "ahead"), [(0, 16), (1, 16), (2, 16), (3, 8), (16, 16), (50, 4), (2, 1)])
def test_no_more_is_loaded_than_may_wait(workers, ahead):
    lock, loaded = threading.Lock(), 0

    def counted(path: str) -> str:
        nonlocal loaded
        with lock:
            loaded += 1
        return path

    items = load_ahead([str(number) for number in range(200)], counted, workers=workers, ahead=ahead)
    for taken, _ in enumerate(items, 1):
        assert loaded - taken <= 1.5 * ahead


def test_all_threads_load_at_once_even_if_there_are_few_files():
    meeting = threading.Barrier(4, timeout=20)  # breaks, and fails the test, unless four threads come

    def meet(path: str) -> str:
        meeting.wait()
        return path

    assert len(list(load_ahead(["a", "b", "c", "d"], meet, workers=4, ahead=64))) == 4


def test_another_error_than_an_image_error_is_raised():
    def fail(path: str) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(load_ahead(["a", "b", "c"], fail, workers=2, ahead=4))


def test_the_main_thread_keeps_its_number_of_threads():
    """In a process that has not computed yet: loading threads, which take one thread each, must not decide for it."""
    code = "import torch; from resnet_tools.data.loading import load_ahead; "
    code += "list(load_ahead(range(9), str, workers=2, ahead=4)); print(torch.get_num_threads())"
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
