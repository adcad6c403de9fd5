"""What long work shows on stderr."""

from __future__ import annotations

import pytest

from resnet_tools.cli.shared.running import _speed, progress_bar


def test_speed_is_that_of_this_run_and_not_of_what_was_found_done():
    assert _speed([(10.0, 900)], 1000) == ""
    assert _speed([(10.0, 900), (14.0, 910)], 1000) == "2.5 images/s, 0:00:36 left"  # 90 images at 10 / 4 a second
    assert _speed([(10.0, 900), (10.0, 910)], 1000) == ""
    assert _speed([(0.0, 0), (10.0, 1)], 2) == "0.1 images/s, 0:00:10 left"
    assert _speed([(0.0, 0), (1.0, 12)], 10) == "12 images/s, 0:00:00 left"  # never less than none


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
