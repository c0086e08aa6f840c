"""Find out what is wrong with a dataset before training on it.

`examine` inspects every pair once (`pair_inspection`, `measures`), runs every check (`checks`) and
adds facts and suggestions. `doctor_page` writes the result as one HTML file.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data import layouts
from pixelwise.data.dataset_scan import ProgressCallback, scan_dataset
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.groups import note_divided_groups
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.data.source import Source
from pixelwise.data.splits import draw_validation_split
from pixelwise.doctor.advice import suggest_settings
from pixelwise.doctor.checks import CHECKS
from pixelwise.doctor.dataset_facts import collect_facts
from pixelwise.doctor.diagnosis import Diagnosis, Finding, Kind, Severity, Suggestion
from pixelwise.doctor.pair_inspection import Scan, inspect_pair
from pixelwise.errors import InputError, collect_problems, defer_errors, raise_problems
from pixelwise.storage.mirror import DEFAULT_MIB, local_folder

__all__ = ["Diagnosis", "Finding", "Kind", "Severity", "Suggestion", "diagnose", "examine"]


def examine(
    root: str | Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    spec: DatasetSpec | None = None,
    group_by: str = "",
) -> Diagnosis:
    """Inspect every file of a dataset and report what is wrong, with the remedies.

    Of a dataset in an object store, up to 10 GiB are kept on disk for the training. For the other
    arguments, and for the result, see `pixelwise.examine`.

    Args:
        progress: Called with (done, total) after each pair.
        spec: What the user states about the images and masks in the folder.

    Raises:
        InputError: If there is no such folder, or no layout fits. Problems of files are findings.
        StorageError: If the object store does not send a file.
    """
    suffixes = IMAGE_SUFFIXES | MASK_SUFFIXES
    folder, transfers = local_folder(root, suffixes, limit=DEFAULT_MIB << 20, progress=progress)
    with collect_problems() as layout_problems:
        source = _find_source(folder, spec)
        with defer_errors():
            draw_validation_split(source, val_fraction=val_fraction, seed=seed, group_by=group_by)
            source.notes += note_divided_groups(source.root, source.splits, group_by)
    scan = scan_dataset(source, inspect_pair, workers=workers or transfers, progress=progress)
    scan.layout_problems = layout_problems
    return diagnose(scan)


def _find_source(root: Path, spec: DatasetSpec | None) -> Source:
    """Find the layout; one whose files cannot be read gives an empty source, with its problems."""
    try:
        return layouts.read(root, spec)
    except InputError as error:
        if any(line.startswith((f"{root}: ", "--")) for line in error.problems):
            raise
        raise_problems(error.problems)
    return Source(root, "unreadable", {})


def diagnose(scan: Scan) -> Diagnosis:
    """Run all checks on a scanned dataset."""
    findings = [finding for check in CHECKS for finding in check(scan)]
    severities = list(Severity)
    order = {kind: number for number, kind in enumerate(dict.fromkeys(f.kind for f in findings))}
    findings.sort(key=lambda f: (severities.index(f.severity), not f.stops, order[f.kind]))
    return Diagnosis(scan.root, findings, collect_facts(scan), suggest_settings(scan), scan)
