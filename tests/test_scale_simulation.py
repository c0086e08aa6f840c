"""The simulation of a billion images agrees with what can be computed without it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

NEVER = 1e15


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/scale.py"
    spec = importlib.util.spec_from_file_location("scale", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # which dataclasses look up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["simulate_queue", "simulate_parts"])
def test_without_failures_equal_workers_take_the_ideal_time(scale: ModuleType, kind: str) -> None:
    job = scale.Job(100_000, 20, rate=10.0, spread=0, overhead=3.0)
    outcome = getattr(scale, kind)(job, 500, NEVER, 0)
    assert outcome.seconds == pytest.approx(job.ideal + 10 * 3.0)  # ten shards each
    assert outcome.failures == 0
    assert outcome.lost == 0


@pytest.mark.parametrize("kind", ["simulate_queue", "simulate_parts"])
def test_failures_occur_at_the_stated_rate_and_cost_what_theory_says(
    scale: ModuleType, kind: str
) -> None:
    job = scale.Job(20_000_000, 200, rate=10.0, spread=0, overhead=1.0, restart=60.0)
    mean_time = 2000.0
    outcome = getattr(scale, kind)(job, 1000, mean_time, 1)
    busy = outcome.seconds * job.workers
    idle = 0.05 if kind == "simulate_queue" else 0.15  # with fixed parts, the last worker decides
    assert outcome.failures == pytest.approx(busy / (mean_time + job.restart), rel=idle)
    # The part of a shard that was done when the worker failed, on average, and the restart.
    duration = 101.0
    done = mean_time - duration / np.expm1(duration / mean_time)
    assert outcome.lost * busy / outcome.failures == pytest.approx(done + job.restart, rel=0.05)
    assert outcome == getattr(scale, kind)(job, 1000, mean_time, 1)
    assert outcome != getattr(scale, kind)(job, 1000, mean_time, 2)


def test_youngs_formula_is_close_to_the_best_size(scale: ModuleType) -> None:
    job = scale.Job(50_000_000, 100, rate=25.0, spread=0.1, overhead=5.0)
    best = scale.best_size(job, 7200.0)
    times = [scale.simulate_queue(job, round(best * f), 7200.0, 0).seconds for f in (0.1, 1, 10)]
    assert times[1] == min(times)
