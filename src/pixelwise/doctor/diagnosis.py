"""The doctor's result: findings, facts, suggestions and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pixelwise.doctor.pair_inspection import Scan
from pixelwise.errors import shown


class Severity(StrEnum):
    """Error: the data is wrong. Warning: it may cost accuracy. Note: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        id: For programs, such as `size-mismatch`; stable between versions.
        severity: Severity of its findings, unless they set another.
        title: Heading above its findings.
        stops: Whether `train` refuses a dataset with such a finding.
        by_example: Whether the files are only examples for a statement about a class.
    """

    id: str
    severity: Severity
    title: str
    stops: bool = False
    by_example: bool = False

    def found(
        self,
        files: Sequence[Path],
        message: str,
        *,
        remedy: str,
        severity: Severity | None = None,
        stops: bool | None = None,
    ) -> Finding:
        """Create a finding; `severity` and `stops` override the kind's."""
        return Finding(
            self,
            severity or self.severity,
            tuple(files),
            shown(message),
            shown(remedy),
            self.stops if stops is None else stops,
        )


def stopping(id: str, title: str) -> Kind:
    """Create a kind of error that `train` refuses."""
    return Kind(id, Severity.ERROR, title, stops=True)


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        files: Affected files, the one to fix first; empty for the dataset as a whole.
        message: What is wrong, without the name of the file.
        remedy: What to do, with the flag or command.
        stops: Whether `train` refuses the dataset because of it.
    """

    kind: Kind
    severity: Severity
    files: tuple[Path, ...]
    message: str
    remedy: str
    stops: bool

    def subject(self, root: Path) -> str:
        """Return the file that the message is about, relative to `root`; may be empty."""
        if not self.files or self.kind.by_example:
            return ""
        return relative(self.files[0], root)

    def to_json(self, root: Path) -> dict[str, Any]:
        return {
            "kind": self.kind.id,
            "severity": self.severity.value,
            "stops_training": self.stops,
            "files": [relative(path, root) for path in self.files],
            "message": self.message,
            "remedy": self.remedy,
        }


def relative(path: Path, root: Path) -> str:
    """Return `path` relative to `root` with slashes, as it is shown everywhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class ClassFacts:
    """One class.

    Attributes:
        pixels: Number of pixels by split.
        share: Share of the pixels that are not ignored by split, 0..1.
        images: Number of images with the class by split.
        objects: Connected components of more than SPECK pixels, over all splits.
        smallest: Area of the smallest object in pixels.
        small: Area up to which objects hold 5 % of the pixels of the class.
        typical: Area up to which objects hold half of the pixels of the class.
    """

    name: str
    color: tuple[int, int, int]
    pixels: dict[str, int]
    share: dict[str, float]
    images: dict[str, int]
    objects: int
    smallest: int | None
    small: int | None
    typical: int | None


@dataclass(frozen=True)
class Facts:
    """What the dataset holds, over the files that can be read.

    Attributes:
        layout: Name of the layout.
        image_format: Channels, type and value range of the images, in words.
        pairs: Number of pairs by split.
        sizes: (height, width) and the number of such images, most frequent first.
        mean: Of each channel over all pixels, in units of 0..255.
        std: Of each channel over all pixels, in units of 0..255.
        ignored: Share of ignored pixels by split, 0..1.
        notes: What was found and assumed.
    """

    layout: str
    image_format: str
    pairs: dict[str, int]
    sizes: list[tuple[tuple[int, int], int]]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    classes: list[ClassFacts]
    ignored: dict[str, float]
    notes: list[str]


@dataclass(frozen=True)
class Suggestion:
    """A setting for `train`: the recipe's `key`, its `value`, the `flag` that sets it, and why."""

    key: str
    value: Any
    flag: str
    reason: str


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The result of `examine`.

    Attributes:
        root: The dataset.
        findings: Sorted by severity, kind and file.
        facts: What the dataset holds.
        suggestions: Settings for training.
        scan: The reports on all pairs.
    """

    root: Path
    findings: list[Finding]
    facts: Facts
    suggestions: list[Suggestion]
    scan: Scan

    def __repr__(self) -> str:
        counts = ", ".join(_count(self.count(severity), severity.value) for severity in Severity)
        return f"Diagnosis({str(self.root)!r}, {counts}: {self.verdict})"

    @property
    def trains(self) -> bool:
        """Whether `train` accepts the dataset."""
        return not any(finding.stops for finding in self.findings)

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        errors, warnings = self.count(Severity.ERROR), self.count(Severity.WARNING)
        if not self.trains:
            stopping = sum(finding.stops for finding in self.findings)
            return f"Training would fail: fix {_count(stopping, 'problem')} first."
        if errors:
            return (
                f"Training would run, but the dataset has {_count(errors, 'error')} and "
                f"{_count(warnings, 'warning')}."
            )
        if warnings:
            return f"Ready to train, with {_count(warnings, 'warning')} to check."
        return "Ready to train: no problems found."

    def by_kind(self) -> list[tuple[Kind, Severity, list[Finding]]]:
        """Group the findings by kind and severity, in order."""
        groups: dict[tuple[Kind, Severity], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.kind, finding.severity), []).append(finding)
        return [(kind, severity, found) for (kind, severity), found in groups.items()]

    def to_json(self) -> dict[str, Any]:
        """Return plain values. Only `data` depends on where the folder is."""
        facts = asdict(self.facts)
        facts["sizes"] = [
            {"height": height, "width": width, "images": count}
            for (height, width), count in self.facts.sizes
        ]
        return {
            "data": shown(str(self.root)),
            "verdict": self.verdict,
            "trains": self.trains,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "findings": [finding.to_json(self.root) for finding in self.findings],
            "facts": facts,
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
