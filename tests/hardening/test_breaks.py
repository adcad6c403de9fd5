"""Each fault of the list makes a test fail: the tests would notice it."""

from __future__ import annotations

import pytest

from tests.hardening.breaks import BREAKS, ROOT, failures


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.what)
def test_the_place_of_each_break_is_there(broken):
    assert (ROOT / "resnet_tools" / broken.file).read_text().count(broken.old) == 1


def test_the_readme_lists_all_breaks():
    text = (ROOT / "tests" / "hardening" / "README.md").read_text()
    assert [broken.what for broken in BREAKS if f"| {broken.what} |" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.what)
def test_each_break_is_noticed(broken):
    assert failures(broken)


@pytest.mark.slow
def test_the_same_tests_pass_where_nothing_is_broken():
    assert failures(None, sorted({broken.test for broken in BREAKS})) == []
