"""classify --sheet: all images on one picture or page, the most certain first, safe and bounded."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.compute.inference import Prediction
from resnet_tools.errors import DataError, ImageError
from resnet_tools.evaluation.classified_sheet import FORMATS, check_sheet, sheet_note, sheeted, write_sheet
from resnet_tools.text import percent
from tests.support.demo_images import PHOTOS

EVIL = "<script>alert(1)</script>&\"'\x1b[31m"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += [data.strip()] if data.strip() else []


def colour_image(path: Path, shade: int) -> str:
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(path)
    return str(path)


def test_the_page_of_the_command_shows_all_images_the_most_certain_first(tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"bad")
    page = tmp_path / "sheet.html"
    assert run(["classify", "demo", *PHOTOS, str(bad), "--sheet", str(page), "--csv"]) == 1
    assert "Contact sheet: " in capsys.readouterr().err
    shown = Page(page.read_text())
    assert shown.tags.count("figure") == len(PHOTOS)
    assert "10 images, the most certain first; 1 more image could not be read" in shown.words
    names = [word for word in shown.words if word.endswith(".png")]
    assert names[:3] == ["bag.png", "trouser.png", "t-shirt.png"]
    for source in shown.sources:
        assert source.startswith("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            assert max(picture.size) == 192


def test_names_are_escaped_and_a_page_needs_nothing_else(tmp_path):
    path = colour_image(tmp_path / "<img src=x onerror=alert(1)>.png", 200)
    write_sheet([Prediction(path, [0], [0.7])], [EVIL], tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    shown = Page(text)
    assert "script" not in shown.tags
    assert shown.tags.count("img") == 1
    assert "\x1b" not in text
    assert "\\x1b[31m" in "".join(shown.words)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_the_picture_is_sorted_by_probability(tmp_path):
    results = [
        Prediction(colour_image(tmp_path / f"{k}.png", shade), [0], [share])
        for k, (shade, share) in enumerate([(60, 0.4), (250, 0.9), (130, 0.6)])
    ]
    missing = str(tmp_path / "gone.png"), ImageError("gone")
    assert list(sheeted([*results, missing], ["red"], tmp_path / "sheet.png")) == [*results, missing]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    reds = [int(sheet[48 + 64, 12 + 64 + 140 * k, 0]) for k in range(3)]  # the middle of each picture
    assert reds == [250, 130, 60]


@pytest.mark.parametrize("ending", FORMATS)
def test_of_many_images_the_most_certain_are_shown(ending, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, ending, 5)
    path = colour_image(tmp_path / "a.png", 9)
    found = [Prediction(path, [k], [k / 10]) for k in range(8)]
    list(sheeted(found, [f"class {k}" for k in range(8)], tmp_path / f"sheet{ending}"))
    if ending == ".html":
        words = Page((tmp_path / "sheet.html").read_text()).words
        assert "The 5 most certain of 8 images; 3 others are left out" in words
        assert [word for word in words if word.startswith("class")] == [f"class {k}" for k in (7, 6, 5, 4, 3)]
    assert sheet_note(400, 1234, 2) == (
        "the 400 most certain of 1,234 images; 834 others are left out; 2 more images could not be read"
    )


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "nowhere/sheet.png", "folder.png"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(name, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError):
        check_sheet(tmp_path / name)
    assert run(["classify", "demo", PHOTOS[0], "--sheet", str(tmp_path / name)]) in (1, 2)
    assert capsys.readouterr().out == ""


def test_without_a_readable_image_there_is_no_sheet(tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert run(["classify", "demo", str(tmp_path / "bad.png"), "--sheet", str(tmp_path / "sheet.png")]) == 1
    assert "Contact sheet" not in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_an_image_that_is_read_is_not_overwritten(tmp_path, capsys):
    image = colour_image(tmp_path / "a.png", 9)
    assert run(["classify", "demo", image, "--sheet", image]) == 2
    assert "would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "< 0.1 %"), (0.0004, "< 0.1 %"), (0.873, "87.3 %"), (0.9996, "> 99.9 %"), (1.0, "100.0 %")],
)
def test_a_probability_is_never_rounded_to_certainty(probability, expected):
    assert percent(probability) == expected
