"""The names of a run's files."""

from __future__ import annotations

import pytest

from resnet_tools.training.run_files import NOT_WHOLE, files_of_moments, model_name, optim_state_name


@pytest.mark.parametrize("moment", ["1", "12", "3.40"])
def test_the_moment_of_a_file_is_found_in_its_name(moment, tmp_path):
    for name in (model_name(moment), optim_state_name(moment)):
        (tmp_path / name).touch()
    assert {found for found, _ in files_of_moments(tmp_path)} == {moment}


def test_what_a_killed_process_left_is_found_and_other_files_are_not(tmp_path):
    (tmp_path / ".model_3.partial.pt").touch()
    for other in ("model_best.pt", "latest.pt", "model_x.pt", "my_model_1.pt", "model_1.t7", ".model_best.partial.pt"):
        (tmp_path / other).touch()
    assert files_of_moments(tmp_path) == [(NOT_WHOLE, tmp_path / ".model_3.partial.pt")]
