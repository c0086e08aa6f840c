"""The listing of folders: hidden files, links and folders that cannot be listed."""

import os
from pathlib import Path

import pytest

from pixelwise.data.folder_listing import (
    first_names,
    list_entries,
    list_files,
    list_folders,
    walk_files,
    walk_folders,
)
from pixelwise.errors import InputError

NOT_DATA = ["._a.png", ".DS_Store", ".hidden.png", "Thumbs.db", "thumbs.DB", "desktop.ini"]
NOT_DATA_FOLDERS = [".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir", "#recycle"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.png, b.PNG, c.txt and sub/d.png among files that are not data."""
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.PNG", "c.txt", "sub/d.png", *NOT_DATA):
        (tmp_path / name).touch()
    for name in NOT_DATA_FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "e.png").touch()
    return tmp_path


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_and_folders_that_are_not_data_are_left_out(folder: Path) -> None:
    assert names(folder, list_entries(folder)) == ["a.png", "b.PNG", "c.txt", "sub"]
    assert names(folder, list_files(folder)) == ["a.png", "b.PNG", "c.txt"]
    assert names(folder, list_folders(folder)) == ["sub"]
    assert names(folder, list(walk_folders(folder))) == [".", "sub"]
    assert sorted(first_names(folder, {".png"}, None)) == ["a.png", "b.PNG"]


def test_suffixes_match_in_any_letter_case(folder: Path) -> None:
    assert names(folder, list_files(folder, {".png"})) == ["a.png", "b.PNG"]
    assert names(folder, list(walk_files(folder, {".png"}))) == ["a.png", "b.PNG", "sub/d.png"]


def test_a_link_to_a_missing_file_is_listed_and_one_to_a_folder_is_not(folder: Path) -> None:
    (folder / "broken.png").symlink_to("missing.png")
    (folder / "link.png").symlink_to("sub")
    assert names(folder, list_files(folder, {".png"})) == ["a.png", "b.PNG", "broken.png"]


def test_links_to_folders_are_followed_once(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "twice").symlink_to(folder / "sub")
    assert names(folder, list(walk_folders(folder))) == [".", "sub"]


def test_pipes_are_not_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert names(folder, list_files(folder, {".png"})) == ["a.png", "b.PNG"]
    assert "pipe.png" in names(folder, list_entries(folder))


def test_a_folder_that_cannot_be_listed_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"c\.txt: cannot be listed \(Not a directory\): check"):
        list_files(folder / "c.txt")
    assert first_names(folder / "missing", {".png"}, None) == []
