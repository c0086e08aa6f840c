"""Write the tables of docs/ablation.md from the results in docs/ablation/.

    python benchmarks/ablation_table.py

Each .json there is the result of one run: its command, and the scores of its last epoch on val.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "ablation.md"
BEGIN, END = "<!-- results -->\n", "<!-- end -->\n"


def load_results() -> list[dict[str, Any]]:
    """Return all results, the best first within each dataset."""
    results = [json.loads(path.read_text()) for path in (DOCS / "ablation").glob("*.json")]
    return sorted(results, key=lambda r: (r["data"], -r["last"]["mean_iou"], r["name"]))


def tables(results: list[dict[str, Any]]) -> str:
    """Return a table for each dataset, in Markdown."""
    lines: list[str] = []
    for data in dict.fromkeys(result["data"] for result in results):
        rows = [result for result in results if result["data"] == data]
        classes = list(rows[0]["last"]["classes"])
        lines += ["", f"## {data}", ""]
        lines += [
            "| run | epoch | mIoU | " + " | ".join(classes) + " |",
            "|---" * (len(classes) + 3) + "|",
        ]
        for result in rows:
            scores = result["last"]
            values = [scores["mean_iou"], *(scores["classes"][name]["iou"] for name in classes)]
            shown = " | ".join(f"{100 * value:.1f}" for value in values)
            epoch = f"{scores['epoch']} of {result['epochs']}"
            lines.append(f"| {result['name']} | {epoch} | {shown} |")
        lines += ["", f"Processor: {rows[0]['processor']}. The commands:", ""]
        lines += [f"- {result['name']}: `{result['command']}`" for result in rows]
    return "\n".join(lines) + "\n"


def render(page: str, results: list[dict[str, Any]]) -> str:
    """Return the page with the tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables(results) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(), load_results()))
