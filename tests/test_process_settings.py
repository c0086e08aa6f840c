"""Process settings: the program changes them, the library does not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pixelwise import process_settings


def run(code: str, **variables: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    for name in ("LD_PRELOAD", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        clean.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ASK = "from pixelwise.process_settings import tune_allocator; print(tune_allocator())"

# Page faults of the second of two allocations of 64 MB: almost none if freed memory is kept.
FAULTS = """
import resource
{first}
import numpy as np
np.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


@glibc
def test_tuning_the_allocator_keeps_freed_memory() -> None:
    assert "mallopt" in run(ASK)
    faults = int(
        run(
            FAULTS.format(
                first="from pixelwise.process_settings import tune_allocator; tune_allocator()"
            )
        )
    )
    assert faults < 100


@glibc
@pytest.mark.parametrize(
    "variables", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=3"}]
)
def test_variables_that_the_user_has_set_take_precedence(variables: dict[str, str]) -> None:
    assert run(ASK, **variables) == "None"


def test_importing_the_package_changes_no_setting_and_imports_no_torch() -> None:
    code = "import sys, pixelwise; print('torch' in sys.modules, 'ctypes' in sys.modules)"
    assert run(code) == "False False"


SPINS = """
import os, sys
from pixelwise.process_settings import limit_omp_spin
limit_omp_spin()
print(os.environ.get("GOMP_SPINCOUNT"), 'torch' in sys.modules)
"""


def test_omp_spin_is_limited_before_torch_is_imported_unless_the_user_set_it() -> None:
    assert run(SPINS, GOMP_SPINCOUNT="77") == "77 False"
    assert run(SPINS, OMP_WAIT_POLICY="active") == "None False"
    assert run(SPINS) == "10000 False"


def test_the_command_limits_omp_spin() -> None:
    code = "import os, sys; from pixelwise.cli import main; sys.argv = ['pixelwise', '--version']\n"
    code += "try: main()\nexcept SystemExit: print(os.environ['GOMP_SPINCOUNT'])"
    assert run(code).splitlines()[-1] == "10000"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/docker/a\n", {"docker/a/cpu.max": "max 100000", "docker/cpu.max": "50000 100000"}, 1),
        ("0::/docker/a\n", {"cpu.max": "300000 100000"}, 3),  # seen from inside the container
        ("1:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "100000"}, 1),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1"}, 8),
        ("1:memory:/\n", {"cpu/cpu.cfs_quota_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "9000000 100000"}, 8),
        ("0::/\n", {"cpu.max": "damaged"}, 8),
        ("0::/\n", {}, 8),
    ],
)
def test_cores_are_counted_within_the_quota_of_control_groups(
    own: str, files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        (path.parent / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(process_settings, "_CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(process_settings, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(process_settings, "_affinity", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert process_settings.cores() == expected
    assert process_settings.thread_limit() == (expected if expected < 8 else 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process_settings.limit_threads()
    assert os.environ.pop("OMP_NUM_THREADS", None) == (str(expected) if expected < 8 else None)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    process_settings.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_cores_are_counted_within_the_affinity_of_the_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pixelwise.process_settings import cores, thread_limit; print(cores(), thread_limit())"
    )
    assert run(code) == ("1 1" if (os.cpu_count() or 1) > 1 else "1 0")


NO_ACCOUNT = """
import os, pwd
from pixelwise.process_settings import without_telemetry

def no_account(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = no_account
del os.environ["HOME"]
with without_telemetry(), without_telemetry():
    import %s
print("HOME" in os.environ)
"""


@pytest.mark.parametrize("package", ["openvino", pytest.param("nncf", marks=pytest.mark.slow)])
def test_runtimes_are_imported_without_a_home_folder(package: str) -> None:
    assert run(NO_ACCOUNT % package, CI="") == "False"
