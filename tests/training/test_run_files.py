"""The names of a run's files."""

from __future__ import annotations

import pytest

from resnet_tools.training.run_files import NOT_WHOLE, files_of_moments, model_name, optim_state_name
from resnet_tools.training.saving import keep_best


@pytest.mark.parametrize("moment", ["1", "12", "3.40"])
def test_the_moment_of_a_file_is_found_in_its_name(moment, tmp_path):
    for name in (model_name(moment), optim_state_name(moment)):
        (tmp_path / name).touch()
    assert {found for found, _ in files_of_moments(tmp_path)} == {moment}


@pytest.mark.parametrize(
    ("there", "expected"),
    [(["model_2.pt", "model_best.pt"], "model_best.pt"), (["model_1.pt", "model_2.pt"], "model_2.pt"), ([], None)],
)
def test_the_best_net_is_in_the_folder_where_a_run_goes_on(there, expected, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in there:
        (folder / name).write_text(name)
    for target in (tmp_path, folder):
        keep_best(folder, target, 2)
        best = target / "model_best.pt"
        assert (best.read_text() if best.exists() else None) == expected


def test_what_a_killed_process_left_is_found_and_other_files_are_not(tmp_path):
    (tmp_path / ".model_3.partial.pt").touch()
    for other in ("model_best.pt", "latest.pt", "model_x.pt", "my_model_1.pt", "model_1.t7", ".model_best.partial.pt"):
        (tmp_path / other).touch()
    assert files_of_moments(tmp_path) == [(NOT_WHOLE, tmp_path / ".model_3.partial.pt")]
