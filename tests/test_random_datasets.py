"""Random datasets of every layout are read as they were written, or refused."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from pixelwise.data import layouts
from pixelwise.data.convert_dataset import convert_data
from random_datasets import LAYOUTS, make_dataset, misread

FEW, MANY = 80, 2000


def check(folder: Path, seeds: range) -> Counter[str]:
    """Read the datasets of `seeds`; returns the number of datasets that were read or refused."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        dataset = make_dataset(folder / str(seed), seed)
        wrong, refused = misread(dataset)
        if not seed % 5 and not wrong and refused is None:
            convert_data(dataset.root, folder / f"converted{seed}", overwrite=True)
            wrong, refused = misread(dataset, folder / f"converted{seed}")
            assert refused is None, (seed, dataset.layout, refused)
        assert not wrong, (seed, dataset.layout, dataset.faults, wrong)
        if refused is None:
            outcomes["read"] += 1
        else:
            assert refused.problems
            assert all("\n" not in line for line in refused.problems)
            outcomes["refused"] += 1
            # A clean dataset must be opened.
            assert dataset.faults, (seed, dataset.layout, refused.problems)
        shutil.rmtree(dataset.root)
    return outcomes


def test_every_layout_is_drawn() -> None:
    names = {layout.__name__.rpartition(".")[2].replace("_", "-") for layout in layouts.LAYOUTS}
    # test_annotation_writing.py writes random masks as GeoJSON and reads them.
    assert names <= set(LAYOUTS) | {"structure", "geojson"}


def test_random_datasets_are_read_as_written_or_refused(tmp_path: Path) -> None:
    outcomes = check(tmp_path, range(FEW))
    assert outcomes["read"] > FEW // 2


@pytest.mark.slow
def test_two_thousand_random_datasets_are_read_as_written_or_refused(tmp_path: Path) -> None:
    outcomes = check(tmp_path, range(FEW, FEW + MANY))
    assert outcomes["read"] > MANY // 2
