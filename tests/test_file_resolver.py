"""The file that a reference names: exactly one, or an error that names the candidates."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.errors import InputError

DECOMPOSED = unicodedata.normalize("NFD", "é.png")
FILES = [
    "images/p0.png",
    "images/p 1,2.png",
    "images/v1.0.png",
    "images/a%20b.png",
    "images/" + DECOMPOSED,
    "images/a/001.png",
    "images/b/001.png",
    "other/c.jpg",
]


@pytest.fixture
def resolver(tmp_path: Path) -> FileResolver:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return FileResolver(tmp_path, [tmp_path / name for name in FILES])


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("p0.png", "images/p0.png"),
        ("p0", "images/p0.png"),
        ("p0.jpg", "images/p0.png"),  # converted since
        ("P0.PNG", "images/p0.png"),
        (" p0.png ", "images/p0.png"),
        ("images\\p0.png", "images/p0.png"),
        ("C:\\data\\images\\p0.png", "images/p0.png"),
        ("/home/me/photos/p0.png", "images/p0.png"),
        ("..\\..\\upload\\4\\p0.png", "images/p0.png"),
        ("p 1,2", "images/p 1,2.png"),
        ("https://host/x/p%201,2.png?X-Signature=a/b.png", "images/p 1,2.png"),
        ("/data/local-files/?d=set%5Cp0.png", "images/p0.png"),
        ("/tasks/3/presign/?fileuri=czM6Ly9idWNrZXQveC9wMC5wbmc", "images/p0.png"),
        ("v1.0", "images/v1.0.png"),
        ("a%20b.png", "images/a%20b.png"),
        ("é.png", "images/" + DECOMPOSED),
        ("É.PNG", "images/" + DECOMPOSED),
        ("x/a/001.png", "images/a/001.png"),
        ("B/001", "images/b/001.png"),
        ("images/./a/../b/001.png", "images/b/001.png"),
    ],
)
def test_a_reference_names_one_file(
    resolver: FileResolver, tmp_path: Path, reference: str, file: str
) -> None:
    assert resolver.find(reference) == tmp_path / file


@pytest.mark.parametrize(
    "reference", ["", "001x.png", "p1.png", "images/c.jpg", "v1", "\0", "x" * 5000]
)
def test_a_reference_to_no_file_is_refused(resolver: FileResolver, reference: str) -> None:
    """`images/` exists but has no c.jpg: the one in `other/` is another image."""
    with pytest.raises(InputError, match=r"image .* is not in .*: add it, or remove"):
        resolver.find(reference)


def test_several_candidates_are_named(resolver: FileResolver, tmp_path: Path) -> None:
    a, b = tmp_path / "images/a/001.png", tmp_path / "images/b/001.png"
    for reference in ("001.png", "c/001", "C:\\001.PNG"):
        with pytest.raises(InputError) as raised:
            resolver.find(reference)
        assert f"can be {a} or {b}: remove or rename all but one" in str(raised.value)


def test_a_folder_near_the_annotation_decides(resolver: FileResolver, tmp_path: Path) -> None:
    near = [tmp_path / "images/b"], [tmp_path / "images/a"]
    assert resolver.find("001.png", *near) == tmp_path / "images/b/001.png"
    with pytest.raises(InputError, match="can be"):
        resolver.find("001.png", [*near[0], *near[1]])
    assert resolver.find("../a/001.png", near[0]) == tmp_path / "images/a/001.png"


def test_an_existing_file_outside_the_dataset_is_taken_literally(
    resolver: FileResolver, tmp_path: Path
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside" / "p0.png"
    outside.parent.mkdir()
    outside.touch()
    assert resolver.find(str(outside)) == outside
    assert resolver.find(f"../{outside.parent.name}/p0.png", [tmp_path]) == outside
    assert resolver.find(str(tmp_path / "images/p0.png")) == tmp_path / "images/p0.png"


def test_two_readings_of_a_name_are_not_decided_by_a_guess(tmp_path: Path) -> None:
    files = [tmp_path / "a%20b.png", tmp_path / "a b.png"]
    with pytest.raises(InputError, match=r"a%20b\.png or .*a b\.png"):
        FileResolver(tmp_path, files).find("a%20b.png")


def test_a_file_belongs_to_one_annotation(tmp_path: Path) -> None:
    claims = Claims()
    claims.add(tmp_path / "a.png", "line 1")
    claims.add(tmp_path / "a.png", "line 1")
    with pytest.raises(InputError, match=r"a\.png: belongs to line 1 and to line 2: keep one"):
        claims.add(tmp_path / "a.png", "line 2")
    assert tmp_path / "a.png" in claims
    assert tmp_path / "b.png" not in claims
