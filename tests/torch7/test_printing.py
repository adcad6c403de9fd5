"""The module tree as Torch7 prints it."""

from __future__ import annotations

import pytest

from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.printing import module_text
from resnet_tools.torch7.t7 import read_t7
from tests.support.golden import DATA, ModelCase, model_cases, other_model_cases


def printed(cases: list[ModelCase]) -> list[ModelCase]:
    return [case for case in cases if "print_net" in case.description]


@pytest.mark.parametrize(
    "case", printed(model_cases(DATA / "models") + other_model_cases()), ids=lambda case: case.name
)
def test_the_tree_is_printed_as_the_original_prints_it(case):
    assert module_text(module_tree(read_t7(case.path))) == case.description["print_net"].rstrip("\n")
