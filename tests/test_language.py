"""The code and the documentation use the terms of the field: retired words must not come back."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each retired word with the term to use. Words are matched within identifiers, too: `image_trail`.
RETIRED = {
    "sightings?": "pair inspection",
    "trails?": "progress",
    "(?:the|of|two|several|more|all|these|many) looks": "TTA views",
    "films": "videos",
    "arrangements?": "kernel selection",
    "enlarge[sd]?|enlarging": "upsample",
    "one_voice": "report_once",
    "first_does": "on_rank_zero",
    "all_do": "on_all_ranks",
    "own_process": "tune_allocator",
    "calm_threads": "limit_omp_spin",
    "knows_parts": "supports_tiling",
    "part_logits": "tile_logits",
    "NarrowHead": "FCNHead",
    "Material": "DatasetStats",
    "anysize": "tiled model",
    "pictures?|photographs?|photographed": "image",
    "(?<!standard )(?<!Standard )deviations?": "std",
    "told": "a direct statement",
    "laid": "put, installed or written",
    "foreign": "imported",
    "surveys?|surveyed": "scan",
    "albums?": "dataset",
    "settle[sd]?|settling": "resolve or choose",
    "traits?": "requirements",
    "(?:scale|view|flip)s?[- ]ensembles?|ensembles? of (?:scales|views|flips|crops)": "TTA",
    "tall(?:y|ies)": "counts",
    "colours?|coloured|colouring": "color",
    "greys?": "gray",
    "neighbours?|neighbouring": "neighbor",
    "behaviours?": "behavior",
    "normalis\\w*": "normaliz-",
}
# Words with a meaning of their own elsewhere are retired only in some folders.
RETIRED_IN = {
    "(?:a|the|its|own|each|one|process's|rank's|of|equal|larger) shares?": (
        "the images of a process",
        (
            "src/pixelwise/distributed",
            "src/pixelwise/layers",
            "src/pixelwise/training",
            "tests/test_distributed.py",
        ),
    ),
    "windows?": ("tile", ("src/pixelwise/inference",)),
}
# Files that need retired words: they read keys that version 0.1 wrote, describe the renaming, or
# mean the window of a raster or of a convolution.
BRITISH = {"colours?|coloured|colouring", "normalis\\w*"}
ALLOWED = {
    "CHANGELOG.md": {*RETIRED},
    "src/pixelwise/data/classes.py": BRITISH,
    "src/pixelwise/inference/batch/tiff_source.py": {"windows?"},
    "src/pixelwise/inference/runtimes/torch/simplify/matrix_product_conv.py": {"windows?"},
    "src/pixelwise/weights/bundle.py": BRITISH,
    "src/pixelwise/weights/published/catalog.toml": {"pictures?|photographs?|photographed"},
    "tests/test_bundle.py": BRITISH,
    "tests/test_classes.py": BRITISH,
    "tests/test_language.py": {*RETIRED, *RETIRED_IN},
}


@cache
def read_lines() -> dict[str, list[str]]:
    """The lines of every text file, by the file's name relative to the root."""
    folders = [ROOT / name for name in ("src", "docs", "tests", "examples", "benchmarks")]
    found = [path for folder in folders for path in folder.rglob("*")]
    found += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    suffixes = {".py", ".md", ".toml", ".j2", ".ipynb", ".txt", ""}
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").splitlines()
        for path in sorted(found)
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts
    }


def find(pattern: str, folders: tuple[str, ...] = ("",)) -> list[str]:
    """Find a retired word; `folders` are the folders and files to search, relative to the root."""
    # A word ends at anything but a letter, and at a capital within a CamelCase name.
    word = re.compile(rf"(?<![A-Za-z])(?:{pattern})(?![a-z])", flags=re.IGNORECASE)
    found = []
    for name, lines in read_lines().items():
        if not name.startswith(folders) or pattern in ALLOWED.get(name, set()):
            continue
        for number, line in enumerate(lines, start=1):
            found += [f"{name}:{number}: {match.group()}" for match in word.finditer(line)]
    return found


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_does_not_occur(pattern: str) -> None:
    assert find(pattern) == [], f"write {RETIRED[pattern]}"


@pytest.mark.parametrize("pattern", RETIRED_IN)
def test_a_word_retired_in_some_folders_does_not_occur_there(pattern: str) -> None:
    term, folders = RETIRED_IN[pattern]
    assert find(pattern, folders) == [], f"write {term}"
