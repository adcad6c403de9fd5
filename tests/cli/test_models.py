"""`resnet models`: what was published, and every name that can be built."""

from __future__ import annotations

import json

from resnet_tools import build_resnet
from resnet_tools.__main__ import run
from resnet_tools.nets.catalog import PUBLISHED, architecture_names


def test_the_table_has_the_published_errors(capsys):
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].startswith("| resnet-50.t7 | published-resnet-50 | 25,5")
    assert "| 24.01 / 7.02 | 22.24 / 6.08 | batch norm after the addition" in lines[4]
    assert "20.10 / 4.80 with a crop of 320 x 320" in lines[7]
    assert lines[4].endswith("| https://d2j0dndfm35trm.cloudfront.net/resnet-50.t7 |")
    assert lines[lines.index("Architectures:") + 1 :] == architecture_names()


def test_json_holds_the_same_and_every_name_builds(capsys):
    assert run(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architectures"] == architecture_names()
    assert [row["file"] for row in found["published"]] == [published.file for published in PUBLISHED]
    row = found["published"][0]
    assert row["address"] == "https://d2j0dndfm35trm.cloudfront.net/resnet-18.t7"
    net = build_resnet(row["architecture"])
    assert row["parameters"] == sum(parameter.numel() for parameter in net.parameters())
    assert found["published_at"].startswith("https://github.com/facebook/fb.resnet.torch")
