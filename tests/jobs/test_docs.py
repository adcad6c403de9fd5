"""What `help()` shows of every public name: it stands alone, and its example runs as it stands."""

from __future__ import annotations

import doctest
import inspect
import shutil

import pytest

import resnet_tools
from tests.support.readme import ROOT

RESULTS = {"ActivationMaps", "EvaluationResult", "ExtractedFeatures", "ImageLabels", "Neighbour", "Predictions"}
RESULTS |= {"Projection", "Similar", "TrainedRun", "Checkpoint", "Target"}  # made by a function that has an example


@pytest.fixture
def folder_of_a_reader(tmp_path, monkeypatch):
    """Where the examples run: with the package, and two digits of each class to train on and two to validate on."""
    for name in ("resnet_tools", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for split in ("train", "val"):
        for label in sorted((ROOT / "resnet_tools/assets/digits" / split).iterdir()):
            target = tmp_path / "digits" / split / label.name
            target.mkdir(parents=True)
            for image in sorted(label.iterdir())[:2]:
                shutil.copy(image, target)
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:run. the net of this run")
@pytest.mark.parametrize("name", sorted(set(resnet_tools.__all__) - RESULTS))
def test_the_example_in_the_help_runs(name, folder_of_a_reader):
    found = getattr(resnet_tools, name)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(found), {}, name, None, None)
    assert example.examples, f"help({name}) has no example"
    outcome = doctest.DocTestRunner().run(example)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", sorted(resnet_tools.__all__))
def test_the_help_stands_alone(name):
    found = getattr(resnet_tools, name)
    text = inspect.getdoc(found)
    assert text
    assert "above" not in text.splitlines()[0]
    if inspect.isfunction(found):
        assert "Raises" in text


def test_every_public_name_is_there_and_listed():
    assert set(resnet_tools.__all__) <= set(dir(resnet_tools))
