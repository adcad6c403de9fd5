"""`resnet classify --explain`: the labels stay what they are, and the folder shows where each comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from resnet_tools.__main__ import run
from tests.support.demo_images import PHOTOS


def test_the_labels_are_those_without_pictures_and_each_image_has_one(tmp_path: Path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(PHOTOS[0], tmp_path / "bag.png")
    images = [str(tmp_path / "bag.png"), str(tmp_path / "broken.png"), str(PHOTOS[1])]
    assert run(["classify", "demo", *images, "--top-k", "2", "--json"]) == 1
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert run(["classify", "demo", *images, "--top-k", "2", "--json", "--explain", str(tmp_path / "why")]) == 1
    done = capsys.readouterr()
    shown = [json.loads(line) for line in done.out.splitlines()]
    assert len(shown) == len(plain) == 2
    for found, expected in zip(shown, plain, strict=True):
        assert found.keys() == expected.keys()
        assert [row["label"] for row in found["classes"]] == [row["label"] for row in expected["classes"]]
    assert f"Pictures of where the labels come from: {tmp_path}/why/index.html\n" in done.err
    page = (tmp_path / "why" / "index.html").read_text()
    pictures = sorted((tmp_path / "why").glob("*.png"))
    assert len(pictures) == 2
    for path in pictures:
        assert f'src="{path.name}"' in page
        with Image.open(path) as picture:
            assert picture.width > 3 * 224  # the image and its two best labels beside each other


def test_ten_crops_have_no_single_picture(tmp_path: Path, capsys):
    assert run(["classify", "demo", str(PHOTOS[0]), "--ten-crop", "--explain", str(tmp_path / "why")]) == 2
    assert "--explain shows the center crop; leave out --ten-crop" in capsys.readouterr().err
    assert not (tmp_path / "why").exists()
