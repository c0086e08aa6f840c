"""The layout shows the architecture: imports run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pixelwise

SOURCE = Path(pixelwise.__file__).parent

# Each part may import those of a lower rank, and itself.
RANK = {
    "errors": 0,
    "file_io": 1,
    "interrupts": 1,
    "peak_memory": 1,
    "process_settings": 1,
    "recipes": 1,
    "ops": 2,
    "distributed": 3,
    "crf": 3,
    "data": 3,
    "pages": 4,
    "planning": 4,
    "doctor": 5,
    "layers": 4,
    "backbones": 5,
    "models": 6,
    "weights": 7,
    "inference": 8,
    "evaluation": 9,
    "training": 10,
    "exporters": 10,
    "benchmark": 10,
    "report": 11,
    "cli": 12,
    "__main__": 13,
}


def imported_parts(path: Path) -> set[str]:
    """The first name below pixelwise of every import in a file, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            modules = [node.module or ""]
            if node.module == "pixelwise":
                modules = [f"pixelwise.{alias.name}" for alias in node.names]
        found |= {m.split(".")[1] for m in modules if m.startswith("pixelwise.")}
    return found - {"__version__"}


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part == "__init__":  # the package itself offers what lies above
            continue
        wrong += [
            f"{path.relative_to(SOURCE)} imports {other}"
            for other in imported_parts(path)
            if other != part and RANK[other] >= RANK[part]
        ]
    assert wrong == []


def test_data_and_doctor_are_free_of_torch() -> None:
    for part in ("data", "planning", "doctor", "recipes"):
        for path in (SOURCE / part).rglob("*.py"):
            assert "import torch" not in path.read_text(encoding="utf-8"), path
