"""`resnet map`: coordinates are those of an SVD, the page is safe with any name, a real browser finds the points."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_tools import project
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.errors import DataError, FeatureError
from resnet_tools.features import map_files, projection
from resnet_tools.features.files import Features, write_features
from resnet_tools.features.groups import OTHER, UNKNOWN, folders, labels_of, largest_groups
from resnet_tools.features.map_files import thumbnails_of
from resnet_tools.features.map_page import COLORS, map_page
from resnet_tools.features.projection import Projection

IMAGES = sorted(map(str, (DEMO_PATH.parent / "images").glob("*.png")))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe",
    "{{data}}",
    "\udcff",
    "&",
]


def write(path: Path, rows: np.ndarray, names: list[str] | None = None) -> Path:
    names = [f"{k % 3}/{k}.png" for k in range(len(rows))] if names is None else names
    write_features(Features(rows, names, [], {"layer": "fc"}, zlib.crc32(np.ascontiguousarray(rows).tobytes())), path)
    return path


def rows_of(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows whose directions differ in variance, far from zero."""
    rows = np.random.default_rng(seed).standard_normal((count, width)) * np.linspace(4, 0.1, width) + 1000
    return rows.astype(np.float32)


@pytest.mark.parametrize("exact", [True, False], ids=["covariance", "iteration"])
@pytest.mark.parametrize(("count", "width"), [(30, 7), (200, 40), (6, 50), (4, 1), (1, 3)])
def test_pca_is_that_of_an_svd(exact, count, width, tmp_path, monkeypatch):
    rows = rows_of(count, width)
    if not exact:
        monkeypatch.setattr(projection, "EXACT_WIDTH", 0)
        monkeypatch.setattr(projection, "ITERATIONS", 60)
    found = project(write(tmp_path / "f.npy", rows))
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = np.zeros((count, 2))
    expected[:, : min(2, len(values))] = (left * values)[:, :2]
    assert found.coordinates.shape == (count, 2)
    np.testing.assert_allclose(
        np.abs(found.coordinates), np.abs(expected), atol=1e-3 * max(1.0, np.abs(expected).max())
    )
    shares = np.append(values**2, 0)[:2] / max(1e-30, (values**2).sum())
    np.testing.assert_allclose(found.explained, shares, atol=1e-5)
    again = project(tmp_path / "f.npy")
    np.testing.assert_array_equal(found.coordinates, again.coordinates)


