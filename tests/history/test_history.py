from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.errors import HistoryError
from resnet_tools.history.history import Epoch, read_history, write_history

numbers = st.floats(allow_nan=True, allow_infinity=True)
epochs = st.builds(Epoch, st.integers(1, 10**6), *[numbers] * 9)


@given(history=st.lists(epochs, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory, history):
    path = tmp_path_factory.getbasetemp() / "history.csv"
    write_history(history, path)
    assert list(map(repr, read_history(path))) == list(map(repr, history))  # repr, as nan is not nan


def test_columns_are_named_and_what_was_not_computed_is_empty(tmp_path):
    write_history([Epoch(1, lr=0.1, val_top1=12.5)], tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().splitlines() == [
        "epoch,lr,train_loss,train_top1,train_top5,val_loss,val_top1,val_top5,seconds,images_per_second",
        "1,0.1,,,,,12.5,,,",
    ]


def test_unknown_columns_are_ignored_and_missing_ones_are_nan(tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("val_top1,mood,epoch\n25.0,good,3\n")
    (epoch,) = read_history(path)
    assert (epoch.epoch, epoch.val_top1) == (3, 25.0)
    assert sum(value != value for value in astuple(epoch)) == 8


def test_the_mark_that_a_spreadsheet_puts_before_the_text_is_no_part_of_it(tmp_path):
    (tmp_path / "h.csv").write_bytes(b"\xef\xbb\xbfepoch,val_top1\r\n3,25\r\n")
    [epoch] = read_history(tmp_path / "h.csv")
    assert (epoch.epoch, epoch.val_top1) == (3, 25)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no column `epoch`"),
        (b"a,b\n1,2\n", "no column `epoch`"),
        (b"epoch,lr\n1,much\n", "line 2: lr is 'much'"),
        (b"epoch,lr\n1.5,1\n", "line 2: epoch is 1.5"),
        (b"epoch,lr\n,1\n", "line 2: epoch is 'missing'"),
        (b"epoch\ninf\n", "line 2: epoch is inf"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_is_no_history_is_named_with_the_line(tmp_path, content, complaint):
    path = tmp_path / "h.csv"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=complaint):
        read_history(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HistoryError, match=r"nothing\.csv"):
        read_history(tmp_path / "nothing.csv")
