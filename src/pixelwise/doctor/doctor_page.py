"""Write a diagnosis as one HTML file: findings with images, suggested settings, and facts.

Like the report of a run, the page loads nothing from the network, and all text is escaped.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pixelwise import pages
from pixelwise.doctor.block_maps import draw_block_maps
from pixelwise.doctor.diagnosis import Diagnosis, Severity
from pixelwise.doctor.finding_images import FindingImages
from pixelwise.errors import shown

CASES = 3
"""Findings per kind that are shown with images."""
LISTED = 200
"""Further findings per kind that are listed; the JSON has all of them."""


def write_page(path: Path, diagnosis: Diagnosis, *, title: str | None = None) -> None:
    """Write the page to `path`, atomically. Raises InputError if that fails."""
    facts = diagnosis.facts
    pages.write_page(
        path,
        package="pixelwise.doctor",
        title=title or diagnosis.root.resolve().name,
        verdict=diagnosis.verdict,
        tone=_tone(diagnosis),
        counts=[(severity.value, diagnosis.count(severity)) for severity in Severity],
        images=sum(facts.pairs.values()),
        groups=_groups(diagnosis),
        suggestions=diagnosis.suggestions,
        command=" ".join(
            [
                "pixelwise train",
                shlex.quote(shown(str(diagnosis.root))),
                *(s.flag for s in diagnosis.suggestions),
            ]
        ),
        splits=list(facts.pairs),
        classes=facts.classes,
        widest=max((max(row.share.values(), default=0) for row in facts.classes), default=0),
        colors=[pages.css_color(row.color) for row in facts.classes],
        facts=fact_lines(diagnosis),
        maps=draw_block_maps(diagnosis.scan),
    )


def _tone(diagnosis: Diagnosis) -> str:
    for severity in (Severity.ERROR, Severity.WARNING):
        if diagnosis.count(severity):
            return severity.value
    return "fine"


def _groups(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Return each kind with its first findings and their images, and the others as lines."""
    finding_images = FindingImages(diagnosis.scan)
    groups = []
    for kind, severity, findings in diagnosis.by_kind():
        shown, rest = findings[:CASES], findings[CASES:]
        remedies = list(dict.fromkeys(finding.remedy for finding in shown))
        groups.append(
            {
                "id": kind.id,
                "title": kind.title,
                "severity": severity.value,
                "count": len(findings),
                "stops": any(finding.stops for finding in findings),
                "cases": [
                    {
                        "name": finding.subject(diagnosis.root),
                        "message": finding.message,
                        "images": finding_images.images(finding),
                        "remedy": finding.remedy if len(remedies) > 1 else "",
                    }
                    for finding in shown
                ],
                "rest": [(f.subject(diagnosis.root), f.message) for f in rest[:LISTED]],
                "unlisted": max(0, len(rest) - LISTED),
                "remedy": remedies[0] if len(remedies) == 1 else "",
            }
        )
    return groups


def fact_lines(diagnosis: Diagnosis) -> dict[str, str]:
    """Return the facts except the classes, as labels and texts."""
    facts = diagnosis.facts
    sizes = [f"{count} of {width}x{height}" for (height, width), count in facts.sizes[:5]]
    if len(facts.sizes) > 5:
        sizes.append(f"and {len(facts.sizes) - 5} more")
    lines = {
        "layout": facts.layout,
        "pairs": ", ".join(f"{count} {split}" for split, count in facts.pairs.items()),
        "image sizes": ", ".join(sizes),
        "images": facts.image_format,
    }
    if facts.mean is not None and facts.std is not None:
        rgb = len(facts.mean) == 3
        lines["mean of R, G, B" if rgb else "mean of the channels"] = ", ".join(
            f"{value:.1f}" for value in facts.mean
        )
        lines["std"] = ", ".join(f"{value:.1f}" for value in facts.std)
    if any(facts.ignored.values()):
        lines["ignored pixels"] = ", ".join(
            f"{pages.percent(share)} of {split}" for split, share in facts.ignored.items()
        )
    if facts.notes:
        lines["notes"] = "; ".join(facts.notes)
    return lines
