"""Arguments -> image paths."""

import os
import sys
from pathlib import Path

import pytest

from resnet_tools.data.files import image_files
from resnet_tools.errors import ImageError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder tree, and the current directory above it: photos/{b.JPG,a.png,notes.txt,.hidden.jpg,...}."""
    for name in (
        "photos/b.JPG",
        "photos/a.png",
        "photos/notes.txt",
        "photos/.hidden.jpg",
        "photos/.cache/c.jpg",
        "photos/Z/d.tiff",
        "photos/sub/e.webp",
        "photos/sub/deep/f.jpeg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = ["photos/Z/d.tiff", "photos/a.png", "photos/b.JPG", "photos/sub/deep/f.jpeg", "photos/sub/e.webp"]


def test_a_file_is_taken_as_it_is_given(photos: Path) -> None:
    given = ["photos/notes.txt", "./photos//a.png", "photos/.hidden.jpg", "photos/a.png", "photos/a.png"]
    assert image_files(given) == given


def test_a_folder_gives_its_images_in_byte_order_without_hidden_ones(photos: Path) -> None:
    assert image_files(["photos"]) == ALL
    assert image_files(["photos/"]) == ALL
    assert image_files([str(photos)]) == [str(photos / path) for path in ALL]


def test_a_hidden_folder_named_itself_is_searched(photos: Path) -> None:
    assert image_files(["photos/.cache"]) == ["photos/.cache/c.jpg"]


def test_arguments_keep_their_order(photos: Path) -> None:
    assert image_files(["photos/sub", "photos/a.png"]) == [*ALL[3:], "photos/a.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["photos/a.png"]),
        ("photos/?.*", ["photos/a.png", "photos/b.JPG"]),
        ("photos/[ab].*", ["photos/a.png", "photos/b.JPG"]),
        ("photos/*", ["photos/a.png", "photos/b.JPG", "photos/notes.txt"]),
        ("photos/**/*.[jw]*", ["photos/sub/deep/f.jpeg", "photos/sub/e.webp"]),
        ("photos/**/deep/*", ["photos/sub/deep/f.jpeg"]),
        ("photos/sub/**", ["photos/sub/deep/f.jpeg", "photos/sub/e.webp"]),
        ("**/e.webp", ["photos/sub/e.webp"]),
        ("*/sub/**/**/f*", ["photos/sub/deep/f.jpeg"]),
    ],
)
def test_a_pattern_gives_the_files_that_match(pattern: str, expected: list[str], photos: Path) -> None:
    assert image_files([pattern]) == expected
    assert image_files([f"{photos}/{pattern}"]) == [f"{photos}/{path}" for path in expected]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(photos: Path) -> None:
    (photos / "photos/[ab].png").touch()
    assert image_files(["photos/[ab].png"]) == ["photos/[ab].png"]


def test_folders_with_signs_of_patterns_are_searched_below_a_double_star(photos: Path) -> None:
    (photos / "x[1]").mkdir()
    (photos / "x[1]/g.png").touch()
    assert image_files(["**/g.png"]) == ["x[1]/g.png"]


def test_all_that_is_missing_is_reported_at_once(photos: Path) -> None:
    with pytest.raises(ImageError) as caught:
        image_files(["gone.jpg", "photos/a.png", "empty", "photos/*.gif", "", "empty/**/*.png"])
    assert str(caught.value).split("\n") == [
        "gone.jpg: no such file or folder",
        "empty: holds no images (.jpg .png .webp .tif and the other extensions that Pillow decodes)",
        "photos/*.gif: no file matches",
        "'': no such file or folder",
        "empty/**/*.png: no file matches",
    ]


def test_links_to_folders_are_followed_and_circles_end(photos: Path) -> None:
    (photos / "photos/sub/up").symlink_to(photos / "photos")
    (photos / "photos/sub/again").symlink_to(photos / "photos/sub")
    (photos / "photos/sub/itself").symlink_to("itself")
    (photos / "photos/linked").symlink_to(photos / "photos/Z")
    expected = sorted([*ALL, "photos/linked/d.tiff"])
    assert image_files(["photos"]) == expected
    assert image_files(["photos/**/*.*[!t]"]) == expected


def test_a_link_does_not_lead_back_to_the_siblings_of_its_folder(photos: Path) -> None:
    for name, target in (("up", ".."), ("same", "."), ("far", str(photos)), ("aside", "../Z")):
        (photos / "photos/sub" / name).symlink_to(target)
    assert image_files(["photos/sub"]) == ["photos/sub/aside/d.tiff", *ALL[3:]]
    assert image_files(["photos/sub/up"])[-1] == "photos/sub/up/sub/e.webp"  # a link that is given is followed


def test_a_link_to_nowhere_counts_as_an_image_so_that_its_loading_fails(photos: Path) -> None:
    (photos / "empty/gone.jpg").symlink_to("nowhere")
    assert image_files(["empty"]) == ["empty/gone.jpg"]
    with pytest.raises(ImageError, match=r"empty/gone\.jpg: no such file"):
        image_files(["empty/gone.jpg"])


@pytest.mark.skipif(os.name != "posix", reason="needs fifos")
def test_pipes_in_a_folder_are_no_images(photos: Path) -> None:
    os.mkfifo(photos / "empty/pipe.jpg")
    with pytest.raises(ImageError, match="holds no images"):
        image_files(["empty"])
    assert image_files(["empty/pipe.jpg"]) == ["empty/pipe.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_pass_through(photos: Path) -> None:
    name = os.fsdecode(b"photos/\xff\xe9.jpg")
    Path(name).touch()
    assert image_files([name]) == [name]
    assert image_files(["photos"]) == [*ALL, name]  # 0xff sorts last
    assert image_files(["photos/*\udce9.jpg"]) == [name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_reported(photos: Path) -> None:
    (photos / "empty").chmod(0)
    with pytest.raises(ImageError, match="empty: Permission denied"):
        image_files(["empty"])
    (photos / "empty").chmod(0o700)


def test_a_tree_deeper_than_the_recursion_limit_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    depth = sys.getrecursionlimit() + 50  # 2 bytes each: within PATH_MAX (4096)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("x.png").touch()
    os.chdir(tmp_path)
    file = "d/" * depth + "x.png"
    try:
        assert image_files(["d"]) == [file]
    finally:  # pytest could not remove it
        os.unlink(file)
        os.removedirs(os.path.dirname(file))