def test_rows_that_are_not_finite_are_left_out_and_told(tmp_path, capsys):
    rows = rows_of(9, 4)
    rows[2], rows[5, 1] = np.nan, np.inf
    path = write(tmp_path / "f.npy", rows)
    found = project(path)
    assert (found.left_out, found.rows[:3], found.names[2]) == ([2, 5], [0, 1, 3], "0/3.png")
    assert run(["map", str(path), "--output", str(tmp_path / "map.csv")]) == 0
    assert "rows 2, 5 of" in capsys.readouterr().err
    lines = list(csv.DictReader((tmp_path / "map.csv").read_text().splitlines()))
    assert [(line["row"], line["group"]) for line in lines][:3] == [("0", "0"), ("1", "1"), ("3", "0")]
    assert [float(line["x"]) for line in lines] == pytest.approx(found.coordinates[:, 0].tolist())
    with pytest.raises(FeatureError, match="every row holds NaN"):
        project(write(tmp_path / "nan.npy", rows[[2, 2]]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_other_methods_keep_clusters_apart_and_are_deterministic(method, tmp_path):
    pytest.importorskip({"tsne": "sklearn", "umap": "umap"}[method])
    rows = np.concatenate([rows_of(40, 60, seed) + 200 * seed for seed in range(3)])
    path = write(tmp_path / "f.npy", rows)
    found = project(path, method=method).coordinates
    np.testing.assert_array_equal(found, project(path, method=method).coordinates)
    centres = found.reshape(3, 40, 2).mean(1)
    nearest = np.linalg.norm(found[:, None] - centres, axis=2).argmin(1)
    assert (nearest == np.repeat(range(3), 40)).all()
    with pytest.raises(FeatureError, match="needs 5, give --method pca"):
        project(write(tmp_path / "few.npy", rows[:4]), method=method)
    assert (project(write(tmp_path / "same.npy", rows[[0] * 7]), method=method).coordinates == 0).all()


def test_a_method_whose_package_is_missing_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(FeatureError, match=r"scikit-learn: pip install 'resnet_tools\[map\]'"):
        project(write(tmp_path / "f.npy", rows_of(9, 4)), method="tsne")


def test_groups_are_folders_without_what_they_share():
    assert folders(["a/b/c/1.png", "a/b/d/2.png", "a/b/3.png"]) == ["c", "d", "."]
    assert folders(["photos/1.png", "photos/2.png"]) == ["photos", "photos"]
    assert folders(["1.png", "2.png"]) == [".", "."]
    assert folders(["/a/1.png", "b/2.png"]) == ["/a", "b"]
    names, numbers = largest_groups(["x"] * 3 + ["y"] + ["z"] * 2, 2)
    assert (names, numbers) == (["x", "z", OTHER], [0, 0, 0, 2, 1, 1])


def test_labels_are_found_by_path_by_file_name_or_by_row(tmp_path):
    file, names = tmp_path / "labels.csv", ["a/1.png", "b/1.png", "b/2.png", "=x.png"]
    for text, expected in {
        "a/1.png,cat\n'=x.png,dog\n2.png,cow\n1.png,unclear\n": ["cat", UNKNOWN, "cow", "dog"],
        "path,rank,index,label,probability\na/1.png,1,3,cat,0.9\na/1.png,2,4,dog,0.1\n": ["cat", *[UNKNOWN] * 3],
        "one\ntwo\nthree\nfour\n": ["one", "two", "three", "four"],
    }.items():
        file.write_text(text)
        assert labels_of(file, names) == expected
    for text, message in {
        "one\ntwo\n": "has 2 labels, one per line, for 4 rows",
        "": "is empty",
        "c.png,1\nd.png,2\n": "names none of the images",
        "a/1.png,1\nb\n": "entry 2 is 'b'",
    }.items():
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            labels_of(file, names)


class Parsed(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text of the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            assert not re.match(r"\s*(https?:)?//", value or "")

    def handle_data(self, data):
        self.texts.append(data)


def page_of(names: list[str], groups: list[str], title: str = "t") -> str:
    found = Projection(
        np.random.default_rng(0).random((len(names), 2)), list(range(len(names))), names, [], "pca", (0, 0)
    )
    return map_page(found, groups, title, title, {0: b"jpeg"})


PLAIN = Parsed(page_of(["a"], ["b"])).tags


@given(st.lists(st.text(st.characters(codec=None)) | st.sampled_from(NASTY), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_no_name_changes_the_page(names):
    page = page_of(names, names[::-1], names[0])
    page.encode()
    parsed = Parsed(page)
    assert parsed.tags == PLAIN
    [data] = [json.loads(text) for text in parsed.texts if text.startswith('{"groups"')]
    assert len(data["names"]) == len(names)
    assert "\u202e" not in page


def test_a_page_is_whole_and_asks_the_network_for_nothing(tmp_path, capsys):
    names = [*IMAGES, "gone.png", "/dev/zero", "-", "a\0b"]
    path = write(tmp_path / "f.npz", rows_of(len(names), 8), names)
    assert run(["map", str(path), "--output", str(tmp_path / "map.html")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"saved the map of {len(names)} images to {tmp_path / 'map.html'}\n"
    assert f"4 of {len(names)} images cannot be shown" in shown.err
    page = (tmp_path / "map.html").read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page
    [data] = [json.loads(text) for text in Parsed(page).texts if text.startswith('{"groups"')]
    assert len(data["thumbnails"]) == len(IMAGES)
    assert data["thumbnails"]["0"].startswith("/9j/")  # a JPEG


def test_thumbnails_are_spread_and_bounded(monkeypatch):
    names = IMAGES * 4
    found, missing = thumbnails_of(names, 10, lambda _: None)
    assert (list(found), missing) == (list(range(0, 40, 4)), 0)
    assert thumbnails_of(names, 0, lambda _: None) == ({}, 0)
    monkeypatch.setattr(map_files, "MAX_THUMBNAIL_BYTES", 6000)
    few, _ = thumbnails_of(names, 40, lambda _: None)
    assert 0 < sum(map(len, few.values())) <= 6000


def test_a_picture_has_the_colours_of_the_groups(tmp_path):
    path = write(tmp_path / "f.npy", rows_of(60, 8))
    assert run(["map", str(path), "--output", str(tmp_path / "map.png"), "--quiet"]) == 0
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size == (1330, 1060)
        colors = {"#{:02x}{:02x}{:02x}".format(*color) for _, color in picture.getcolors(1 << 20)}
    assert set(COLORS[:3]) <= colors
    assert COLORS[3] not in colors


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("map.gif", 1, "is unknown; expected one of .html, .png, .csv"),
        ("none/map.html", 1, "cannot be written"),
        ("folder.html", 2, "is a directory"),
        ("f.csv", 2, "would be overwritten"),
    ],
)
def test_an_output_that_cannot_be_is_told(output, code, message, tmp_path, capsys):
    path = write(tmp_path / "f.csv", rows_of(6, 4))
    (tmp_path / "folder.html").mkdir()
    assert run(["map", str(path), "--output", str(tmp_path / output)]) == code
    assert message in capsys.readouterr().err


def test_a_page_of_too_many_points_is_refused_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(map_files, "MOST_POINTS", 5)
    assert run(["map", str(write(tmp_path / "f.npy", rows_of(6, 4))), "--output", str(tmp_path / "map.html")]) == 1
    assert "a page shows at most 5 images, here are 6" in capsys.readouterr().err


SCRIPT = """
<script>
addEventListener("load", () => setTimeout(() => {
  const box = canvas.getBoundingClientRect(), found = [];
  const send = (kind, k, more) => canvas.dispatchEvent(new PointerEvent(kind, { bubbles: true, pointerId: 1,
    pointerType: "mouse", clientX: places[2 * k] * view.scale + view.x + box.left,
    clientY: places[2 * k + 1] * view.scale + view.y + box.top, ...more }));
  for (const k of [0, 3, 7]) {
    send("pointermove", k);
    found.push([shown, card.hidden, card.innerText.split("\\n")[0]]);
  }
  send("pointerdown", 3); send("pointerup", 3); send("pointermove", 7);
  found.push([shown, pinned]);
  zoom(3, 200, 200);
  legend.children[1].click();
  const there = nearest(places[0] * view.scale + view.x, places[1] * view.scale + view.y, 3);
  found.push([only, view.scale > view.fit, there]);
  draw();
  const pixels = new Set(new Uint32Array(frame.data.buffer));
  document.body.innerHTML = "<pre id=result></pre>";
  document.getElementById("result").textContent = JSON.stringify([...found, pixels.size > 3]);
}, 200));
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_pointing_shows_and_clicking_keeps_an_image(tmp_path):
    names = [f"{k % 2}/{k}{NASTY[k % len(NASTY)].replace('/', '')}.png" for k in range(12)]
    path = write(tmp_path / "f.npz", rows_of(12, 8), names)
    assert run(["map", str(path), "--output", str(tmp_path / "map.html"), "--quiet"]) == 0
    page = tmp_path / "map.html"
    page.write_text(page.read_text().replace("</body>", f"{SCRIPT}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=900,700"]
    done = subprocess.run(
        [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout)
    assert found is not None, done.stdout[-2000:]
    hover = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert [entry[:2] for entry in hover[:3]] == [[0, False], [3, False], [7, False]]
    assert hover[0][2] == names[0]
    assert hover[3] == [3, True]  # the kept image stays, whatever the pointer is over
    assert hover[4] == [1, True, -1]  # image 0 is in group 0, which is not shown any more
    assert hover[5] is True
