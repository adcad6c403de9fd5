"""Names from files -> text that is safe on a terminal and in a spreadsheet.

File names and class names may hold anything: escape sequences that rewrite a terminal, newlines that forge a line of
output, characters that reverse the order of what follows, half a character that no encoding can write. Such characters
are shown as Python writes them in a string: `\\x1b`, `\\n`, `\\u202e`, `\\ud800`. A lone backslash stays as it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

# C0 and C1 controls; line and paragraph separators, marks and overrides of direction; lone surrogates, but not
# U+DCA0..U+DCFF: those stand for bytes of file names that are not UTF-8 and go out as these bytes. The bytes 80..9F
# stay in, as they are the second half of C1 controls. Compiled at once: there may be no memory left for it when a
# message says so.
UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udc9f\udd00-\udfff]")
UNSAFE_BUT_NEWLINE = re.compile(UNSAFE.pattern.replace("\0-\x1f", "\0-\x09\x0b-\x1f"))
MAX_NAME, MOST_NAMES = 300, 5  # characters of a name and names in a message
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# A spreadsheet takes a cell that begins with one of these for a formula; the wide forms too, where Japanese is typed.
FORMULA_SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str, *, lines: bool = False) -> str:
    """The text with every character that could do something to a terminal escaped; `lines`: newlines are kept."""
    return (UNSAFE_BUT_NEWLINE if lines else UNSAFE).sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    code = ord(sign)
    if sign in SHORT:
        return SHORT[sign]
    if 0xDC80 <= code <= 0xDC9F:  # a byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def csv_cell(text: str) -> str:
    """The printable text as a cell of a CSV file: with `'` in front where a spreadsheet would take it for a formula."""
    text = printable(text)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_SIGNS) else text


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """The first of the names, as a message can show them, and how many more there are."""
    names = list(names)
    shown = [printable(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}...") for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `50,000 images`, `3 classes`."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def percent(probability: float) -> str:
    """As people read it: `87.3 %`; what is not all is never 100 %, and what is there never 0 %."""
    share = f"{100 * probability:.1f} %"
    return "< 0.1 %" if share == "0.0 %" else "> 99.9 %" if share == "100.0 %" and probability < 1 else share


def write_lone_surrogates(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for output: the bytes that a surrogate stands for, or else its escape; never an exception."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    if 0xDC80 <= ord(sign) <= 0xDCFF:
        return bytes([ord(sign) - 0xDC00]), error.start + 1
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}", error.start + 1


OUTPUT_ERRORS = "resnet_tools.output"  # for open(errors=...) and reconfigure
codecs.register_error(OUTPUT_ERRORS, write_lone_surrogates)
