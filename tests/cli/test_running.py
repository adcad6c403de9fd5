"""What long work shows on stderr."""

from __future__ import annotations

import io
import os
import signal
import warnings
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.__main__ import run
from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.running import _speed, plain_number, progress_bar
from tests.support.demo_images import PHOTOS


def test_speed_is_that_of_this_run_and_not_of_what_was_found_done():
    assert _speed([(10.0, 900)], 1000) == ""
    assert _speed([(10.0, 900), (14.0, 910)], 1000) == "2.5 images/s, 0:00:36 left"  # 90 images at 10 / 4 a second
    assert _speed([(10.0, 900), (10.0, 910)], 1000) == ""
    assert _speed([(0.0, 0), (10.0, 1)], 2) == "0.1 images/s, 0:00:10 left"
    assert _speed([(0.0, 0), (1.0, 12)], 10) == "12 images/s, 0:00:00 left"  # never less than none


def test_rates_are_plain_numbers():
    assert _speed([(0.0, 0), (0.01, 123)], 200) == "12300 images/s, 0:00:00 left"
    assert [plain_number(n) for n in (1234, 999.6, 12.34, 1.0, 0.1, 0.000123456)] == [
        "1234", "1000", "12.3", "1", "0.1", "0.000123"
    ]  # fmt: skip


@given(st.floats(1e-9, 1e12))
def test_a_plain_number_has_three_digits_that_count(value):
    text = plain_number(value)
    assert set(text) <= set("0123456789.")
    assert float(text) == pytest.approx(value, rel=5.1e-3)


def test_a_bar_begins_at_none_of_its_images_and_says_nothing_else(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    with progress_bar(277, "extract", quiet=False) as progress:
        assert "0/277" in screen.getvalue()
        progress(277, [])
    assert "277/277" in screen.getvalue()
    assert "None" not in screen.getvalue()


@pytest.mark.parametrize("quiet", [True, False])
def test_unreadable_images_are_named_and_counted_also_without_a_bar(capsys, quiet):
    with progress_bar(5, "extract", quiet=quiet) as progress:
        progress(3, ["a.png: bad"])
        progress(2, [])
    errors = capsys.readouterr().err
    assert "Error: a.png: bad\n" in errors
    assert "1 of 5 images could not be read.\n" in errors


def test_images_that_gave_no_numbers_are_not_called_unreadable(capsys):
    with progress_bar(23, "extract", quiet=True, not_finite="gives NaN") as progress:
        progress(20, ["a.png: bad", "b.png: the net gives NaN"])
        progress(3, ["c.png: the net gives NaN"])
    errors = capsys.readouterr().err
    assert "1 of 23 images could not be read.\n" in errors
    assert "2 of 23 images gave NaN or infinite features.\n" in errors


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_stopped_classify_leaves_no_part_of_its_output(sent, code, tmp_path, monkeypatch, capsys):
    def stopped(*arguments):
        yield next(iter(predictions(*arguments)))
        signal.raise_signal(sent)

    module = import_module("resnet_tools.cli.classify")
    predictions = module._predictions
    monkeypatch.setattr(module, "_predictions", stopped)
    assert run(["classify", "demo", *map(str, PHOTOS), "--output", str(tmp_path / "labels.csv")]) == code
    assert capsys.readouterr().err.startswith("Stopped.")
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_lines_without_those_that_libraries_have_for_programmers(capsys):
    with warnings_as_lines():
        warnings.warn("2 of 10 classes are not there", stacklevel=1)
        warnings.warn("'parseString' deprecated - use 'parse_string'", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: 2 of 10 classes are not there\n"
