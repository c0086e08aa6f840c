"""A predictor gives the same results in threads, forks, pickles, copies and any host program."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

import pixelwise
from networks import EXPORTED_CLASSES, randomize
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.runtimes import supports_tiling
from pixelwise.models import create_model
from pixelwise.weights.normalization import IMAGENET

THREADS = 8
RUNTIMES = ("torch", "openvino", "onnx")
IMAGES = np.random.default_rng(0).integers(0, 256, (THREADS, 64, 96, 3), dtype=np.uint8)

METHODS: dict[str, Callable[[Predictor, Any], Any]] = {
    "call": lambda predictor, image: predictor(image).logits,
    "probabilities": lambda predictor, image: predictor(image).probabilities,
    "segment": lambda predictor, image: predictor.segment(image).mask,
    "prepare": lambda predictor, image: predictor.prepare(image),
    "predict_prepared": lambda predictor, image: predictor.predict_prepared(image).mask,
    "segment_prepared": lambda predictor, image: predictor.segment_prepared(image).mask,
    "segment_concurrently": lambda predictor, image: predictor.segment_concurrently(image).mask,
    "logits": lambda predictor, image: predictor.logits(image),
    "refined_logits": lambda predictor, image: predictor.refined_logits(image),
    "predict_labels": lambda predictor, image: predictor.predict_labels(image),
    "stream": lambda predictor, image: next(iter(predictor.stream([image]))).mask,
}


def assert_threads_agree(
    shared: Predictor, alone: Predictor, images: Any, methods: list[str], calls: int
) -> None:
    """Compare `calls` calls of each method in THREADS threads with those of another predictor.

    All threads begin at once: the first call of each method is concurrent, too.
    """
    expected = {name: [METHODS[name](alone, image) for image in images] for name in methods}
    for name, results in expected.items():  # otherwise equal results would prove nothing
        assert not np.array_equal(results[0], results[1]), name
    begin = Barrier(THREADS)

    def work(thread: int) -> None:
        begin.wait()
        for name, number in itertools.product(methods, range(-(-calls // THREADS))):
            index = (thread + number) % len(images)
            found = METHODS[name](shared, images[index])
            np.testing.assert_array_equal(found, expected[name][index], err_msg=name)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, thread) for thread in range(THREADS)]:
            done.result()


def load_twice(path: Path, **options: Any) -> tuple[Predictor, Predictor]:
    one, other = (pixelwise.load(path, **options) for _ in range(2))
    return one, other


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_predictor(exported: Path, runtime: str) -> None:
    shared, alone = load_twice(exported, runtime=runtime)
    assert_threads_agree(shared, alone, IMAGES, list(METHODS), 24)
    sizes = [(64, 96), (40, 50), (64, 96), (33, 70)]
    several = [
        image[:height, :width] for image, (height, width) in zip(IMAGES, sizes, strict=False)
    ]
    assert_threads_agree(shared, alone, several, ["call", "segment", "segment_concurrently"], 32)


@pytest.mark.parametrize("options", [{"crf": "camvid"}, {"scales": (1, 0.5), "flip": True}])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_predictor_with_crf_or_tta(
    exported: Path, runtime: str, options: dict[str, Any]
) -> None:
    shared, alone = load_twice(exported, runtime=runtime, **options)
    assert_threads_agree(shared, alone, IMAGES, ["call", "segment"], 8)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_predictor_whose_images_are_tiled(exported: Path, runtime: str) -> None:
    shared, alone = load_twice(exported, runtime=runtime, tile=1024)
    assert supports_tiling(shared.runtime)
    rng = np.random.default_rng(1)
    sizes = [(33, 1040), (50, 1060)]  # each needs models of its own
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    assert_threads_agree(shared, alone, [*images, IMAGES[0]], ["call", "segment"], 8)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unpickled", [False, True], ids=["", "unpickled"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_predictor_for_thousands_of_calls(
    exported: Path, runtime: str, unpickled: bool, method: str
) -> None:
    shared, alone = load_twice(exported, runtime=runtime)
    if unpickled:
        shared = pickle.loads(pickle.dumps(shared))
    assert_threads_agree(shared, alone, IMAGES, [method], 4000)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_predictor_with_crf_for_hundreds_of_calls(
    exported: Path, runtime: str, method: str
) -> None:
    shared, alone = load_twice(exported, runtime=runtime, crf="camvid")
    assert_threads_agree(shared, alone, IMAGES, [method], 200)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_asynchronous_server_makes_thousands_of_calls(
    exported: Path, runtime: str, method: str
) -> None:
    shared, alone = load_twice(exported, runtime=runtime)
    call = METHODS[method]

    async def serve() -> list[Any]:
        requests = (asyncio.to_thread(call, shared, IMAGES[i % THREADS]) for i in range(4000))
        return await asyncio.gather(*requests)

    expected = [call(alone, image) for image in IMAGES]
    assert not np.array_equal(expected[0], expected[1])
    for i, found in enumerate(asyncio.run(serve())):
        np.testing.assert_array_equal(found, expected[i % THREADS])


def test_threads_compute_the_constants_of_new_sizes_together() -> None:
    model = randomize(create_model("fcn8s", num_classes=3, width=1 / 16))
    one, other = (Predictor.from_model(model, EXPORTED_CLASSES, IMAGENET) for _ in range(2))
    images = [IMAGES[0][: 20 + side, : 30 + side] for side in range(3)]
    assert_threads_agree(one, other, images, ["logits"], 16)


def test_the_first_measurement_of_memory_does_not_disturb_other_threads(exported: Path) -> None:
    """It propagates shapes through the network with its parameters replaced by empty ones."""
    shared, alone = load_twice(exported, runtime="torch")
    expected = alone.logits(IMAGES[0])
    with ThreadPoolExecutor(2) as pool:
        requirements = type(shared.runtime).requirements.func  # not cached
        measured = pool.submit(lambda: [requirements(shared.runtime) for _ in range(3)])
        while not measured.done():
            np.testing.assert_array_equal(shared.logits(IMAGES[0]), expected)
        measured.result()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_asynchronous_server_shares_a_predictor(exported: Path, runtime: str) -> None:
    shared, alone = load_twice(exported, runtime=runtime)

    async def serve() -> list[Any]:
        requests = (asyncio.to_thread(shared.segment, IMAGES[i % THREADS]) for i in range(32))
        return await asyncio.gather(*requests)

    expected = [alone.segment(image).mask for image in IMAGES]
    for i, result in enumerate(asyncio.run(serve())):
        np.testing.assert_array_equal(result.mask, expected[i % THREADS])
        np.testing.assert_array_equal(result.image, IMAGES[i % THREADS])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_a_predictor_is_pickled_and_copied(
    exported: Path, runtime: str, duplicate: Callable[[Any], Any]
) -> None:
    original = pixelwise.load(exported, runtime=runtime, scales=(1, 0.75), crf="camvid")
    expected = original(IMAGES[0]).logits
    other = duplicate(original)
    assert (other.to_json(), other.classes) == (original.to_json(), original.classes)
    assert other.runtime is not original.runtime
    np.testing.assert_array_equal(other(IMAGES[0]).logits, expected)
    result = duplicate(original(IMAGES[0]))
    np.testing.assert_array_equal(result.probabilities, original(IMAGES[0]).probabilities)


@pytest.mark.parametrize(
    "runtime", [pytest.param("torch", marks=pytest.mark.slow), "openvino", "onnx"]
)
def test_a_predictor_of_a_relative_path_works_from_any_folder(
    exported: Path, runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = np.tile(IMAGES[0], (1, 11, 1))
    expected = pixelwise.load(exported, runtime=runtime, tile=1024).segment(image).mask
    monkeypatch.chdir(exported.parent)
    predictor = pixelwise.load(exported.name, runtime=runtime, tile=1024)
    pickled = pickle.dumps(predictor)
    monkeypatch.chdir(tmp_path)
    small = predictor.segment(IMAGES[0]).mask
    for each in (predictor, copy.deepcopy(predictor), pickle.loads(pickled)):
        np.testing.assert_array_equal(each.segment(image).mask, expected)
        np.testing.assert_array_equal(each.segment_concurrently(IMAGES[0]).mask, small)


def test_an_export_that_has_changed_is_opened_neither_later_nor_from_a_pickle(
    exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for file in exported.with_name("net-onnx").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    predictor = pixelwise.load(folder, tile=1024)
    pickled = pickle.dumps(predictor)
    manifest = folder / "export.json"
    manifest.write_text(manifest.read_text().replace('"plant"', '"tree"'))
    predictor.segment(IMAGES[0])
    for use in (
        lambda: pickle.loads(pickled),
        lambda: predictor.segment_concurrently(IMAGES[0]),
        lambda: predictor.segment(np.tile(IMAGES[0], (1, 11, 1))),
    ):
        with pytest.raises(InputError, match="has changed since the predictor was loaded"):
            use()


FORK = """
import os, sys
import numpy as np
import pixelwise

