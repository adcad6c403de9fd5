"""`resnet plot`: three charts of every run, from histories and from the original's logs."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.errors import ResnetToolsError
from resnet_tools.history.history import Epoch, write_history
from resnet_tools.history.plotting import COLORS, draw_training, plot_confusion, plot_histories, readable_on
from tests.support.golden import DATA

FILES = DATA / "evaluation"
SVG = "{http://www.w3.org/2000/svg}"
HISTORY = [Epoch(k, 0.1, 2 / k, 80 / k, 30 / k, 2 / k, 70 / k, 20 / k, 5, 100) for k in range(1, 5)]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two folders of trainings with the same name, and a log of the original."""
    for parent in ("one", "two"):
        (tmp_path / parent / "checkpoints").mkdir(parents=True)
        write_history(HISTORY, tmp_path / parent / "checkpoints" / "history.csv")
    return [*(str(tmp_path / parent / "checkpoints") for parent in ("one", "two")), str(FILES / "main_finetune.stdout")]


def texts_of(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_runs_are_drawn_in_one_picture_with_a_legend(runs, tmp_path, capsys):
    output = tmp_path / "curves.svg"
    assert run(["plot", *runs, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"saved charts to {output}\n"
    texts = [text.strip() for text in texts_of(output)]
    assert {"Validation error", "Training error", "Training loss", "epoch", "top-1", "top-5"} <= set(texts)
    assert [text for text in texts if text.endswith(("checkpoints", "finetune"))] == [
        "one/checkpoints",
        "two/checkpoints",
        "main_finetune",
    ]
    svg = output.read_text()
    # Each of the first two runs: a line in the legend, and five in the charts (top-1 and top-5 twice, and the loss).
    for color in COLORS[:3]:
        assert len(re.findall(rf'<path d="[^"]*" (?:[a-z-]+="[^"]*" )*style="[^"]*stroke: {color}', svg)) >= 6


def test_the_same_run_twice_has_a_number(runs, tmp_path):
    assert run(["plot", runs[0], f"{runs[0]}/history.csv", "--output", str(tmp_path / "a.svg")]) == 0
    texts = [text.strip() for text in texts_of(tmp_path / "a.svg")]
    assert [text[-15:] for text in texts if "checkpoints" in text] == ["checkpoints (1)", "checkpoints (2)"]


def test_a_png_is_written_by_default_and_again_with_the_same_bytes(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", runs[0]]) == 0
    first = (tmp_path / "training.png").read_bytes()
    assert run(["plot", runs[0]]) == 0
    assert (tmp_path / "training.png").read_bytes() == first
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.width > 1000
        assert len(set(picture.convert("RGB").getcolors(1 << 20))) > 50


def test_charts_without_figures_say_so(tmp_path):
    plot_histories({"_name with $x$": [Epoch(1, val_top1=50.0)]}, tmp_path / "a.svg")
    texts = [text.strip() for text in texts_of(tmp_path / "a.svg")]
    assert texts.count("no data") == 2
    assert "_name with $x$" in texts


def test_names_that_no_svg_may_hold_are_drawn_with_marks(tmp_path):
    plot_histories({"a\x01\n\0<b>\udcff\u2028c": HISTORY}, tmp_path / "a.svg")
    assert "a? ?<b>? c" in [text.text.strip() for text in ElementTree.parse(tmp_path / "a.svg").iter(f"{SVG}text")]


def test_a_run_of_one_epoch_has_a_mark_for_each_error_and_whole_epochs(tmp_path):
    plot_histories({"run": [Epoch(1, val_top1=50.0, val_top5=20.0)]}, tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    marks = re.findall(rf'<use xlink:href="[^"]*"[^>]* style="([^"]*)stroke: {COLORS[0]}', svg)
    assert marks == [f"fill: {COLORS[0]}; ", "fill-opacity: 0; "]
    assert texts_of(tmp_path / "a.svg")[:2] == ["1", "epoch"]


def test_many_runs_have_colours_of_their_own(tmp_path):
    plot_histories({f"run {number}": HISTORY for number in range(20)}, tmp_path / "a.svg")
    found = re.findall(r"stroke: (#[0-9a-f]{6})", (tmp_path / "a.svg").read_text())
    assert len({color for color in found if found.count(color) >= 6}) >= 20


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "'nothing' does not exist"),
        ([], 2, "Missing argument 'RUN...'"),
        ([str(FILES / "main_finetune.stdout"), "--output", "a.gif"], 1, "is unknown; expected .png, .svg or .pdf"),
        (
            [str(FILES / "main_finetune.stdout"), "--output", "no/folder.png"],
            1,
            "no/folder.png: cannot be written: No such file or directory\n",
        ),
        ([str(FILES / "README.md")], 1, "README.md: holds no figures of an epoch"),
        ([str(FILES)], 1, "history.csv: does not exist"),
    ],
)
def test_bad_input_is_named(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", *arguments]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install(runs, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert run(["plot", runs[0]]) == 1
    assert "pip install 'resnet_tools[plot]'" in capsys.readouterr().err


def test_the_message_of_a_plot_does_nothing_to_a_terminal(runs, tmp_path, capsys):
    assert run(["plot", runs[0], "--output", str(tmp_path / "a\x1b[2J\n.svg")]) == 0
    assert "a\\x1b[2J\\n.svg\n" in capsys.readouterr().out


BEST_THIRD = [
    Epoch(1, 0.1, 2.0, 80.0, 0.0, 1.9, 70.0, 0.0),
    Epoch(2, 0.1, 1.5, 60.0, 0.0, 1.4, 40.0, 0.0),
    Epoch(3, 0.1, 1.1, 50.0, 0.0, 1.2, 20.25, 0.0),
    Epoch(4, 0.1, 0.9, 40.0, 0.0, 1.3, 20.25, 0.0),  # as good, but the run keeps the first
]


def lines_of(svg: Path, color: str) -> list[tuple[float, ...]]:
    """The heights of the points of each line with this colour, counted downwards."""
    found = re.findall(rf'<path d="([^"]*)" clip-path="[^"]*" style="([^"]*)stroke: {color}', svg.read_text())
    return [tuple(float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)) for path, _ in found]


def test_a_training_is_drawn_in_two_panels_with_its_best_epoch(tmp_path):
    draw_training(BEST_THIRD, tmp_path / "a.svg")
    texts = [text.strip() for text in texts_of(tmp_path / "a.svg")]
    assert [text for text in texts if text in ("Error", "Loss")] == ["Error", "Loss"]
    assert texts[-3:] == ["validation", "training", "lowest validation error: 20.25 %, epoch 3"]
    # Each colour: its errors and its losses; smaller values are further down.
    for color, columns in ((COLORS[0], ("val_top1", "val_loss")), (COLORS[1], ("train_top1", "train_loss"))):
        lines = [line for line in lines_of(tmp_path / "a.svg", color) if len(line) == 4]
        assert len(lines) == 2
        for line, column in zip(lines, columns, strict=True):
            values = [getattr(epoch, column) for epoch in BEST_THIRD]
            scale = (line[1] - line[0]) / (values[1] - values[0])
            assert scale < 0
            np.testing.assert_allclose(line, line[0] + scale * (np.array(values) - values[0]), atol=1e-3)


def test_top5_errors_of_a_training_are_drawn_if_there_are_any(tmp_path):
    draw_training(HISTORY, tmp_path / "a.svg")
    assert {"top-1", "top-5"} <= set(texts_of(tmp_path / "a.svg"))
    draw_training(BEST_THIRD, tmp_path / "b.svg")
    assert not {"top-1", "top-5"} & set(texts_of(tmp_path / "b.svg"))


@pytest.mark.parametrize(
    ("history", "without"),
    [
        ([], 2),
        ([Epoch(1)], 2),
        ([Epoch(1, val_top1=50.0)], 1),
        ([Epoch(1, train_loss=float("inf"), val_loss=1.0)], 1),
    ],
)
def test_a_training_with_little_to_draw_says_so(history, without, tmp_path):
    draw_training(history, tmp_path / "a.svg")
    texts = texts_of(tmp_path / "a.svg")
    assert texts.count("no data") == without
    assert any("50.00 %, epoch 1" in text for text in texts) == (bool(history) and history[0].val_top1 == 50)


def test_a_picture_is_the_same_in_every_format_and_at_every_time(runs, tmp_path, monkeypatch):
    for name in ("a.pdf", "b.PDF", "a.svg", "a.png"):
        assert run(["plot", runs[0], "--output", str(tmp_path / name)]) == 0
    draw_training(HISTORY, tmp_path / "same.svg")
    assert (tmp_path / "same.svg").read_bytes() == (tmp_path / "a.svg").read_bytes()
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf == (tmp_path / "b.PDF").read_bytes()
    assert b"CreationDate" not in pdf
    [box] = re.findall(rb"/MediaBox \[ 0 0 (\S+) (\S+) \]", pdf)  # in points, as the SVG; the PNG has 110 dots an inch
    sides = re.findall(r'(?:width|height)="([0-9.]+)pt"', (tmp_path / "a.svg").read_text())[:2]
    with Image.open(tmp_path / "a.png") as picture:
        for points, side, pixels in zip(map(float, box), map(float, sides), picture.size, strict=True):
            assert points == pytest.approx(side, abs=1)
            assert pixels == pytest.approx(side / 72 * 110, abs=2)


@pytest.mark.parametrize("red", np.linspace(0, 1, 6))
def test_numbers_can_be_read_on_every_colour(red):
    """The contrast of WCAG 2.1: (lighter + 0.05) / (darker + 0.05), of luminances from 0 (black) to 1 (white)."""
    for green, blue in np.ndindex(6, 6):
        color = np.array([red, green / 5, blue / 5])
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        contrast = {"black": (luminance + 0.05) / 0.05, "white": 1.05 / (luminance + 0.05)}
        assert contrast[readable_on(color)] == max(contrast.values()) > 4.5


@pytest.mark.parametrize("count", [3, 1234, 50_000])
def test_numbers_in_a_confusion_are_its_counts_and_its_colours_their_shares(count, tmp_path):
    """A third of each row: rounded shares would add up to 99 %."""
    counts = np.array([[count, count, count], [0, 7, 0], [0, 0, 0]])
    plot_confusion(counts, ["a", "b", "c"], ["a", "b", "c"], tmp_path / "a.svg")
    texts = texts_of(tmp_path / "a.svg")
    assert [text for text in texts if text == str(count)] == 3 * [str(count)]
    assert "prediction (the numbers are images)" in texts
    assert not any("nan" in text for text in texts)


def test_a_column_that_sums_up_other_classes_is_gray_and_does_not_pale_the_mistakes(tmp_path):
    counts = np.diag([60] * 30) + np.diag([10] * 29, 1)
    plot_confusion(np.hstack([counts, np.full((30, 1), 30)]), ["a"] * 30, [*["a"] * 30, "(other)"], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        colors = {color: number for number, color in picture.convert("RGB").getcolors(1 << 20) if number > 300}
    cells = [color for color in colors if max(color) - min(color) > 30 or 0 < 255 - color[0] < 120]
    assert (103, 0, 13) in cells  # the darkest red is for 10 of 100 images, not for 30
    assert any(max(color) - min(color) <= 2 and color[0] < 220 for color in cells)


@pytest.mark.parametrize("classes", [1, 3, 20, 40, 100])
def test_a_confusion_grows_with_its_classes_and_names_them_all(classes, tmp_path):
    names = [f"class {number} with a name that is long" for number in range(classes)]
    shares = np.eye(classes) * 80 + 20 * np.eye(classes, k=1)
    plot_confusion(shares, names, names, tmp_path / "a.svg")
    texts = texts_of(tmp_path / "a.svg")
    assert sum(text.startswith("class ") and text.endswith("…") for text in texts) == 2 * classes
    assert texts.count("80") == (classes if classes <= 25 else 0)


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    with pytest.raises(ResnetToolsError, match="cannot be written"):
        plot_confusion(np.eye(2), ["a", "b"], ["a", "b"], tmp_path / "no" / "a.png")
