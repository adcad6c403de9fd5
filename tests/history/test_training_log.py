"""The lines that the original prints become epochs, whatever stands between them."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_tools.errors import HistoryError
from resnet_tools.history import training_log
from resnet_tools.history.history import Epoch, write_history
from resnet_tools.history.lines import epoch_end_line, training_line
from resnet_tools.history.training_log import read_run, read_training_log
from tests.support.golden import DATA, GOLDEN, SHARED, needs_golden

FILES = DATA / "evaluation"


def test_a_fine_tuning_of_the_original():
    first, second = read_training_log(FILES / "main_finetune.stdout")
    assert (first.epoch, first.val_top1, first.val_top5) == (1, 92.857, 21.429)
    assert (second.epoch, second.val_top1, second.val_top5) == (2, 85.714, 28.571)
    assert first.train_loss == pytest.approx((2.1597 + 2.0188 + 2.3338) / 3)
    assert first.train_top1 == pytest.approx((87.5 + 75 + 100) / 3)
    assert second.train_top5 == pytest.approx((25 + 25 + 16.667) / 3)
    assert first.seconds == pytest.approx(0.326 + 0.143 + 0.095 + 0.156 + 0.041)
    assert math.isnan(first.lr)


def test_a_log_packed_with_gzip_gives_the_demo_nets_error():
    [epoch] = read_training_log(FILES / "original-training.2.log.gz")
    assert (epoch.val_top1, epoch.val_top5) == (15.150, 0.200)
    assert 0.5 < epoch.train_loss < 0.9


def test_a_log_that_unpacks_to_more_than_any_log_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "MAX_LOG_BYTES", 1 << 22)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(1 << 26)))
    (tmp_path / "cut.gz").write_bytes((FILES / "original-training.2.log.gz").read_bytes()[:-20])
    with pytest.raises(HistoryError, match=r"bomb\.gz: more than 4 MiB; no training log is that large"):
        read_training_log(tmp_path / "bomb.gz")
    with pytest.raises(HistoryError, match=r"cut\.gz: cannot be decompressed"):
        read_training_log(tmp_path / "cut.gz")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
@pytest.mark.parametrize("name", ["log", "history.csv"])
def test_a_device_is_no_log_and_no_history(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(HistoryError, match="is a device"):
        read_run(tmp_path / name)


def test_a_resumed_training_goes_on_in_one_log(tmp_path):
    log = tmp_path / "both.log"
    log.write_bytes((FILES / "main_finetune.stdout").read_bytes() + (FILES / "main_resume.stdout").read_bytes())
    assert [epoch.epoch for epoch in read_run(log)] == [1, 2, 3]


def test_an_epoch_that_was_begun_again_counts_as_it_was_last(tmp_path):
    line = " | Epoch: [{}][{}/2]    Time 1.000  Data 0.000  Err {:.4f}  top1  50.000  top5  25.000\t\n"
    (tmp_path / "log").write_text(line.format(1, 1, 9) + "killed\n" + line.format(1, 1, 1) + line.format(1, 2, 3))
    [epoch] = read_training_log(tmp_path / "log")
    assert (epoch.train_loss, epoch.seconds) == (2, 2)
    (tmp_path / "log").write_text(line.format(1, 1, 9))
    with pytest.raises(HistoryError, match="holds no figures of an epoch"):
        read_training_log(tmp_path / "log")


def test_a_loss_that_is_no_number_is_kept_apart(tmp_path):
    line = " | Epoch: [1][{}/2]    Time 1.000  Data 0.000  Err {}  top1 100.000  top5 100.000\n"
    end = " * Finished epoch # 1     top1: 100.000  top5: 100.000\n"
    (tmp_path / "log").write_text(line.format(1, "2.0000") + line.format(2, "   nan") + end)
    [epoch] = read_training_log(tmp_path / "log")
    assert math.isnan(epoch.train_loss)
    assert (epoch.train_top1, epoch.val_top1) == (100, 100)


@needs_golden
@pytest.mark.parametrize("path", sorted((GOLDEN / "main").glob("*.stdout")), ids=lambda path: path.stem)
def test_every_golden_output_is_read_or_named(path):
    text = path.read_text()
    if " * Finished epoch" in text:
        epochs = read_training_log(path)
        printed = [line.split()[-1] for line in text.splitlines() if "* Finished epoch" in line]
        assert [f"{epoch.val_top5:.3f}" for epoch in epochs] == printed
    else:
        with pytest.raises(HistoryError, match=path.name):
            read_training_log(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the demo's logs are not beside the repository")
def test_the_whole_training_of_the_demo_net():
    epochs = read_training_log(SHARED / "demo" / "original-training.1.log.gz")
    assert [epoch.val_top1 for epoch in epochs][-1] == 18.65
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]


def test_a_run_is_a_folder_its_history_or_a_log(tmp_path):
    history = [Epoch(1, val_top1=50.0), Epoch(2, val_top1=40.0)]
    write_history(history, tmp_path / "history.csv")
    for run in (tmp_path, tmp_path / "history.csv"):
        assert [epoch.val_top1 for epoch in read_run(run)] == [50, 40]
    (tmp_path / "empty").mkdir()
    with pytest.raises(HistoryError, match=r"empty/history.csv: does not exist"):
        read_run(tmp_path / "empty")


LONG = b"9" * 5000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" * Finished epoch # %s     top1:  1.000  top5:  1.000\n" % LONG,
        b"\0\xff" * 50,
        gzip.compress(b"text", mtime=0),
        gzip.compress(b"x" * 999, mtime=0)[:20],
    ],
)
def test_other_files_are_refused_by_name(content, tmp_path):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(HistoryError, match=str(Path("log"))):
        read_training_log(tmp_path / "log")


class Figures(NamedTuple):
    """What the lines need of ErrorCounts, for any figures."""

    loss: float
    top1_error: float
    top5_error: float


FIGURES = st.floats(0, 100).map(lambda value: float(f"{value:.3f}"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    epochs=st.lists(st.tuples(FIGURES, FIGURES, st.lists(st.tuples(FIGURES, FIGURES, FIGURES), min_size=1)), min_size=1)
)
def test_what_training_prints_is_read(epochs, tmp_path):
    lines = []
    for number, (top1, top5, batches) in enumerate(epochs, 1):
        lines += [
            training_line(number, at, len(batches), 0.5, 0.001, Figures(loss, b1, b5))
            for at, (loss, b1, b5) in enumerate(batches, 1)
        ]
        lines.append(epoch_end_line(number, Figures(0, top1, top5)))
    (tmp_path / "log").write_text("\n".join(lines))
    found = read_training_log(tmp_path / "log")
    assert [(epoch.epoch, epoch.val_top1, epoch.val_top5) for epoch in found] == [
        (number, top1, top5) for number, (top1, top5, _) in enumerate(epochs, 1)
    ]
    for epoch, (_, _, batches) in zip(found, epochs, strict=True):
        assert epoch.train_loss == pytest.approx(sum(b[0] for b in batches) / len(batches))
        assert epoch.train_top5 == pytest.approx(sum(b[2] for b in batches) / len(batches))
        assert epoch.seconds == pytest.approx(len(batches) / 2)