image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
predictor = pixelwise.load(sys.argv[1], runtime=sys.argv[2])

def compare(expected):
    pid = os.fork()
    if pid == 0:
        found = [predictor(image).logits, predictor.segment_concurrently(image).labels]
        same = all(np.array_equal(*pair) for pair in zip(found, expected))
        os._exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0

pid = os.fork()  # the parent has only loaded, as gunicorn --preload does
if pid == 0:
    np.save(sys.argv[3], predictor(image).logits)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
expected = [predictor.logits(image), predictor.predict_labels(image)]
assert np.array_equal(np.load(sys.argv[3]), expected[0])
predictor.segment_concurrently(image)
compare(expected)
compare(expected)
pid = os.fork()  # a child that ends like a program, with everything cleaned up
if pid == 0:
    del predictor
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert np.array_equal(predictor.logits(image), expected[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork that is safe without exec")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_forked_process_predicts(exported: Path, runtime: str, tmp_path: Path) -> None:
    """A server such as gunicorn --preload loads once and forks its workers; some predict before."""
    found = tmp_path / "logits.npy"
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(exported), runtime, str(found)]
    subprocess.run(command, check=True, timeout=600)


SIGNALED = """
import faulthandler, gc, signal, subprocess, sys
import numpy as np
import pixelwise

faulthandler.enable()  # as pytest does: signal handlers run on a stack of their own
signal.signal(signal.SIGCHLD, lambda *_: None)  # as PyTorch does for the workers of a DataLoader
image = np.zeros((64, 96, 3), np.uint8)
predictors = [pixelwise.load(sys.argv[1], runtime=sys.argv[2]) for _ in range(2)]
for predictor in predictors:
    predictor.logits(image)
del predictor
while predictors:
    del predictors[0]
    gc.collect()
subprocess.run([sys.executable, "-c", ""], check=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGCHLD")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_signal_after_predictors_are_gone_does_no_harm(exported: Path, runtime: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SIGNALED, str(exported), runtime]
    subprocess.run(command, check=True, timeout=600)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


HOSTS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "enable_grad": torch.enable_grad,
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("host", HOSTS)
def test_settings_of_the_host_program_do_not_change_results(exported: Path, host: str) -> None:
    predictor = pixelwise.load(exported, runtime="torch")
    expected, mask = predictor(IMAGES[0]).logits, predictor(IMAGES[0]).mask
    with HOSTS[host]():
        np.testing.assert_array_equal(predictor(IMAGES[0]).logits, expected)
        loaded = pixelwise.load(exported, runtime="torch")
        found = loaded(IMAGES[0]).logits
        for each in (predictor, loaded):
            np.testing.assert_array_equal(each(IMAGES[0]).mask, mask)
            np.testing.assert_array_equal(each.segment(IMAGES[0]).mask, mask)
    # Folding in double precision rounds differently.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if host == "float64" else 0)
    for other in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        np.testing.assert_array_equal(other(IMAGES[0]).logits, found)


def test_loading_does_not_advance_the_random_numbers_of_the_host_program(exported: Path) -> None:
    before = torch.get_rng_state()
    pixelwise.load(exported, runtime="torch").segment(IMAGES[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_runtimes_print_nothing_and_send_no_reports(exported: Path, runtime: str) -> None:
    """They warn if the home folder is not writable."""
    code = (
        "import os, sys, numpy, pixelwise; os.environ.pop('CI', None)\n"
        "os.environ['HOME'] = '/proc/self'\n"
        "pixelwise.load(sys.argv[1], runtime=sys.argv[2]).segment(numpy.zeros((9, 9, 3), 'B'))\n"
        "assert 'CI' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported), runtime], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_results_do_not_share_memory_with_the_caller(exported: Path) -> None:
    predictor = Predictor.from_options(exported, InferenceOptions(runtime="torch"))
    image = IMAGES[0].copy()
    results = [predictor(image), predictor.segment(image), *predictor.stream([image])]
    image[:] = 0
    for result in results:
        np.testing.assert_array_equal(result.image, IMAGES[0])
