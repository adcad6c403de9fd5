"""Lists of images as shells, spreadsheets and other systems write them give the names of the files."""

from __future__ import annotations

import pytest

from resnet_tools.data.image_lists import names_in_list

FILES = ["a b.png", "sub/2.png", "x,y.png", "it's.png", "p;q.png"]


@pytest.fixture
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in FILES:
        (tmp_path / name).touch()


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(FILES),
        "\r\n".join(FILES) + "\r\n\r\n",
        "\r".join(FILES),
        "\0".join(FILES) + "\0",
        "\n".join(f'"{name}"' for name in FILES),
        "\n".join(name.replace("/", "\\") for name in FILES),
        "\n".join(f"{name};cat" for name in FILES),
        "\n".join(f'"{name}",cat' for name in FILES),
        "path\tclass\n" + "\n".join(f"{name}\tcat" for name in FILES),
    ],
)
def test_the_names_of_files_that_are_there_are_found(text):
    assert names_in_list(text.encode()) == FILES


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_encoding_is_told_from_the_bytes(encoding):
    assert names_in_list("\r\n".join(FILES).encode(encoding)) == FILES


def test_names_of_no_file_stay_as_they_are():
    assert names_in_list(b'"gone.png"\na\\b.png\npath,x.png\n') == ['"gone.png"', "a\\b.png", "path,x.png"]
    assert names_in_list(b"a\0b\0") == ["a", "b"]
    assert names_in_list(b"\n \n") == []
