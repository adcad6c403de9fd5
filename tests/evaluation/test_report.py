"""A report shows where a net fails: its tables agree with the images, its pictures with the tables."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.compute.inference import Loading
from resnet_tools.data.labels import imagenet_labels
from resnet_tools.data.samples import Samples
from resnet_tools.data.thumbnails import fitting
from resnet_tools.data.transforms import IMAGENET
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.evaluation.report import files
from resnet_tools.evaluation.report.contact_sheet import FONT_PX, PICTURE_PX, contact_sheet
from resnet_tools.evaluation.report.files import begin_report, report_folder, write_report
from resnet_tools.evaluation.report.summary import summary
from resnet_tools.evaluation.report.tables import (
    Mistake,
    class_errors,
    confusion_matrix,
    frequent_confusions,
    macro_means,
    mistakes,
    shown_classes,
    weighted_means,
)
from resnet_tools.history.plotting import drawable, font_file
from resnet_tools.nets.catalog import named_architecture

SCORES = ("accuracy", "precision", "recall", "f1")
PHOTO = str(DEMO_PATH.parent / "images" / "bag.png")


def evaluation(
    rows: list[tuple[int, int, int, float]], class_names: list[str], paths: list[str] | None = None
) -> Evaluation:
    """rows: truth, how many classes are before it, prediction, probability; UNREAD for an image without the rest."""
    targets, ranks, predictions, probabilities = (list(column) for column in zip(*rows, strict=True))
    samples = Samples(paths or [f"{k}.png" for k in range(len(rows))], targets, class_names)
    errors = {k: f"{k}.png: broken" for k, rank in enumerate(ranks) if rank == UNREAD}
    losses = -np.log(np.maximum(probabilities, 1e-9))
    best, best_probabilities = np.array(predictions)[:, None], np.array(probabilities)[:, None]
    return Evaluation(samples, np.array(ranks), best, best_probabilities, losses, errors)


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


@given(evaluations())
def test_scores_are_what_their_definitions_give(found):
    targets = found.samples.targets
    read = [k for k in range(len(targets)) if found.ranks[k] != UNREAD]
    per_class = class_errors(found)
    for number, row in enumerate(per_class):
        truth = {k for k in read if targets[k] == number}
        predicted = {k for k in read if found.predictions[k] == number}
        hits = len(truth & predicted)
        precision = hits / len(predicted) if predicted else 0.0
        recall = hits / len(truth) if truth else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        for value, expected, defined in (
            (row.recall, recall, truth),
            (row.accuracy, recall, truth),
            (row.precision, precision, truth or predicted),
            (row.f1, f1, truth or predicted),
        ):
            assert value == (pytest.approx(100 * expected) if defined else None)
    if read:
        known = [row for row in per_class if row.images]
        macro, weighted = macro_means(per_class), weighted_means(per_class)
        assert (macro.classes, macro.images) == (weighted.classes, weighted.images) == (len(known), len(read))
        for name in SCORES:
            values = [getattr(row, name) for row in known]
            assert getattr(macro, name) == pytest.approx(sum(values) / len(values))
            total = sum(value * row.images for value, row in zip(values, known, strict=True))
            assert getattr(weighted, name) == pytest.approx(total / len(read))
        assert weighted.accuracy == pytest.approx(100 - found.counts.top1_error)
        assert weighted.top5_error == pytest.approx(found.counts.top5_error)


def test_scores_of_an_example_from_a_text_book():
    """Truth 0 0 0 1 1 2, predicted 0 0 1 1 2 1.

    Class 0: 2 of 3 found, 2 of 2 right, F1 = 4 / 5. Class 1: 1 of 2 found, 1 of 3 right, F1 = 2 / 5. Class 2: none.
    """
    pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 1)]
    per_class = class_errors(evaluation([(t, int(t != p), p, 0.5) for t, p in pairs], ["a", "b", "c"]))
    assert [row.recall for row in per_class] == pytest.approx([200 / 3, 50, 0])
    assert [row.precision for row in per_class] == pytest.approx([100, 100 / 3, 0])
    assert [row.f1 for row in per_class] == pytest.approx([80, 40, 0])
    macro, weighted = macro_means(per_class), weighted_means(per_class)
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx((400 / 9, 350 / 9, 40))
    # (3 * 100 + 2 * 100 / 3 + 0) / 6, (200 + 100 + 0) / 6, (3 * 80 + 2 * 40) / 6
    assert (weighted.precision, weighted.recall, weighted.f1) == pytest.approx((550 / 9, 50, 160 / 3))


def test_equally_confident_mistakes_are_in_the_order_of_the_images(tmp_path):
    rows = [(k % 3, 1, (k + 1) % 3, 0.5 + 0.25 * (k % 2)) for k in range(12)]
    paths = [f"{name}.png" for name in "lkjihgfedcba"]
    listed = [m.path for m in mistakes(evaluation(rows, ["a", "b", "c"], paths))]
    assert listed == [f"{name}.png" for name in "kigecaljhfdb"]
    # Every confusion occurs four times: by truth, then by prediction.
    assert frequent_confusions(confusion_matrix(evaluation(rows, ["a", "b", "c"]))) == [(0, 1, 4), (1, 2, 4), (2, 0, 4)]


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
        ["class", "images", "top1_error", "top5_error", "most_confused_with", "confused_images", *SCORES],
        ["cat", "2", "50.0", "0.0", "dog", "1", "50.0", "100.0", "50.0", str(200 / 3)],
        ["dog", "1", "100.0", "0.0", "hen", "1", "0.0", "0.0", "0.0", "0.0"],
        ["hen", "0", "", "", "", "0", "", "0.0", "", "0.0"],
        ["(macro mean)", "3", "75.0", "0.0", "", "", "25.0", "50.0", "25.0", str(100 / 3)],
        [
            "(weighted mean)",
            "3",
            *(str(200 / 3), "0.0", "", "", *(str(100 / 3), str(200 / 3), str(100 / 3))),
            str(2 * (200 / 3) / 3),
        ],
    ]
    assert read_csv(folder / "predictions.csv") == [
        ["path", "truth", "truth_probability", "class_1", "probability_1"],
        [PHOTO, "cat", "0.9", "cat", "0.9"],
        [PHOTO, "cat", "0.6", "dog", "0.6"],  # here all losses are those of the predictions
        [PHOTO, "dog", "0.8", "hen", "0.8"],
        [PHOTO, "hen", "", "", ""],
    ]
    assert [row[1:] for row in read_csv(folder / "confusion.csv")[1:]] == [["1", "1", "0"], ["0", "0", "1"], ["0"] * 3]
    assert [row[1:] for row in read_csv(folder / "mistakes.csv")[1:]] == [["dog", "hen", "0.8"], ["cat", "dog", "0.6"]]
    assert json.loads((folder / "summary.json").read_text()) == facts
    assert facts["top1_error"] == pytest.approx(200 / 3)
    assert facts["unreadable"] == [{"path": PHOTO, "reason": "3.png: broken"}]
    assert "66.667 %" in page.text
    assert "1 image could not be read and is not counted" in page.text
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
    assert {row[0] for row in read_csv(tmp_path / "per_class.csv")[1:-2]} == set(names)


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
    assert [row[0] for row in read_csv(tmp_path / "per_class.csv")[1:-2]] == cells
    assert [row[1::2] for row in read_csv(tmp_path / "predictions.csv")[1:]] == [
        [cells[k], cells[(k + 1) % 8]] for k in range(8)
    ]
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
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "long long" in page
    assert max(map(len, re.findall(r"<td>([^<]*long[^<]*)</td>", page))) < 70
    assert re.search("<td>3long [long ]+…</td>", page)


@given(st.text(max_size=300), st.sampled_from(["", " 12.3 %"]))
def test_a_line_of_the_contact_sheet_holds_as_much_as_fits(text, end):
    font = ImageFont.truetype(font_file(), FONT_PX)
    text = drawable(text)
    line = fitting(text, end, font, PICTURE_PX)
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
    assert "1 of the net's 2 classes has no images." in page.text


def test_of_a_thousand_classes_the_worst_are_drawn_and_all_are_listed(tmp_path):
    rows = [(k, int(k % 3 == 0), (k + k % 3 // -2) % 1000 if k % 3 else (k + 1) % 1000, 0.5) for k in range(1000)]
    _, page = report(tmp_path, evaluation(rows, list(imagenet_labels())))
    assert "The 50 classes in the most frequent confusions" in page.text
    assert "980 more" in page.text
    assert len(read_csv(tmp_path / "confusion.csv")) == 1001
    assert (tmp_path / "confusion.png").stat().st_size < 1_000_000


def test_the_table_of_classes_is_sorted_by_numbers_in_the_page(tmp_path):
    """Three classes: recall 50, 100, 0 %; precision 1 of 2, 2 of 3, 0 of 0; 2, 2 and 1 images."""
    rows = [(0, 0, 0, 0.9), (0, 1, 1, 0.9), (1, 0, 1, 0.9), (1, 0, 1, 0.9), (2, 1, 0, 0.9)]
    report(tmp_path, evaluation(rows, ["b", "C", "a"]))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    places = re.findall(r'<tr style="--p1:(\d);--p2:(\d);--p3:(\d);--p4:(\d)"><td>(\w)</td>', text)
    # Worst first; then by precision, F1, images and name.
    assert places == [("0", "0", "2", "0", "a"), ("1", "1", "0", "1", "b"), ("2", "2", "1", "2", "C")]
    assert all(f".sort{k}:checked) tr {{ order: var(--p{k}); }}" in text for k in range(1, 5))
    assert text.count('<input type="radio"') == 5
    assert "more</label>" not in text


def test_the_page_is_for_dark_rooms_and_phones_and_loads_nothing(tmp_path):
    report(tmp_path, evaluation([(0, 1, 1, 0.5)] * 3, ["a", "b"]))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme: dark)" in text
    assert '<meta name="viewport" content="width=device-width' in text
    assert "default-src 'none'; img-src data:" in text


def test_a_new_report_replaces_an_earlier_one_whole_or_not_at_all(tmp_path, monkeypatch):
    report(tmp_path, evaluation([(0, 1, 1, 0.5)], ["a", "b"]))
    (tmp_path / ".summary.partial.json").write_text("what a killed process left")
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "index.html").write_text("of another")
    (tmp_path / ".DS_Store").write_text("")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "index.html")

    with monkeypatch.context() as broken:
        broken.setattr(files, "html_page", full)
        with pytest.raises(DataError, match=r"the report cannot be written: index.html: No space left on device"):
            report(tmp_path, evaluation([(0, 0, 0, 0.5)], ["a", "b"]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    report(tmp_path, evaluation([(0, 0, 0, 0.5)], ["a", "b"]))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == before.keys() - {"mistakes.png", ".summary.partial.json"}
    assert all((tmp_path / name).read_bytes() != before[name] for name in left - {".DS_Store"})


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["notes.txt"], "notes.txt"),
        (["index.html"], "index.html"),  # of a web site, not of a report
        (["summary.json", "confusion.png"], "confusion.png"),
        (["holiday/"], "holiday"),
        ([".git/"], ".git"),
        (["index.html/"], "index.html"),
        ([".index.partial.htm"], ".index.partial.htm"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_with_its_name(names, named, tmp_path):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=f"/{re.escape(named)}: is not part of an earlier report"):
        begin_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name.rstrip("/") for name in names)


def test_an_earlier_report_with_another_file_is_refused(tmp_path):
    report(tmp_path, evaluation([(0, 0, 0, 0.5)], ["a"]))
    begin_report(tmp_path)
    (tmp_path / "my notes.md").write_text("")
    with pytest.raises(DataError, match=r"my notes.md: is not part of an earlier report"):
        begin_report(tmp_path)


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


@pytest.mark.parametrize("earlier", [None, ".DS_Store"])
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


def test_images_that_are_no_files_are_in_the_picture_of_mistakes():
    red = np.full((1, 32, 32, 3), (255, 0, 0), np.uint8)
    for pixels in (red, red.astype(np.uint16) * 257, red.astype(np.float32) / 255):
        sheet = contact_sheet(
            [Mistake(0, "image 0", 0, 1, 0.5)], Samples(pixels, [0], ["a", "b"]), ["a", "b"], font_file(), exif=False
        )
        assert sheet.getpixel((100, 100)) == (255, 0, 0)


IMAGENET_REPORT = """
import resource, sys, time
from pathlib import Path
import numpy as np
import matplotlib.backends.backend_agg
from resnet_tools.data.samples import Samples
from resnet_tools.evaluation.evaluate import Evaluation
from tests.evaluation.test_report import PHOTO, report

random, images = np.random.default_rng(0), 50_000
truths = random.integers(0, 1000, images)
best = (truths[:, None] + random.integers(0, 2, (images, 1)) + np.arange(5)) % 1000
probabilities = np.sort(random.random((images, 5)))[:, ::-1]
ranks = (best[:, 0] != truths) * 5
samples = Samples([PHOTO] * images, truths.tolist(), [f"class {k}" for k in range(1000)])
found = Evaluation(samples, ranks, best, probabilities, -np.log(probabilities[:, 0]), {})
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
report(Path(sys.argv[1]), found)
print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_report_on_the_images_of_imagenet_takes_seconds_and_bounded_memory(tmp_path):
    command = [sys.executable, "-c", IMAGENET_REPORT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 60
    assert kilobytes < 400_000
    assert len(read_csv(tmp_path / "predictions.csv")) == 50_001
