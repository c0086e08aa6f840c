"""What is wrong with a folder of images and masks, before an epoch is lost on it.

`examine` looks at every pair once (`survey`, `sighting`, `measures`), asks every check (`checks`)
and adds the facts and advice. `page` shows the result as one HTML file.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.dataset import Progress
from pixelwise.doctor.advice import suggestions
from pixelwise.doctor.checks import CHECKS
from pixelwise.doctor.dataset_facts import facts_of
from pixelwise.doctor.dataset_scan import DatasetScan, scan
from pixelwise.doctor.diagnosis import Diagnosis, Finding, Kind, Severity, Suggestion

__all__ = ["Diagnosis", "Finding", "Kind", "Severity", "Suggestion", "diagnose", "examine"]

_ORDER = list(Severity)


def examine(
    root: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Look at every file of `root` and say what is wrong, with the remedy.

    val_fraction, seed: of the draw where the folder has no val, as in training.
    workers: threads; None: one a core. progress: called with (done, total).

    Raises InputError where there is no such folder or none of the known layouts fits; every fault
    of a file is a finding, and the rest is examined.
    """
    return diagnose(
        scan(root, val_fraction=val_fraction, seed=seed, workers=workers, progress=progress)
    )


def diagnose(seen: DatasetScan) -> Diagnosis:
    """All checks on a folder that was looked at."""
    findings = [finding for check in CHECKS for finding in check(seen)]
    place = {kind: number for number, kind in enumerate(dict.fromkeys(f.kind for f in findings))}
    findings.sort(key=lambda f: (_ORDER.index(f.severity), not f.stops, place[f.kind]))
    return Diagnosis(seen.root, findings, facts_of(seen), suggestions(seen), seen)
