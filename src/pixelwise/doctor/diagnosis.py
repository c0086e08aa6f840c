"""What the doctor says: findings of a kind, facts, suggestions, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pixelwise.doctor.dataset_scan import DatasetScan


class Severity(StrEnum):
    """error: it cannot be right. warning: it may cost accuracy or trust. note: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Kind:
    """A sort of finding.

    id: for programs, as `size-mismatch`; it stays the same from version to version.
    title: for people, as a heading over all of its findings.
    stops: whether `train` refuses a folder with an error of this kind.
    by_example: whether the files of its findings only show what the sentence says of a class.
    """

    id: str
    severity: Severity
    title: str
    stops: bool = False
    by_example: bool = False

    def found(
        self,
        files: Sequence[Path],
        sentence: str,
        *,
        remedy: str,
        severity: Severity | None = None,
        stops: bool | None = None,
    ) -> Finding:
        """One case of it. `severity` and `stops` where this case differs from the kind."""
        return Finding(
            self,
            severity or self.severity,
            tuple(files),
            sentence,
            remedy,
            self.stops if stops is None else stops,
        )


def stopping(id: str, title: str) -> Kind:
    """A kind of error that `train` refuses."""
    return Kind(id, Severity.ERROR, title, stops=True)


@dataclass(frozen=True)
class Finding:
    """One fault.

    files: what it is about, the one to mend first; may be empty where it is about the whole.
    sentence: what is wrong, without the name of the file. remedy: what to do, with flag or command.
    stops: whether `train` refuses the folder because of it.
    """

    kind: Kind
    severity: Severity
    files: tuple[Path, ...]
    sentence: str
    remedy: str
    stops: bool

    def subject(self, root: Path) -> str:
        """The file that the sentence is about, as it is shown before it; may be empty."""
        if not self.files or self.kind.by_example:
            return ""
        return relative(self.files[0], root)

    def to_json(self, root: Path) -> dict[str, Any]:
        return {
            "kind": self.kind.id,
            "severity": self.severity.value,
            "stops_training": self.stops,
            "files": [relative(path, root) for path in self.files],
            "message": self.sentence,
            "remedy": self.remedy,
        }


def relative(path: Path, root: Path) -> str:
    """`path` below `root` with slashes, as it is shown everywhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class ClassFacts:
    """One class. By split: `pixels`, its `share` of them (0..1), and the `images` it is in.

    objects: connected parts of more than SPECK pixels, over all splits. `smallest`, `small` and
    `typical` are areas in pixels: of the least of them, and those up to which objects hold 5 % and
    half of the class's pixels.
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
    """What the folder holds, of the files that could be read.

    sizes: (height, width) to the number of images, most frequent first.
    images: how many channels of what, in words.
    mean, std: of the images' channels, R, G, B first, in units of 0..255, over all pixels.
    """

    layout: str
    pictures: str
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


@dataclass(frozen=True)
class Diagnosis:
    """All of it; findings with the errors first, then by kind and file.

    survey: what was seen, for those who want to show it.
    """

    root: Path
    findings: list[Finding]
    facts: Facts
    suggestions: list[Suggestion]
    scan: DatasetScan = field(repr=False)

    @property
    def trains(self) -> bool:
        """Whether `train` takes the folder."""
        return not any(finding.stops for finding in self.findings)

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        errors, warnings = self.count(Severity.ERROR), self.count(Severity.WARNING)
        if not self.trains:
            stopping = sum(finding.stops for finding in self.findings)
            return f"Training would fail: {_number(stopping, 'fault')} must be mended first."
        if errors:
            return (
                f"Training would run, and learn something wrong: {_number(errors, 'error')}, "
                f"{_number(warnings, 'warning')}."
            )
        if warnings:
            return f"Ready to train, with {_number(warnings, 'warning')} worth a look."
        return "Ready to train: nothing wrong was found."

    def by_kind(self) -> list[tuple[Kind, Severity, list[Finding]]]:
        """The findings in groups of one kind and severity, in order."""
        groups: dict[tuple[Kind, Severity], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.kind, finding.severity), []).append(finding)
        return [(kind, severity, found) for (kind, severity), found in groups.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the same folder gives the same text, wherever it lies but for `data`."""
        facts = asdict(self.facts)
        facts["sizes"] = [
            {"height": height, "width": width, "images": count}
            for (height, width), count in self.facts.sizes
        ]
        return {
            "data": str(self.root),
            "verdict": self.verdict,
            "trains": self.trains,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "findings": [finding.to_json(self.root) for finding in self.findings],
            "facts": facts,
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
