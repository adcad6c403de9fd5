"""Bytes of good files -> bytes of files that are almost good: every mutation knows what files are made of.

Lengths, counts, indices and offsets are little-endian integers in binary files and digits in text, so both are found
and replaced by numbers that code trips over; pieces of two good files are joined; records, lines and blocks are cut,
doubled and exchanged. A zip archive can be opened, one of its parts changed, and packed again with the right sums.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 20, (1 << 31) - 1, -(1 << 31))
LONGS = (*NUMBERS, 1 << 31, 1 << 32, (1 << 60), (1 << 62) + 1, (1 << 63) - 1, -(1 << 63))
WORDS = (
    b"nan",
    b"inf",
    b"-inf",
    b"1e999",
    b"",
    b"-0",
    b"0x10",
    b"1_0",
    b"9" * 400,
    b"\xff",
    b"\0",
    b"\x1b[2J",
    "٣".encode(),
)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, 1 << 70, "", "x" * 99, "\ud800", [], {}, [[]], {"a": {}})
MAX_BYTES = 4_000_000

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutated(seeds: Sequence[bytes], chance: random.Random, special: Sequence[Mutation] = ()) -> bytes:
    """One of the seeds after one to four mutations; `special` are those of its format."""
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        mutation = chance.choice(special) if special and chance.random() < 0.5 else chance.choice(GENERAL)
        data = mutation(data, chance, seeds)[:MAX_BYTES]
    return data


def _place(data: bytes, chance: random.Random) -> int:
    """More often near the beginning, where headers are."""
    return min(len(data), int(len(data) * chance.random() ** chance.choice((1, 1, 4))))


def change_a_byte(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, chance)
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def flip_a_bit(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, chance)
    return data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def cut_the_end(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, chance)]


def remove_a_piece(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 4, 8, 16, 100)) :]


def double_a_piece(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 4, 8, 16, 100, 1000))
    return data[: at + size] * chance.choice((1, 1, 3)) + data[at:]


def insert_bytes(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice((*WORDS, chance.randbytes(chance.choice((1, 4, 8, 50))))) + data[at:]


def zero_a_piece(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at, size = _place(data, chance), chance.choice((4, 8, 64, 512))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def join_two(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = chance.choice(seeds)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def change_an_integer(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """A 16-, 32- or 64-bit number at a place where one may be: replaced, or one more or less."""
    size, form = chance.choice(((4, "i"), (4, "i"), (8, "q"), (8, "q"), (2, "h")))
    order = chance.choice("<<<>")
    at = _place(data, chance)
    at -= at % chance.choice((1, 4))
    if len(data) - at < size:
        return data
    [old] = struct.unpack_from(order + form, data, at)
    new = chance.choice((*LONGS, old + 1, old - 1, old * 2, -old))
    packed = (new & (1 << 8 * size) - 1).to_bytes(size, "little" if order == "<" else "big")
    return data[:at] + packed + data[at + size :]


GENERAL: tuple[Mutation, ...] = (
    change_a_byte,
    flip_a_bit,
    cut_the_end,
    remove_a_piece,
    double_a_piece,
    insert_bytes,
    zero_a_piece,
    join_two,
    change_an_integer,
)


def change_a_number_in_text(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:100_000]))
    if not found:
        return data
    one = chance.choice(found)
    new = chance.choice((*WORDS, *(b"%d" % number for number in LONGS)))
    return data[: one.start()] + new + data[one.end() :]


def change_the_lines(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    piece: list[bytes] = [lines[at]] * chance.choice((0, 2, 50))
    if chance.random() < 0.3:
        piece = [chance.choice(chance.choice(seeds).split(b"\n"))]
    return b"\n".join([*lines[:at], *piece, *lines[at + 1 :]])


def recode_text(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    encoding = chance.choice(("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


TEXT: tuple[Mutation, ...] = (change_a_number_in_text, change_the_lines, recode_text)


def change_json(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """One value, anywhere, becomes another, or goes, or its key is another's."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        places += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys]
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    holder, key = chance.choice(places)
    if chance.random() < 0.2:
        del holder[key]
    else:
        other, other_key = chance.choice(places)
        holder[key] = chance.choice((*VALUES, other[other_key] if other is not holder else -5))
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # it holds itself now
        return data


def inside_a_line(mutation: Mutation) -> Mutation:
    """The mutation applied to one line of the data."""

    def apply(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
        lines = data.split(b"\n")
        at = chance.randrange(len(lines))
        lines[at] = mutation(lines[at], chance, seeds)
        return b"\n".join(lines)

    return apply


def inside_a_zip(mutations: Sequence[Mutation]) -> Mutation:
    """One part of a zip archive after a mutation, packed again; what is no archive stays as it is."""

    def apply(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
        parts = dict(_parts(data))
        if not parts:  # not an archive any more
            return data
        name = chance.choice([name for name in parts if name.endswith(".pkl")] * 5 or list(parts))
        what = chance.random()
        if what < 0.1:
            del parts[name]
        elif what < 0.2:
            parts[chance.choice(list(parts))] = parts[name]
        else:
            parts[name] = chance.choice(mutations)(parts[name], chance, [parts[name]])
        return _packed(parts)

    return apply


@lru_cache(maxsize=16)
def _parts(data: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return tuple((name, archive.read(name)) for name in archive.namelist())
    except Exception:
        return ()


def _packed(parts: Mapping[str, bytes]) -> bytes:
    """A zip archive that stores the parts as they are; zipfile takes as long for it as the parsers for reading it."""
    body, directory = bytearray(), bytearray()
    for name, content in parts.items():
        key = name.encode()
        sizes = zlib.crc32(content), len(content), len(content), len(key), 0
        entry = struct.pack("<HHHHHLLLHH", 20, 0x800, 0, 0, 0, *sizes)  # version, names in UTF-8, stored, no time
        directory += b"PK\1\2" + struct.pack("<H", 20) + entry + struct.pack("<HHHLL", 0, 0, 0, 0, len(body)) + key
        body += b"PK\3\4" + entry + key + content
    count = len(parts)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def after_a_length(mutation: Mutation) -> Mutation:
    """The mutation applied to a header behind its 8-byte length, as safetensors has it, which is then right again."""

    def apply(data: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
        size = int.from_bytes(data[:8], "little")
        if not 0 < size <= len(data) - 8:
            return data
        header = mutation(data[8 : 8 + size], chance, [data[8 : 8 + size]])
        return len(header).to_bytes(8, "little") + header + data[8 + size :]

    return apply
