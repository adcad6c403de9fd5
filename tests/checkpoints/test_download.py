"""Models are fetched whole, gone on with where they were left, and kept only if they are what was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from resnet_tools.checkpoints import download as download_module
from resnet_tools.checkpoints import transfer as transfer_module
from resnet_tools.checkpoints.download import Source, download, find_source, target_of
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.transfer import checked_address
from resnet_tools.errors import DownloadError, LockedError
from resnet_tools.locking import locked_folder
from resnet_tools.nets.catalog import PUBLISHED
from tests.support.web_server import Site, serving

NET = DEMO_PATH.read_bytes()  # a small resnet-18, 783,799 bytes
NAME = "resnet-18.t7"
PAGE = b"<!DOCTYPE html><html><body>Sign in to go on</body></html>"


def silent(done: int, total: int | None) -> None:
    pass


def fetch(site: Site, folder: Path, name: str = NAME, **options):
    source = find_source(site.address + name)
    return download(source, target_of(source, folder), options.pop("report", silent), **options)


def leave_part(site: Site, folder: Path, size: int = 300_000) -> None:
    """The state of a download that was cut after `size` bytes."""
    whole, site.cut = site.cut, size
    with pytest.raises(DownloadError, match=rf"after {size:,} of {len(site.content):,} bytes; give the same command"):
        fetch(site, folder)
    site.cut = whole
    site.requests.clear()
    assert (folder / f".{NAME}.download" / "part").read_bytes() == site.content[:size]


def assert_whole(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {NAME}
    assert (folder / NAME).read_bytes() == NET


def assert_nothing(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_a_file_arrives_whole_and_every_byte_is_reported(tmp_path):
    reports: list[tuple[int, int | None]] = []
    with serving(Site(NET)) as site:
        done = fetch(site, tmp_path, report=lambda *numbers: reports.append(numbers))
    assert (done.path, done.architecture.depth, done.was_there) == (tmp_path / NAME, 18, False)
    assert_whole(tmp_path)
    assert reports[-1] == (len(NET), len(NET))
    assert [bytes_so_far for bytes_so_far, _ in reports] == sorted({bytes_so_far for bytes_so_far, _ in reports})


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_a_cut_download_goes_on_where_it_was_cut(tmp_path, etag):
    with serving(Site(NET, etag=etag)) as site:
        leave_part(site, tmp_path)
        fetch(site, tmp_path)
    assert site.requests == [("bytes=300000-", '"1"' if etag == '"1"' else None)]
    assert_whole(tmp_path)


def test_a_server_without_ranges_gives_the_file_from_its_beginning(tmp_path):
    with serving(Site(NET, ranges=False)) as site:
        leave_part(site, tmp_path)
        fetch(site, tmp_path)
    assert len(site.requests) == 1
    assert_whole(tmp_path)


@pytest.mark.parametrize("etag", ['"2"', None])
def test_a_part_of_another_version_is_not_gone_on_with(tmp_path, etag):
    other = bytes(len(NET))
    with serving(Site(other, etag='"1"')) as site:
        leave_part(site, tmp_path)
        site.content, site.etag = NET, etag
        fetch(site, tmp_path)
    assert_whole(tmp_path)


def test_a_part_of_another_file_of_the_same_length_is_found_out_at_the_end(tmp_path):
    with serving(Site(bytes(len(NET)), etag=None)) as site:
        leave_part(site, tmp_path)
        site.content = NET
        fetch(site, tmp_path)
    assert site.requests == [("bytes=300000-", None), (None, None)]
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "answer",
    ["bytes 0-783798/783799", "bytes 300000-783798/783800", "bytes 300000-400000/783799", "bytes */783799", "x"],
)
def test_an_answer_that_does_not_go_on_where_the_part_ends_is_not_believed(tmp_path, answer):
    with serving(Site(NET, range_answer=answer)) as site:
        leave_part(site, tmp_path)
        fetch(site, tmp_path)
    assert [asked for asked, _ in site.requests] == ["bytes=300000-", None]
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        "", "[]", "{}", "null", "[" * 60_000, '{"address": 1}', "not json",
        {"done": 0}, {"done": 783_800}, {"done": 300_001}, {"done": "5"}, {"total": 5}, {"validator": 5},
        {"address": "x"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_the_part_is_not_believed(tmp_path, record):
    with serving(Site(NET)) as site:
        leave_part(site, tmp_path)
        file = tmp_path / f".{NAME}.download" / "part.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | record) if isinstance(record, dict) else record)
        fetch(site, tmp_path)
    assert site.requests == [(None, None)]
    assert_whole(tmp_path)


def test_only_bytes_that_are_safe_on_the_disk_are_gone_on_with(tmp_path):
    with serving(Site(NET)) as site:
        leave_part(site, tmp_path)
        with (tmp_path / f".{NAME}.download" / "part").open("ab") as part:
            part.write(bytes(1000))  # such as a power failure leaves
        fetch(site, tmp_path)
    assert site.requests == [("bytes=300000-", '"1"')]
    assert_whole(tmp_path)


def test_a_part_that_is_the_whole_file_needs_no_more_bytes(tmp_path, monkeypatch):
    with serving(Site(NET)) as site:
        monkeypatch.setattr(download_module, "load_checkpoint", _killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(site, tmp_path)
        monkeypatch.undo()
        site.requests.clear()
        fetch(site, tmp_path)
    assert site.requests == [(f"bytes={len(NET)}-", '"1"')]
    assert_whole(tmp_path)


def _killed(path: Path) -> None:
    raise KeyboardInterrupt


def test_an_interruption_keeps_what_has_come(tmp_path):
    def interrupt(done: int, total: int | None) -> None:
        if done > 200_000:
            raise KeyboardInterrupt

    with serving(Site(NET)) as site:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                fetch(site, tmp_path, report=interrupt)
        fetch(site, tmp_path)
    starts = [int(asked.strip("bytes=-")) for asked, _ in site.requests[1:]]
    assert 200_000 < starts[0] < starts[1] < len(NET)
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site(b"", status=404), "the server answers 404 Not Found"),
        (Site(b"", status=503), "the server answers 503"),
        (Site(b"", status=204), "the server answers 204"),
        (Site(PAGE), "the server sends a web page, not a model"),
        (Site(b""), "the server sends an empty file"),
        (Site(NET[:400_000]), "nothing is kept, as it is not the model: .*byte"),
        (Site(b"\x04\0\0\0" + bytes(1000)), "nothing is kept, as it is not the model"),
        (Site(b"hello " * 1000), "this is plain text"),
        (Site(NET, headers={"Content-Length": str(len(NET) - 9)}), "nothing is kept, as it is not the model"),
        (Site(NET, headers={"Content-Length": str(1 << 40)}), "no residual net is as large"),
        (Site(NET, headers={"Content-Encoding": "gzip"}), r"the server sends the file compressed \(gzip\)"),
        (
            Site(NET, redirect="http://example.org/net.t7"),
            "redirects to http://example.org/net.t7: only https",
        ),
        (
            Site(NET, redirect="file:///etc/passwd"),
            "302 Found - Redirection to url 'file:///etc/passwd' is not allowed",
        ),
        (Site(NET, redirect="/again"), "the server answers 302"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_whole_model_is_not_kept(tmp_path, site, message):
    with serving(site), pytest.raises(DownloadError, match=message) as error:
        fetch(site, tmp_path)
    assert ".download" not in str(error.value)
    assert_nothing(tmp_path)


def test_a_length_that_is_too_long_is_a_cut_and_is_kept_for_another_try(tmp_path):
    with serving(Site(NET, headers={"Content-Length": str(len(NET) + 9)})) as site:
        with pytest.raises(DownloadError, match=f"after {len(NET):,} of {len(NET) + 9:,} bytes"):
            fetch(site, tmp_path)
        site.headers = {}
        fetch(site, tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("length", ["", "-5", "much"])
def test_without_a_length_the_end_is_where_the_connection_ends(tmp_path, length):
    with serving(Site(NET, headers={"Content-Length": length})) as site:
        fetch(site, tmp_path)
        assert_whole(tmp_path)
        (tmp_path / NAME).unlink()
        site.cut = 300_000
        with pytest.raises(DownloadError, match="nothing is kept"):
            fetch(site, tmp_path)
        site.cut = None
        fetch(site, tmp_path)
    assert {asked for asked, _ in site.requests} == {None}
    assert_whole(tmp_path)


def test_a_disk_without_room_is_found_before_the_first_byte(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfer_module.shutil, "disk_usage", lambda _: usage._replace(free=len(NET)))
    with serving(Site(NET)) as site, pytest.raises(DownloadError, match=r"783,799 bytes are still to come.*--output"):
        fetch(site, tmp_path)
    assert_nothing(tmp_path)


def test_more_bytes_than_there_is_room_for_are_not_taken_where_no_length_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer_module, "MAX_BYTES", 500_000)
    with serving(Site(NET, headers={"Content-Length": ""})) as site, pytest.raises(DownloadError, match="no room"):
        fetch(site, tmp_path)


def test_a_redirect_on_this_machine_is_followed(tmp_path):
    with serving(Site(NET, redirect="/there")) as site:
        fetch(site, tmp_path)
    assert_whole(tmp_path)


def test_the_name_promises_a_net(tmp_path):
    with serving(Site(NET)) as site:
        with pytest.raises(DownloadError, match=r"it is ResNet-18.*the file's name promises depth 50"):
            fetch(site, tmp_path, "resnet50-v2.pth")
        assert_nothing(tmp_path)
        assert fetch(site, tmp_path, "a-net.t7").architecture.depth == 18


def test_a_published_name_promises_the_published_net(tmp_path):
    with serving(Site(NET)) as site:
        source = Source(site.address + NAME, NAME, PUBLISHED[0])
        with pytest.raises(DownloadError, match=r"it is ResNet-18.*10 classes.*; expected ResNet-18.*1000 classes"):
            download(source, tmp_path / NAME, silent)
    assert_nothing(tmp_path)
    with serving(Site(b"", status=403)) as site:
        source = Source(site.address + NAME, NAME, PUBLISHED[0])
        with pytest.raises(DownloadError, match=r"403 Forbidden\. The files were published in 2016.*may be dead.*copy"):
            download(source, tmp_path / NAME, silent)
    source = Source(site.address + NAME, NAME, PUBLISHED[0])  # nobody is there any more
    with pytest.raises(DownloadError, match=r"no answer: Connection refused\. The files were published"):
        download(source, tmp_path / NAME, silent)


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path):
    (tmp_path / NAME).write_text("mine")
    with serving(Site(NET)) as site:
        with pytest.raises(DownloadError, match="already exists; --force replaces it"):
            fetch(site, tmp_path)
        assert (tmp_path / NAME).read_text() == "mine"
        site.status = 404
        with pytest.raises(DownloadError, match="404"):
            fetch(site, tmp_path, force=True)
        assert (tmp_path / NAME).read_text() == "mine"
        site.status = 200
        fetch(site, tmp_path, force=True)
    assert_whole(tmp_path)


def test_a_published_file_that_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    shutil.copy(DEMO_PATH, tmp_path / NAME)
    source = Source("https://nowhere.invalid/resnet-18.t7", NAME, PUBLISHED[0])
    with pytest.raises(DownloadError, match="already exists and is not what was asked for"):
        download(source, tmp_path / NAME, silent)
    monkeypatch.setattr(download_module, "is_same_net", lambda found, published: found.depth == 18)
    assert download(source, tmp_path / NAME, silent).was_there


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.t7").symlink_to(tmp_path / NAME)
    with serving(Site(NET)) as site:
        source = find_source(site.address + NAME)
        download(source, tmp_path / "link.t7", silent)
    assert (tmp_path / "link.t7").is_symlink()
    assert (tmp_path / NAME).read_bytes() == NET


def test_two_at_once_do_not_mix(tmp_path):
    with serving(Site(NET)) as site:
        leave_part(site, tmp_path)
        with locked_folder(tmp_path / f".{NAME}.download"), pytest.raises(LockedError, match="another run is writing"):
            fetch(site, tmp_path)
        fetch(site, tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("target", ["none/net.t7", "file/net.t7"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, target):
    (tmp_path / "file").write_text("")
    with serving(Site(NET)) as site, pytest.raises(DownloadError, match=rf"{target}: cannot be written: No"):
        download(find_source(site.address + NAME), tmp_path / target, silent)


@pytest.mark.parametrize("name", ["resnet-50.t7", "resnet-50", "ResNet-50", "published-resnet-50", "RESNET-50.T7"])
def test_names_of_published_files(name):
    source = find_source(name)
    assert source.address == "https://d2j0dndfm35trm.cloudfront.net/resnet-50.t7"
    assert (source.file, source.published) == ("resnet-50.t7", PUBLISHED[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-51", "neither a published file nor an address. The published files are resnet-18.t7, "),
        ("", "neither a published file"),
        ("http://example.org/resnet-50.t7", "only https is supported"),
        ("http://127.0.0.1.example.org/net.t7", "only https is supported"),
        ("file:///etc/passwd", "not an address"),
        ("ftp://example.org/net.t7", "only https is supported"),
        ("https://", "not an address"),
        ("https://[::1/x.t7", "not an address"),
        ("https://host:port/x.t7", "not an address"),
        ("https://user:secret@example.org/x.t7", "example.org: names and passwords"),
        ("https://example.org/a b.t7", "not an address"),
        ("https://example.org/a\nb.t7", "not an address"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(DownloadError, match=message):
        find_source(name)


def test_a_name_from_an_address_is_a_name_in_this_folder():
    host = "https://example.org/"
    assert find_source(f"{host}a/resnet-50.t7?x=1#y").file == "resnet-50.t7"
    assert find_source(f"{host}a%20b.t7").file == "a b.t7"
    for path in ("", "a/", "..", "%2e%2e%2fx.t7", "..%5cx.t7", ".bashrc", "a%0ab.t7", "a%1b[2J", "a%00", "x" * 201):
        with pytest.raises(DownloadError, match=r"does not end with the name of a file; give one with --output"):
            target_of(find_source(host + path), None)
    assert target_of(find_source(host), Path("net.t7")) == Path("net.t7")


def test_this_machine_may_be_spoken_to_without_encryption():
    for host in ("127.0.0.1", "[::1]", "localhost", "127.8.8.8:80"):
        assert checked_address(f"http://{host}/x").scheme == "http"


@pytest.mark.parametrize(
    ("file", "depth"),
    [("resnet50-0676ba61.pth", 50), ("wide_resnet50_2.pt", 50), ("resnext101_32x8d.pth", 101), ("my-ResNet_18.t7", 18),
     ("resnet-20161231.pt", None), ("resnet-500.t7", None), ("net50.t7", None)],
)  # fmt: skip
def test_the_depth_in_a_file_name(file, depth):
    assert find_source(f"https://example.org/{file}").depth == depth
