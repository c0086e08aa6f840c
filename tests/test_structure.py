"""The folders are layers: imports run one way, and the lower layers work without PyTorch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pixelwise

SOURCE = Path(pixelwise.__file__).parent

# Each module or package may import itself and those of a lower rank.
RANK = {
    "errors": 0,
    "file_io": 1,
    "folder_lock": 2,
    "overwriting": 2,
    "interrupts": 1,
    "process_settings": 1,
    "peak_memory": 1,
    "processor": 1,
    "progress": 1,
    "worker_start": 1,
    "recipes": 1,
    "ops": 2,
    "distributed": 3,
    "crf": 3,
    "data": 3,
    "pages": 4,
    "planning": 4,
    "doctor": 5,
    "regions": 5,
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
    "study": 11,
    "client": 11,
    "api": 12,
    "serve": 12,
    "cli": 13,
    "__main__": 14,
}
TORCH_FREE = ("data", "planning", "doctor", "recipes", "pages", "regions")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> set[str]:
    """Return the full names of all imported modules, including imports inside functions."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            assert node.module is not None
            if node.module == "pixelwise":
                found |= {f"pixelwise.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if layer == "__init__":  # the package offers names of all layers
            continue
        modules = {m for m in imported_modules(path) if m.startswith("pixelwise.")}
        others = {module.split(".")[1] for module in modules} - {"__version__", layer}
        wrong += [
            f"{path.relative_to(SOURCE)} imports {other}"
            for other in others
            if RANK[other] >= RANK[layer]
        ]
    assert wrong == []


def test_every_module_has_a_rank() -> None:
    layers = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.suffix in {"", ".py"}}
    assert layers - {"__init__", "__pycache__"} == {*RANK}


@pytest.mark.parametrize("layer", TORCH_FREE)
def test_lower_layers_do_not_import_torch(layer: str) -> None:
    for path in (SOURCE / layer).rglob("*.py"):
        imported = {module.partition(".")[0] for module in imported_modules(path)}
        assert not imported & {"torch", "lightning_fabric"}, path


def test_no_function_is_longer_than_60_lines() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                statements = node.body[1:] if ast.get_docstring(node) else node.body
                first = statements[0].lineno if statements else node.lineno
                if (node.end_lineno or 0) - first + 1 > 60:
                    wrong.append(f"{path.relative_to(SOURCE)}: {node.name}")
    assert wrong == []
