"""A report shows where a net fails: its tables agree with the images, its pictures with the tables."""

from __future__ import annotations

import csv
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from resnet_tools.checkpoints.checkpoint import DEMO_PATH
from resnet_tools.compute.inference import Loading
from resnet_tools.data.labels import imagenet_labels
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import IMAGENET
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.evaluation.report.contact_sheet import FONT_PX, PICTURE_PX, fitting
from resnet_tools.evaluation.report.files import report_folder, write_report
from resnet_tools.evaluation.report.summary import summary
from resnet_tools.evaluation.report.tables import (
    class_errors,
    confusion_matrix,
    frequent_confusions,
    mistakes,
    shown_classes,
)
from resnet_tools.history.plotting import drawable, font_file
from resnet_tools.nets.catalog import named_architecture

PHOTO = str(DEMO_PATH.parent / "images" / "bag.png")


def evaluation(
    rows: list[tuple[int, int, int, float]], class_names: list[str], paths: list[str] | None = None
) -> Evaluation:
    """rows: truth, how many classes are before it, prediction, probability; UNREAD for an image without the rest."""
    targets, ranks, predictions, probabilities = (list(column) for column in zip(*rows, strict=True))
    samples = Samples(paths or [f"{k}.png" for k in range(len(rows))], targets, class_names)
    errors = {k: f"{k}.png: broken" for k, rank in enumerate(ranks) if rank == UNREAD}
    losses = -np.log(np.maximum(probabilities, 1e-9))
    return Evaluation(samples, np.array(ranks), np.array(predictions), np.array(probabilities), losses, errors)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    classes = draw(st.integers(1, 8))
    rows = []
    for _ in range(draw(st.integers(1, 30))):
        truth, prediction = draw(st.integers(0, classes - 1)), draw(st.integers(0, classes - 1))
        rank = 0 if truth == prediction else draw(st.integers(1, classes - 1))
        read = draw(st.booleans())
        rows.append((truth, rank, prediction, draw(st.floats(0.01, 1))) if read else (truth, UNREAD, UNREAD, -1.0))
    return evaluation(rows, [f"name {k}" for k in range(classes)])


@given(evaluations())
def test_tables_are_what_counting_one_by_one_gives(found):
    names, targets = found.samples.class_names, found.samples.targets
    read = [k for k in range(len(targets)) if found.ranks[k] != UNREAD]
    matrix = confusion_matrix(found)
    assert matrix.sum() == len(read) == found.counts.images
    for k in read:
        matrix[targets[k], found.predictions[k]] -= 1
    assert not matrix.any()
    for number, row in enumerate(class_errors(found)):
        own = [k for k in read if targets[k] == number]
        assert (row.name, row.images) == (names[number], len(own))
        if own:
            assert row.top1_error == pytest.approx(100 * sum(found.ranks[k] >= 1 for k in own) / len(own))
            assert row.top5_error == pytest.approx(
                100 * sum(found.ranks[k] >= min(5, len(names)) for k in own) / len(own)
            )
        wrong = [names[found.predictions[k]] for k in own if found.ranks[k] >= 1]
        assert row.confused_images == max(map(wrong.count, wrong), default=0)
        assert not wrong or wrong.count(row.confused_with) == row.confused_images
    listed = mistakes(found)
    assert sorted(m.path for m in listed) == sorted(f"{k}.png" for k in read if found.ranks[k] >= 1)
    assert [m.probability for m in listed] == sorted((m.probability for m in listed), reverse=True)


@given(evaluations(), st.integers(2, 9))
def test_shown_classes_are_present_ones_with_the_most_frequent_confusion(found, most):
    matrix = confusion_matrix(found)
    present = set(np.flatnonzero(matrix.sum(0) + matrix.sum(1)))
    shown = shown_classes(matrix, most)
    assert len(shown) == len(set(shown)) <= most
    assert set(shown) <= present
    pairs = frequent_confusions(matrix)
    assert not pairs or set(pairs[0][:2]) <= set(shown)
    if len(present) <= most:
        assert set(shown) == present


