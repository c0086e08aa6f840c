"""`pixelwise benchmark`: every available runtime next to eager PyTorch, with consistent figures."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fixture_types import Cli
from networks import write_bundle
from pixelwise.benchmark import Measurement, benchmark, runtime_benchmark
from pixelwise.benchmark.runtime_benchmark import REFERENCE, available_runtimes
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.peak_memory import peak_memory

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that the scripts in benchmarks/ share, without failures."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("harness")
    monkeypatch.setattr(module, "failures", {})
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "net.safetensors"
    return write_bundle(path, "deeplab_v3plus", Classes.make(["a", "b", "c"]), backbone="tiny")


def test_the_command_measures_torch_next_to_eager(bundle: Path) -> None:
    arguments = ["--size", "48x64", "--rounds", "1", "--seconds", "0", "--json", "-"]
    command = [sys.executable, "-m", "pixelwise", "benchmark", str(bundle), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    eager, ours = json.loads(done.stdout)["measurements"]
    assert (eager["runtime"], ours["runtime"]) == (REFERENCE, "torch")
    assert eager["times as fast as eager"] == 1
    assert ours["labels equal to eager"] == 1
    assert ours["size"] == [48, 64]
    assert ours["images per second"] == pytest.approx(1000 / ours["milliseconds"], rel=1e-3)
    assert 0 < ours["not the network"] < 1
    assert 50e6 < ours["peak bytes"] < 8e9


def test_sizes_and_bundles_that_cannot_be_measured_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    assert available_runtimes(bundle) == ["torch"]
    with pytest.raises(InputError, match="at least 16 pixels"):
        benchmark(bundle, sizes=[(8, 64)])
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        benchmark(tmp_path / "x.safetensors", sizes=[(48, 64)])
    content = bundle.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PixelwiseError, match="cannot run it"):
        benchmark(damaged, sizes=[(48, 64)], rounds=1, seconds=0)


def test_peak_memory_excludes_the_parent_process() -> None:
    held = np.ones(600 << 20, np.uint8)  # must not count for the child
    code = "from pixelwise.peak_memory import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert held.any()
    assert int(done.stdout) < 500e6
    assert (peak_memory() or 0) > 600e6


# --- The scripts in benchmarks/


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import harness

def works():
    return lambda: None, 1

def fails():
    print("the reason", file=sys.stderr)
    raise ModuleNotFoundError("No module named 'peer'")

harness.main(
    "Variants", {{"broken": fails, "good": works}}, units=1,
    peers={{"peer": ["-c", "import no_such_peer"]}},
)
with harness.attempt("step"):
    raise ValueError("a step")
harness.finish()
"""


def test_a_variant_that_fails_does_not_discard_the_others(tmp_path: Path) -> None:
    script = tmp_path / "variants.py"
    script.write_text(SCRIPT.format(folder=str(BENCHMARKS)))
    command = [sys.executable, str(script), "--repeats", "2", "--peer", sys.executable]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert rows["broken"].split() == ["broken", "failed"]
    assert rows["peer"].split() == ["peer", "failed"]
    assert float(rows["good"].split()[1]) > 0
    assert "broken: FAILED: exit code 1\n" in done.stderr
    assert "the reason" in done.stderr
    assert "No module named 'no_such_peer'" in done.stderr
    assert "ValueError: a step" in done.stderr
    assert done.stderr.count("1/2 broken") == 1
    assert "2/2 broken" not in done.stderr  # it is not tried again
    assert done.stderr.count("2/2 good") == 1


def test_an_interpreter_that_is_missing_is_named(harness: ModuleType) -> None:
    with pytest.raises(harness.CommandError, match="no-such-python: cannot be started"):
        harness.run(["no-such-python", "-c", ""])


def test_a_refused_export_does_not_discard_the_other_runtimes(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes = importlib.import_module("runtimes")
    row = Measurement("openvino", (360, 480), 4.5, 4.0, None, 1.0, 2.0, None)

    def export(path: Path, *, to: str, int8: bool = False, **_: object) -> None:
        if int8:
            raise PixelwiseError("net: int8 loses too much")

    def measure(path: Path, *, failed: dict[str, str], **_: object) -> list[Measurement]:
        failed["onnx"] = "net: onnx cannot run it (no memory)"
        return [row]

    monkeypatch.setattr(runtimes, "export", export)
    monkeypatch.setattr(runtimes, "benchmark", measure)
    monkeypatch.setattr(sys, "argv", ["runtimes.py", "--network", "v3plus"])
    with pytest.raises(SystemExit):
        runtimes.main()
    out, err = capsys.readouterr()
    assert re.search(r"openvino +4\.5 +2\.00", out)
    assert "v3plus: export to openvino int8: FAILED: net: int8 loses too much" in err
    assert "v3plus: onnx: FAILED: net: onnx cannot run it (no memory)" in err
    assert "Traceback" not in err


def test_a_runtime_that_fails_does_not_discard_the_others(
    bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(request: dict[str, Any]) -> dict[str, Any]:
        if request["runtime"] == "onnx":
            raise PixelwiseError("net: onnx cannot run it (no memory)")
        np.save(request["labels"], np.zeros(request["size"], np.uint8))
        return {"times": [2.0, 3.0], "file_time": None, "peak": None}

    monkeypatch.setattr(runtime_benchmark, "_run_worker", run)
    monkeypatch.setattr(runtime_benchmark, "available_runtimes", lambda path: ["torch", "onnx"])
    options = ("--size", "48x64", "--rounds", "2", "--seconds", "0", "--json", "-")
    result = cli("benchmark", bundle, *options)
    assert result.code == 1
    assert [row["runtime"] for row in json.loads(result.out)["measurements"]] == [
        REFERENCE,
        "torch",
    ]
    assert result.err == "pixelwise: error: net: onnx cannot run it (no memory)\n"
    with pytest.raises(PixelwiseError, match="no memory"):
        benchmark(bundle, sizes=[(48, 64)], rounds=1, seconds=0)
