"""What names may do to a terminal or a spreadsheet: nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.text import OUTPUT_ERRORS, counted, csv_cell, printable

ANY = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF))  # surrogates too


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe 7, 靴\U0001f45f", "größe 7, 靴\U0001f45f"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x9b1m\x7f", r"\x9b1m\x7f"),
        ("abc\u202egpj.exe\u2028", r"abc\u202egpj.exe\u2028"),
        ("\ud83d\udfff", r"\ud83d\udfff"),
        ("l\udce9.png", "l\udce9.png"),  # the byte E9 of a file name
        ("\udcc2\udc9b", "\udcc2\\x9b"),  # two bytes that together are a control character
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_a_terminal_could_act_on_is_shown(text, expected):
    assert printable(text) == expected


@given(ANY)
def test_no_text_reaches_a_terminal_with_a_control_character(text):
    sent = printable(text).encode("utf-8", OUTPUT_ERRORS).decode("utf-8", "replace")
    assert not [sign for sign in sent if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]


@given(ANY)
def test_any_text_can_be_written(text):
    text.encode("utf-8", OUTPUT_ERRORS)


def test_lines_of_a_message_stay_lines():
    assert printable("a\x1b\nb\r", lines=True) == "a\\x1b\nb\\r"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", r"\t=1"),
        ("\r=1", r"\r=1"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert csv_cell(text) == cell


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (50_000, "image", "50,000 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
    ],
)
def test_numbers_agree_with_their_nouns(number, noun, expected):
    assert counted(number, noun) == expected
