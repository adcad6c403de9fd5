"""What a file is, judged by its first bytes: head -> a Lua Torch file or not, and what it is instead."""

from __future__ import annotations

import re

HEAD_BYTES = 512  # enough for every mark below

_MARKS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), kind)
    for pattern, kind in (
        (rb"(\xef\xbb\xbf)?\s*(<!doctype|<html|<head|<body|<\?xml|<!--|<script)", "html"),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "zip"),
        (rb"\x1f\x8b", "gzip"),
        (rb".{6}\x00\x00\s*\{\s*\"", "safetensors"),
        (rb"\x80[\x02-\x05].", "pickle"),
        (rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP", "image"),
        (rb"(BZh[1-9]|\xfd7zXZ\x00|7z\xbc\xaf|(\x28\xb5\x2f\xfd)).", "compressed"),
        (rb"\x89HDF\r\n\x1a\n", "hdf5"),
        (rb"version https://git-lfs", "lfs"),
        (rb"\x93NUMPY", "npy"),
        (rb"MATLAB [45]\.\d MAT-file", "mat"),
        (rb".{257}ustar", "tar"),
        (rb"\x08[\x01-\x7f][\x12\x1a\x22\x2a\x32\x3a\x42]", "onnx"),  # ir_version, then another field of a ModelProto
    )
)

_ADVICE = {
    "empty": "the file is empty: is the download complete?",
    "html": "this is a web page (HTML or XML), not a model: the download failed and saved the server's answer; "
    "open it in a text editor to see why, then download again",
    "zip": "this is a zip archive, as PyTorch checkpoints are: load_checkpoint reads PyTorch checkpoints",
    "gzip": "this is a gzip archive: unpack it first (gunzip)",
    "safetensors": "this is a safetensors file: load_checkpoint reads safetensors",
    "pickle": "this is a Python pickle, perhaps an old PyTorch checkpoint: load_checkpoint reads PyTorch checkpoints",
    "image": "this is an image, not a model",
    "compressed": "this is a compressed archive: unpack it first",
    "hdf5": "this is an HDF5 file (perhaps of Keras or MATLAB), not a Lua Torch file",
    "npy": "this is a NumPy array (.npy), not a model",
    "mat": "this is a MATLAB file (.mat), not a model",
    "tar": "this is a tar archive: unpack it first (tar -xf)",
    "lfs": "this is a Git LFS pointer, not the file itself: run `git lfs pull`",
    "onnx": "this is an ONNX graph, which can be run but neither trained nor converted: use the file that it was made "
    "from. classify, extract-features, evaluate, inspect and verify take it",
    "big-endian": "this looks like a Lua Torch file in big-endian byte order, which is not supported: "
    "write it again in Torch with the default (little-endian) encoding",
    "json": "this is JSON, not a model: a server's answer, or a description beside the file of the weights",
    "text": "this is plain text, not a model",
}


def looks_like_t7(head: bytes) -> bool:
    """True if the bytes can start a .t7 file: a type tag from 0 to 8, as an int32 or as an ascii digit and newline."""
    if is_ascii_t7(head):
        return True
    return len(head) >= 4 and int.from_bytes(head[:4], "little") in range(9)


def is_ascii_t7(head: bytes) -> bool:
    """True if the bytes can start a .t7 file in ascii mode."""
    return re.match(rb"\s*[0-8](\s|\Z)", head) is not None


def content_kind(head: bytes, size: int) -> str | None:
    """The kind of file that starts with `head` and has `size` bytes, a key of the advice below; None if not known.

    A .t7 file has no mark of its own and is None too; ask `looks_like_t7`.
    """
    if size == 0:
        return "empty"
    for mark, kind in _MARKS:
        if mark.match(head):
            return kind
    if looks_like_t7(head):
        return None
    if len(head) >= 4 and int.from_bytes(head[:4], "big") in range(1, 9):
        return "big-endian"
    if re.fullmatch(rb"[\t\n\r\f\x20-\x7e\x80-\xff]+", head) and _is_utf8(head):
        return "json" if head.lstrip()[:1] in (b"{", b"[") else "text"
    return None


def describe_content(head: bytes, size: int) -> str | None:
    """What a file is instead of a .t7 and what to do, for the user; None if it may be a .t7 or is unknown."""
    kind = content_kind(head, size)
    return None if kind is None else _ADVICE[kind]


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3  # a character cut at the end of the head
    return True
