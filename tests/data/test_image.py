"""Image files -> pixels: the original's bytes first, then what it refuses or garbles, then damage of all kinds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_tools.data import image as image_module
from resnet_tools.data.image import load_image
from resnet_tools.data.image_formats import PLUGINS, image_endings
from resnet_tools.errors import ImageError
from tests.support.golden import DATA, GOLDEN, needs_golden

IMAGES = DATA / "images"
CASES = json.loads((DATA / "transforms" / "transforms.json").read_text())["images"]
# The original takes CMYK for RGB, reads palette + transparency with a wrong stride, fills a truncated JPEG with gray.
DIFFERENT = {"cmyk.jpg", "palette_trns.png", "truncated.jpg"}
# The original refuses these, which we load.
REFUSED_THERE = {"gray_alpha.png", "photo.bmp", "photo.gif"}
SAME = [case for case in CASES if case["load"] == "ok" and case["file"] not in DIFFERENT]
COPIED = [case for case in SAME if (IMAGES / case["file"]).exists()]
OTHERS = [case for case in SAME if case not in COPIED]

has_simplejpeg = pytest.mark.skipif(image_module._simplejpeg() is None, reason="simplejpeg is not installed")


@pytest.fixture
def without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_simplejpeg", lambda: None)


@pytest.mark.parametrize("case", COPIED, ids=lambda case: str(case["file"]))
def test_pixels_are_those_of_the_original(case: dict[str, Any]) -> None:
    check_pixels(case, IMAGES)


@pytest.mark.usefixtures("without_simplejpeg")
@pytest.mark.parametrize("case", COPIED, ids=lambda case: str(case["file"]))
def test_pixels_are_those_of_the_original_without_simplejpeg(case: dict[str, Any]) -> None:
    check_pixels(case, IMAGES)


@needs_golden
@pytest.mark.parametrize("case", OTHERS, ids=lambda case: str(case["file"]))
def test_pixels_are_those_of_the_original_for_the_other_images(case: dict[str, Any]) -> None:
    check_pixels(case, GOLDEN / "images")


def check_pixels(case: dict[str, Any], folder: Path) -> None:
    pixels = load_image(folder / case["file"])
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    assert list(planes.shape) == case["shape"]
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    if pixels.dtype == np.uint8:
        assert hashlib.sha256(planes.tobytes()).hexdigest() == case["bytes_sha256"]
    else:
        expected = np.load(DATA / "transforms" / case["npz"])["load"]
        np.testing.assert_array_equal(planes.astype(np.float32) * np.float32(1 / 65535), expected)


def test_sixteen_bit_files_keep_their_bits() -> None:
    for name in ("gray_16bit.png", "rgb_16bit.png"):
        pixels = load_image(IMAGES / name)
        assert pixels.dtype == np.uint16
        assert len(np.unique(pixels & 255)) > 200


@pytest.mark.parametrize("name", ["cmyk.jpg", "photo.bmp"])
def test_cmyk_and_bmp_are_those_of_pillow(name: str) -> None:
    with Image.open(IMAGES / name) as image:
        np.testing.assert_array_equal(load_image(IMAGES / name), np.array(image.convert("RGB")))


def test_gray_with_alpha_is_its_gray() -> None:
    with Image.open(IMAGES / "gray_alpha.png") as image:
        gray = np.array(image.getchannel("L"))
    np.testing.assert_array_equal(load_image(IMAGES / "gray_alpha.png"), np.stack([gray] * 3, axis=2))


def test_a_palette_with_transparency_gives_the_colours_of_the_palette() -> None:
    # palette_trns.png is palette.png with a tRNS chunk
    np.testing.assert_array_equal(load_image(IMAGES / "palette_trns.png"), load_image(IMAGES / "palette.png"))


def test_a_gif_gives_its_first_frame(tmp_path: Path) -> None:
    ppm, gif = load_image(IMAGES / "photo.ppm"), load_image(IMAGES / "photo.gif")  # the same picture in 256 colours
    assert np.abs(ppm.astype(float) - gif).mean() < 8
    red, blue = (Image.new("RGB", (5, 4), color) for color in ("red", "blue"))
    red.save(tmp_path / "two.gif", save_all=True, append_images=[blue])
    assert load_image(tmp_path / "two.gif")[0, 0].tolist() == [255, 0, 0]


def encoded(pixels: np.ndarray, mode: str, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


PHOTO = load_image(IMAGES / "tiny_40x30.png").astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "image_format", "options"),
    [
        ("RGB", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGBA", "TIFF", {}),
        ("RGB", "BMP", {}),
        ("RGB", "PPM", {}),
    ],
)
def test_lossless_formats_give_the_pixels_that_went_in(
    mode: str, image_format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "photo"
    file.write_bytes(encoded(PHOTO, mode, image_format, **options))
    np.testing.assert_array_equal(load_image(file), PHOTO)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "CMYK"])
@pytest.mark.parametrize("image_format", ["TIFF", "PNG", "WEBP", "BMP", "GIF", "PPM"])
def test_other_modes_are_those_of_pillow(mode: str, image_format: str, tmp_path: Path) -> None:
    file = tmp_path / "photo"
    try:
        file.write_bytes(encoded(PHOTO, mode, image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {mode} as {image_format}")
    with Image.open(file) as image:
        image.info.pop("transparency", None)
        np.testing.assert_array_equal(load_image(file), np.array(image.convert("RGB")))


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    rgba = np.dstack([PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])  # wholly transparent
    for image_format in ("PNG", "TIFF"):
        Image.fromarray(rgba).save(tmp_path / "photo", image_format)
        np.testing.assert_array_equal(load_image(tmp_path / "photo"), PHOTO)


def test_sixteen_bit_gray_tiff_and_pgm_keep_their_bits(tmp_path: Path) -> None:
    gray = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    (tmp_path / "gray.pgm").write_bytes(b"P5 32 32 65535\n" + gray.astype(">u2").tobytes())
    for name in ("gray.tif", "gray.pgm"):
        np.testing.assert_array_equal(load_image(tmp_path / name), np.stack([gray] * 3, axis=2))


def test_images_with_32_bits_a_sample_are_refused(tmp_path: Path) -> None:
    for dtype in (np.int32, np.float32):
        Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "deep.tif")
        with pytest.raises(ImageError, match=r"deep\.tif: 32-bit samples .* convert the image to 8 or 16 bits"):
            load_image(tmp_path / "deep.tif")


# --------------------------------------------------------------------------------------- 16-bit PNGs

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def wide_png(samples: np.ndarray, colour_type: int, interlaced: bool, chunk_bytes: int = 1000) -> bytes:
    """A 16-bit PNG of (H, W, samples) uint16. Row i has filter i % 5 of the five of the specification."""
    height, width, count = samples.shape
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    raw = b"".join(filtered(samples[top::down, left::across], count * 2) for top, left, down, across in passes)
    packed = zlib.compress(raw)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)
    chunks = [(b"IHDR", header)]
    chunks += [(b"IDAT", packed[at : at + chunk_bytes]) for at in range(0, len(packed), chunk_bytes)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [*chunks, (b"IEND", b"")]
    )


def filtered(samples: np.ndarray, step: int) -> bytes:
    if samples.size == 0:
        return b""
    rows = samples.astype(">u2").view(np.uint8).reshape(samples.shape[0], -1).astype(int)
    result, above = b"", np.zeros(rows.shape[1], int)
    for i, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        guess = left + above - corner
        distances = np.abs([guess - left, guess - above, guess - corner])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        predicted = [np.zeros_like(row), left, above, (left + above) // 2, paeth][i % 5]
        result += bytes([i % 5]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    return result


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "count"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 21)])
def test_sixteen_bit_pngs_of_all_colour_types_keep_their_bits(
    size: tuple[int, int], colour_type: int, count: int, interlaced: bool, tmp_path: Path
) -> None:
    samples = np.random.default_rng(4).integers(0, 65536, (*size, count), dtype=np.uint16)
    file = tmp_path / "wide.png"
    file.write_bytes(wide_png(samples, colour_type, interlaced))
    expected = samples[:, :, :3] if count > 2 else np.repeat(samples[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(load_image(file), expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xd8\xff", "its header is cut or damaged"),
        (b"\x89PNG\r\n\x1a\n broken", "broken PNG file"),
        (b"GIF89a" + b"\0" * 3, "damaged"),
    ],
)
def test_a_damaged_header_is_told_in_words(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        load_image(path)
    assert "SyntaxError" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_truncated_sixteen_bit_png_is_an_error(tmp_path: Path) -> None:
    samples = np.random.default_rng(5).integers(0, 65536, (20, 20, 3), dtype=np.uint16)
    good = wide_png(samples, 2, False)
    for length in range(12, len(good) - 12, 97):  # the last 12 bytes are IEND, which says nothing about the pixels
        (tmp_path / "wide.png").write_bytes(good[:length])
        with pytest.raises(ImageError):
            load_image(tmp_path / "wide.png")


# --------------------------------------------------------------------------------------- simplejpeg


def both_ways(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray | str]:
    results: list[np.ndarray | str] = []
    for codec in (image_module._simplejpeg(), None):
        with monkeypatch.context() as patch:
            patch.setattr(image_module, "_simplejpeg", lambda codec=codec: codec)
            try:
                results.append(load_image(file))
            except ImageError as error:
                results.append(str(error))
    return results


@has_simplejpeg
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", None])
def test_simplejpeg_gives_the_pixels_of_pillow(
    subsampling: str | None, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width, height in ((1, 1), (2, 3), (7, 8), (16, 17), (33, 15), (40, 30)):
        photo = PHOTO[:height, :width]
        data = encoded(photo, "L" if subsampling is None else "RGB", "JPEG", **options, subsampling=subsampling or -1)
        (tmp_path / "photo.jpg").write_bytes(data)
        fast = image_module._decode_plain_jpeg(data)
        assert fast is not None
        np.testing.assert_array_equal(fast, both_ways(tmp_path / "photo.jpg", monkeypatch)[1])


@has_simplejpeg
def test_simplejpeg_leaves_cmyk_and_truncated_files_to_pillow() -> None:
    for name in ("cmyk.jpg", "truncated.jpg"):
        assert image_module._decode_plain_jpeg((IMAGES / name).read_bytes()) is None


@has_simplejpeg
@pytest.mark.parametrize("name", ["gray.jpg", "progressive.jpg", "exif_orientation.jpg"])
def test_every_truncation_of_a_jpeg_gives_the_same_with_and_without_simplejpeg(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (IMAGES / name).read_bytes()
    for length in [*range(0, len(good), len(good) // 40), *range(len(good) - 6, len(good))]:
        (tmp_path / "cut.jpg").write_bytes(good[:length])
        fast, slow = both_ways(tmp_path / "cut.jpg", monkeypatch)
        assert isinstance(fast, str) == isinstance(slow, str)
        np.testing.assert_array_equal(fast, slow)


# --------------------------------------------------------------------------------------- EXIF


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_on_request_only(image_format: str, tmp_path: Path) -> None:
    from PIL import ImageOps

    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if image_format == "WEBP" else {}
        (tmp_path / "photo").write_bytes(encoded(PHOTO, "RGB", image_format, exif=exif, **options))
        with Image.open(tmp_path / "photo") as image:
            stored, upright = np.array(image), np.array(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(load_image(tmp_path / "photo"), stored)
        np.testing.assert_array_equal(load_image(tmp_path / "photo", exif=True), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and goes on
def test_exif_data_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(PHOTO, "RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    np.testing.assert_array_equal(load_image(tmp_path / "photo.jpg", exif=True), load_image(tmp_path / "photo.jpg"))


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.jpg", "empty file"),
        ("text.jpg", "not an image; expected JPEG, PNG, .* but the file begins with b'this is '"),
        ("truncated.jpg", "damaged or truncated image"),
        ("truncated.png", "damaged or truncated image"),
        ("none.jpg", "No such file or directory"),
        ("", "Is a directory"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_that_names_the_file_and_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(IMAGES / name)
    assert str(caught.value).startswith(f"{IMAGES / name}: ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch(mode=0)
    with pytest.raises(ImageError, match="Permission denied"):
        load_image(tmp_path / "photo.png")


def test_odd_paths_are_errors() -> None:
    for path in ("a\0b.png", "x" * 5000, b"\xff.png"):
        with pytest.raises(ImageError):
            load_image(path)


def test_a_web_page_saved_as_an_image_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\n<!DOCTYPE html><html>not found</html>")
    with pytest.raises(ImageError, match="but an HTML or XML page"):
        load_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("size", [(9460, 9460), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    # 9460 x 9460 = 89,491,600 is just above Pillow's limit of 89,478,485: there Pillow itself only warns
    png = bytearray(wide_png(np.zeros((1, 1, 3), np.uint16), 2, False))
    png[16:24] = struct.pack(">II", *size)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(ImageError, match=rf"bomb\.png: {size[0]} x {size[1]} pixels are more than the limit"):
        load_image(tmp_path / "bomb.png")


def test_a_jpeg_bomb_is_refused_too(tmp_path: Path) -> None:
    jpeg = bytearray(encoded(PHOTO, "RGB", "JPEG"))
    at = jpeg.index(b"\xff\xc0")  # start of frame: marker, length, precision, height, width
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    with pytest.raises(ImageError, match="65000 x 65000 pixels are more than the limit"):
        load_image(tmp_path / "bomb.jpg")


def test_the_limit_of_pillow_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(PHOTO, "RGB", "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 - 1)
    with pytest.raises(ImageError, match="40 x 30 pixels are more than the limit of 1199"):
        load_image(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(tmp_path / "photo.png").shape == (30, 40, 3)


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "long.bmp").write_bytes(b"BM" + bytes(1 << 20))
    with pytest.raises(ImageError, match="more than 1 MiB"):
        load_image(tmp_path / "long.bmp")


@pytest.mark.skipif(os.name != "posix", reason="needs fifos")
def test_an_image_may_come_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    data = (IMAGES / "coffee.jpg").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    pixels = load_image(tmp_path / "pipe")
    writer.join()
    np.testing.assert_array_equal(pixels, load_image(IMAGES / "coffee.jpg"))


SIGNATURES = [*PLUGINS, b"RIFF\x10\0\0\0WEBPVP8 "]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SIGNATURES) | st.just(b""), st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_another_error(
    tmp_path_factory: pytest.TempPathFactory, signature: bytes, rest: bytes, exif: bool
) -> None:
    check_robust(signature + rest, tmp_path_factory, exif)


SMALL = [
    *(IMAGES / name for name in ("tiny_17x23.png", "photo.gif", "photo.bmp", "photo.ppm", "gray.pgm", "gray.jpg")),
    *(IMAGES / name for name in ("progressive.jpg", "cmyk.jpg", "exif_orientation.jpg", "palette_trns.png")),
]
GOOD = [
    *(path.read_bytes() for path in SMALL),
    *(encoded(PHOTO, "RGB", image_format) for image_format in ("WEBP", "TIFF")),
    encoded(PHOTO, "P", "TIFF", compression="tiff_lzw"),
    wide_png(np.random.default_rng(6).integers(0, 65536, (9, 9, 4), dtype=np.uint16), 6, True),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data(), st.booleans())
def test_no_damage_to_a_good_file_raises_another_error(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, data: st.DataObject, exif: bool
) -> None:
    damaged = bytearray(good)
    # Half of the damage goes to the headers, where it hurts most.
    places = st.integers(0, len(good) - 1) | st.integers(0, min(len(good), 300) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        damaged[place] = value
    check_robust(bytes(damaged[: data.draw(st.just(len(good)) | places)]), tmp_path_factory, exif)


def check_robust(data: bytes, tmp_path_factory: pytest.TempPathFactory, exif: bool) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(data)
    try:
        pixels = load_image(file, exif=exif)
    except ImageError:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "pbm", "avif", "jp2", "tga", "ico", "qoi", "pcx", "sgi", "dds"])
def test_every_format_that_pillow_decodes_is_an_image_and_its_ending_is_searched_for(tmp_path, ending):
    from PIL import features

    file_format = Image.registered_extensions().get(f".{ending}")
    if file_format not in Image.SAVE or (ending == "jp2" and not features.check("jpg_2000")):
        pytest.skip("this Pillow cannot write it")
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    path = tmp_path / f"x.{ending}"
    Image.fromarray(pixels).convert("1" if ending == "pbm" else "RGB").save(path, format=file_format)
    assert f".{ending}" in image_endings()
    found = load_image(path)
    assert found.shape == (32, 32, 3)
    assert np.abs(found.astype(int) - pixels).max() <= 30


def test_formats_that_run_other_programs_or_only_stand_for_one_stay_out(tmp_path):
    assert not {".eps", ".ps", ".h5", ".grib", ".bufr", ".wmf", ".mpg", ".txt"} & set(image_endings())
    (tmp_path / "x.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(ImageError, match="not an image"):
        load_image(tmp_path / "x.eps")