def test_classes_that_are_taken_for_each_other_are_neighbours():
    matrix = np.diag([20] * 6)
    for a, b, images in ((0, 5, 9), (5, 0, 7), (1, 3, 8), (2, 4, 5)):
        matrix[a, b] = images
    order = shown_classes(matrix, 6)
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in ((0, 5), (1, 3), (2, 4)))


class Page(HTMLParser):
    """The text of a page, its images, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.sources = "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path, found: Evaluation, **conditions: object) -> tuple[dict[str, object], Page]:
    facts = summary(found, named_architecture("resnet-18"), Loading(IMAGENET), {"model": "net.t7", **conditions})
    with report_folder(folder):
        write_report(folder, found, facts)
    return facts, Page((folder / "index.html").read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_a_report_of_four_images(tmp_path):
    rows = [(0, 0, 0, 0.9), (0, 1, 1, 0.6), (1, 2, 2, 0.8), (2, UNREAD, UNREAD, -1.0)]
    facts, page = report(tmp_path / "a" / "b", evaluation(rows, ["cat", "dog", "hen"], [PHOTO] * 4))
    folder = tmp_path / "a" / "b"
    assert read_csv(folder / "per_class.csv") == [
        ["class", "images", "top1_error", "top5_error", "most_confused_with", "confused_images"],
        ["cat", "2", "50.0", "0.0", "dog", "1"],
        ["dog", "1", "100.0", "0.0", "hen", "1"],
        ["hen", "0", "", "", "", "0"],
    ]
    assert [row[1:] for row in read_csv(folder / "confusion.csv")[1:]] == [["1", "1", "0"], ["0", "0", "1"], ["0"] * 3]
    assert [row[1:] for row in read_csv(folder / "mistakes.csv")[1:]] == [["dog", "hen", "0.8"], ["cat", "dog", "0.6"]]
    assert json.loads((folder / "summary.json").read_text()) == facts
    assert facts["top1_error"] == pytest.approx(200 / 3)
    assert facts["unreadable"] == [{"path": PHOTO, "reason": "3.png: broken"}]
    assert "66.667 %" in page.text
    assert "1 images could not be read" in page.text
    with Image.open(folder / "mistakes.png") as sheet:
        assert sheet.size == (12 + 2 * 188, 12 + 254)  # two pictures beside each other
    with Image.open(folder / "confusion.png") as picture:
        assert min(picture.size) > 300


def test_the_page_needs_no_other_file_and_runs_nothing(tmp_path):
    names = ["<script>alert(1)</script>", 'a"b', "$x^2$", "_under", "\udcff", "日本"]
    rows = [(k, 1, (k + 1) % 6, 0.5) for k in range(6)]
    _, page = report(tmp_path, evaluation(rows, names), published={"top1_error": 1.0, "top5_error": 0.5})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<script>alert(1)</script>" in page.text
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?:|url\(|@import", text)
    assert {row[0] for row in read_csv(tmp_path / "per_class.csv")[1:]} == set(names)


def test_a_class_without_a_name_is_counted_where_others_are_taken_for_it(tmp_path):
    _, page = report(tmp_path, evaluation([(1, 1, 0, 0.5)] * 3, ["", "b"]))
    assert " (3)" in page.text


def test_class_names_that_cannot_be_laid_out_do_not_stop_the_pictures(tmp_path):
    names = ["\x01", "日本\r", "new\nline", " ", "\0", "\u202eright to left"]
    report(tmp_path, evaluation([(k, 1, (k + 1) % 6, 0.5) for k in range(6)], names))
    assert (tmp_path / "mistakes.png").stat().st_size > 1000


def test_names_do_nothing_to_a_spreadsheet_or_a_browser(tmp_path):
    names = ["=cmd()", "a\x1b[2J", "new\nline", "\ud800", "\udc9b", "\u202eright to left", "-x", "@z"]
    rows = [(k, 1, (k + 1) % 8, 0.5) for k in range(8)]
    _, page = report(tmp_path, evaluation(rows, names, [f"+{k}\r.png" for k in range(8)]))
    cells = ["'=cmd()", r"a\x1b[2J", r"new\nline", r"\ud800", r"\x9b", r"\u202eright to left", "'-x", "'@z"]
    assert [row[0] for row in read_csv(tmp_path / "per_class.csv")[1:]] == cells
    assert read_csv(tmp_path / "confusion.csv")[0][1:] == cells
    assert {row[1] for row in read_csv(tmp_path / "mistakes.csv")[1:]} == set(cells)
    assert read_csv(tmp_path / "mistakes.csv")[1][0] == r"'+0\r.png"
    assert not {"\x1b", "\u202e", "\ud800", "\x9b"} & set(page.text)
    assert r"a\x1b[2J" in page.text


def test_class_names_of_ten_thousand_characters_are_cut_in_pictures_without_delay(tmp_path):
    names = [f"{k}" + 10_000 * "long " for k in range(24)]
    begin = time.process_time()
    report(tmp_path, evaluation([(k, 1, (k + 1) % 24, 0.5) for k in range(24)], names, [PHOTO] * 24))
    assert time.process_time() - begin < 20  # it took minutes when a letter at a time was cut off
    assert read_csv(tmp_path / "per_class.csv")[1][0] == names[0]


@given(st.text(max_size=300), st.sampled_from(["", " 12.3 %"]))
def test_a_line_of_the_contact_sheet_holds_as_much_as_fits(text, end):
    font = ImageFont.truetype(font_file(), FONT_PX)
    text = drawable(text)
    line = fitting(text, end, font)
    if font.getlength(text + end) <= PICTURE_PX and len(text) <= 200:
        assert line == text + end
    else:
        kept = line.removesuffix(f"…{end}")
        assert font.getlength(line) <= PICTURE_PX
        assert text.startswith(kept)
        longer = text[: len(text[: len(kept) + 1].rstrip()) + 1] if text[len(kept) : len(kept) + 1].isspace() else ""
        assert longer or font.getlength(f"{text[: len(kept) + 1]}…{end}") > PICTURE_PX


def test_a_report_without_mistakes_has_no_contact_sheet_even_if_an_earlier_one_had(tmp_path):
    report(tmp_path, evaluation([(0, 1, 1, 0.5)], ["a", "b"]))
    assert (tmp_path / "mistakes.png").exists()
    _, page = report(tmp_path, evaluation([(0, 0, 0, 0.5)], ["a", "b"]))
    assert not (tmp_path / "mistakes.png").exists()
    assert "None: every image was classified correctly." in page.text
    assert "1 of the net's 2 classes have no images." in page.text


def test_of_a_thousand_classes_the_worst_are_drawn_and_all_are_listed(tmp_path):
    rows = [(k, int(k % 3 == 0), (k + k % 3 // -2) % 1000 if k % 3 else (k + 1) % 1000, 0.5) for k in range(1000)]
    _, page = report(tmp_path, evaluation(rows, list(imagenet_labels())))
    assert "The 50 classes in the most frequent confusions" in page.text
    assert "980 more" in page.text
    assert len(read_csv(tmp_path / "confusion.csv")) == 1001
    assert (tmp_path / "confusion.png").stat().st_size < 1_000_000


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="a folder for the report cannot be made there"),
        report_folder(tmp_path / "file"),
    ):
        pass
    found = evaluation([(0, 0, 0, 0.5)], ["a"])
    (tmp_path / "report" / "summary.json").mkdir(parents=True)
    with pytest.raises(DataError, match=r"summary.json.*the report cannot be written"):
        report(tmp_path / "report", found)


@pytest.mark.parametrize("earlier", [None, "kept.txt"])
def test_folders_for_a_report_that_is_not_written_are_removed_if_they_were_made_for_it(tmp_path, earlier):
    folder = tmp_path / "reports" / "new"
    if earlier is not None:
        folder.mkdir(parents=True)
        (folder / earlier).touch()
    with pytest.raises(DataError, match="no images"), report_folder(folder):
        raise DataError("no images")
    assert [path.name for path in tmp_path.rglob("*")] == ([] if earlier is None else ["reports", "new", earlier])


def test_without_matplotlib_it_says_what_to_install_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with (
        pytest.raises(ResnetToolsError, match=r"pip install 'resnet_tools\[plot\]'"),
        report_folder(tmp_path / "report"),
    ):
        pass
    assert not (tmp_path / "report").exists()
