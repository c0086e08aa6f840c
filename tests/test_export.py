"""Exports predict the bundle's masks, must be complete and fresh, and run without PyTorch."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
from networks import EXPORTED_CLASSES as CLASSES
from networks import write_bundle
from pixelwise import processor
from pixelwise.cli.export import _facts
from pixelwise.cli.flags import parse_options
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.pixel_format import RGB
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.exporters import export, export_bundle, int8
from pixelwise.exporters.int8 import Int8Settings
from pixelwise.exporters.parity import Parity
from pixelwise.inference import InferenceOptions, Predictor, load_model
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import Runtime, TileView, autoselect, supports_tiling
from pixelwise.inference.tiling.tiled_model import margin_of
from pixelwise.models import MODELS


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle and its exports that a test may damage."""
    shutil.copytree(exported.parent, tmp_path / "exports")
    return tmp_path / "exports" / exported.name


@pytest.fixture(autouse=True)
def isolated_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_export_predicts_pytorchs_logits_at_any_size(exported: Path, runtime: str) -> None:
    fast, reference = (pixelwise.load(exported, runtime=name) for name in (runtime, "torch"))
    assert fast.runtime.name == runtime
    assert fast.classes == reference.classes

    @settings(max_examples=8, deadline=None)
    @given(st.integers(1, 90), st.integers(1, 90))
    def same(height: int, width: int) -> None:
        image = photo(height, width)
        logits, expected = fast.logits(image), reference.logits(image)
        spread = float(expected.max() - expected.min())
        assert np.abs(logits - expected).max() <= 1e-5 * spread
        assert (fast.predict_labels(image) == logits.argmax(axis=0)).all()

    same()
    assert fast(photo(33, 47)).mask.shape == (33, 47)


def test_frequent_sizes_get_a_static_model(exported: Path) -> None:
    predictor = pixelwise.load(exported, runtime="openvino")
    runtime = predictor.runtime
    expected = {
        size: predictor.predict_labels(photo(*size)) for size in ((20, 30), (21, 31), (22, 32))
    }
    assert runtime._single.sizes == [(20, 30)]
    for _ in range(2):
        for size, labels in expected.items():
            assert (predictor.predict_labels(photo(*size)) == labels).all()
    assert sorted(runtime._single.sizes) == [(21, 31), (22, 32)]  # two are cached


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_images_processed_in_parallel_keep_their_own_labels(
    exported: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes change, so that models are compiled while others run."""
    for module in ("openvino", "onnx"):
        monkeypatch.setattr(
            f"pixelwise.inference.runtimes.{module}.{module}_runtime.cores", lambda: 2
        )
    predictor = pixelwise.load(exported, runtime=runtime)
    assert predictor.concurrency in {2, 3}
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (20, 30), (21, 31), (40, 22), (21, 31), (33, 30)] * 6
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    expected = [predictor.predict_labels(image) for image in images]
    with ThreadPoolExecutor(predictor.concurrency) as pool:
        found = list(pool.map(predictor.segment_concurrently, images))
    for result, image, labels in zip(found, images, expected, strict=True):
        assert result.image is image
        np.testing.assert_array_equal(result.labels, labels)
    if runtime == "openvino":
        assert len(predictor.runtime._concurrent.sizes) == 2


def test_on_one_core_images_are_processed_one_by_one(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelwise.inference.runtimes.openvino.openvino_runtime.cores", lambda: 1)
    predictor = pixelwise.load(exported, runtime="openvino")
    assert predictor.concurrency == 1
    image = photo(20, 30)
    index = predictor.segment_concurrently(image).labels
    np.testing.assert_array_equal(index, predictor.predict_labels(image))


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_the_manifest_records_the_checks(exported: Path, target: str) -> None:
    manifest = ExportManifest.load(exported.parent / f"net-{target}")
    assert (manifest.target, manifest.precision, manifest.model) == (
        target,
        "float32",
        "deeplab_v3plus",
    )
    parity = manifest.checks["parity"]
    assert len(parity) == 3
    assert all(image["difference"] < 1e-5 for image in parity)
    assert any(side % 2 for image in parity for side in image["size"])
    assert manifest.checks["made with"][target]
    assert manifest.checks["tile"]["difference"] < 1e-5
    assert "recipe" not in repr(manifest)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_runtime_is_freed_immediately(exported: Path, runtime: str) -> None:
    """The garbage collector would free OpenVINO's objects in an order that crashes the process."""
    predictor = pixelwise.load(exported, runtime=runtime)
    predictor.segment_concurrently(photo(20, 30))
    predictor.predict_labels(photo(20, 30))
    held = weakref.ref(predictor.runtime)
    gc.disable()
    try:
        del predictor
        assert held() is None
    finally:
        gc.enable()


def test_without_the_onnx_package_onnx_runtime_does_not_support_tiling(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supports_tiling(pixelwise.load(exported, runtime="onnx").runtime)
    monkeypatch.setitem(sys.modules, "onnx", None)  # its import fails
    runtime = pixelwise.load(exported, runtime="onnx").runtime
    assert not supports_tiling(runtime)
    assert runtime.predict_labels(photo(30, 40)).shape == (30, 40)


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_an_export_of_an_earlier_version_runs_without_tiling(copy: Path, target: str) -> None:
    """Its manifest does not state what tiles require."""
    folder = copy.with_name(f"net-{target}")
    assert supports_tiling(pixelwise.load(folder).runtime)
    content = json.loads((folder / "export.json").read_text())
    requirements = remove_requirements(folder)
    earlier = pixelwise.load(folder)
    assert not supports_tiling(earlier.runtime)
    assert earlier.predict_labels(photo(30, 40)).shape == (30, 40)
    for wrong in (
        {**requirements, "step": 0},
        {"step": 16},
        {**requirements, "bytes_per_pixel": None},
    ):
        (folder / "export.json").write_text(json.dumps({**content, "requirements": wrong}))
        assert "export.json: is damaged" in refusal(lambda: pixelwise.load(folder))


def remove_requirements(folder: Path) -> dict[str, object]:
    """Make the export one of an earlier version and return the removed requirements."""
    manifest = folder / "export.json"
    content = json.loads(manifest.read_text())
    requirements: dict[str, object] = content.pop("requirements")
    manifest.write_text(json.dumps(content))
    return requirements


def test_predicting_with_openvino_does_not_import_torch(exported: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.png")
    code = (
        "import sys; from pixelwise.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert not exit.code, exit\n"
        "assert 'torch' not in sys.modules"
    )
    folder = exported.parent / "net-openvino"
    command = [sys.executable, "-c", code, "predict", str(folder), str(tmp_path / "a.png")]
    subprocess.run([*command, "--out", str(tmp_path / "masks")], check=True)
    assert (tmp_path / "masks" / "a.png").exists()


def test_torch_export_runs_in_plain_pytorch(exported: Path, tmp_path: Path) -> None:
    manifest = export(exported, to="torch_export", out=tmp_path / "program")
    program = torch.export.load(manifest.path).module()
    image = photo(45, 70)
    labels, logits = program(torch.from_numpy(image)[None])
    reference = pixelwise.load(exported, runtime="torch")
    assert np.allclose(logits[0].detach().numpy(), reference.logits(image), atol=1e-4)
    assert labels.dtype == torch.uint8
    with pytest.raises(InputError, match="it is for other programs"):
        pixelwise.load(manifest.folder)


# --- exports that are refused or not written


def refusal(function: Callable[[], object]) -> str:
    """Return the message of the error that a function raises."""
    with pytest.raises(PixelwiseError) as caught:
        function()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_export_of_another_bundle_is_stale(copy: Path) -> None:
    write_bundle(copy, "deeplab_v3plus", CLASSES, backbone="tiny", output_stride=8)
    for runtime in ("openvino", "auto"):
        text = refusal(lambda runtime=runtime: pixelwise.load(copy, runtime=runtime))
        assert "made from another version of net.safetensors" in text
        assert "pixelwise export" in text
    assert pixelwise.load(copy, runtime="torch").classes == CLASSES


def test_a_damaged_export_is_not_loaded(copy: Path) -> None:
    for name in ("model.xml", "model.bin"):
        file = copy.with_name("net-openvino") / name
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert "is damaged" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
        file.unlink()
        assert "does not exist" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
        file.write_bytes(content)
    path = copy.with_name("net-openvino") / "export.json"
    manifest = json.loads(path.read_bytes())
    for text in ("{", "[]", "{}", json.dumps({**manifest, "files": {}})):
        path.write_text(text)
        assert "damaged" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
    path.write_text(json.dumps({**manifest, "format": 99}))
    assert "export format 99" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
    # a file outside the folder is never opened
    files = {"../net.safetensors": manifest["files"]["model.bin"], "model.xml": ""}
    path.write_text(json.dumps({**manifest, "files": files}))
    assert "net-openvino/net.safetensors" in refusal(lambda: pixelwise.load(path.parent))


def test_a_runtime_that_is_unavailable_is_refused_with_the_remedy(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "allowed are auto, torch, openvino" in refusal(lambda: pixelwise.load(copy, runtime="x"))
    text = refusal(lambda: pixelwise.load(copy, runtime="openvino-int8"))
    assert "--to openvino --int8 --data DATA" in text
    text = refusal(lambda: pixelwise.load(copy, runtime="openvino", device="cpu"))
    assert "leave one of the two out" in text
    folder = copy.with_name("net-onnx")
    assert "give the bundle" in refusal(lambda: pixelwise.load(folder, runtime="torch"))
    assert "use --runtime onnx" in refusal(lambda: pixelwise.load(folder, runtime="openvino"))
    monkeypatch.setattr("pixelwise.inference.runtimes.installed", lambda package: None)
    assert "pip install onnxruntime" in refusal(lambda: pixelwise.load(folder))


def test_an_impossible_request_is_refused_before_any_work(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "choose one of openvino, onnx, tflite" in refusal(lambda: export(exported, to="caffe"))
    (tmp_path / "full").mkdir()
    text = refusal(lambda: export(exported, to="onnx", out=tmp_path / "full"))
    assert "exists and is not an export" in text
    assert "not a bundle" in refusal(lambda: export(exported.parent, to="onnx"))
    text = refusal(lambda: export(exported, to="torch-export", int8=True, data=tmp_path))
    assert "choose openvino or onnx" in text
    assert "give --data DATA" in refusal(lambda: export(exported, int8=True))
    assert "add --int8" in refusal(lambda: export(exported, data=tmp_path))
    monkeypatch.setattr("pixelwise.exporters.formats.find_spec", lambda name: None)
    assert "`pip install openvino`" in refusal(lambda: export(exported, to="openvino"))


def test_an_export_with_different_logits_is_not_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Parity((97, 131), difference=1e-3, equal=0.99)
    monkeypatch.setattr(export_bundle, "compare", lambda *_: [wrong])
    text = refusal(lambda: export(exported, to="torch-export", out=tmp_path / "program"))
    assert "at 97x131" in text
    assert list(tmp_path.iterdir()) == []


def test_the_export_command_and_predicting_with_its_exports(
    copy: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    Image.fromarray(photo(30, 41)).save(tmp_path / "a.png")
    done = cli("export", copy, "--to", "torch-export")
    assert (done.code, done.err) == (0, "")
    assert "at 97x131" in done.out
    assert "net-torch-export" in done.out
    masks = {}
    for runtime in ("torch", "openvino", "onnx", "auto"):
        folder = tmp_path / runtime
        assert cli("predict", copy, "a.png", "--runtime", runtime, "--out", folder).code == 0
        with Image.open(folder / "a.png") as mask:
            masks[runtime] = np.asarray(mask)
    assert all((mask == masks["torch"]).all() for mask in masks.values())
    assert len(np.unique(masks["torch"])) == len(CLASSES)


# --- selecting the fastest runtime


class Slow:
    """A runtime that takes a given time."""

    def __init__(self, name: str, clock: list[float], seconds: float) -> None:
        self.name, self.clock, self.seconds = name, clock, seconds

    def predict_labels(self, image: np.ndarray) -> np.ndarray:
        self.clock[0] += self.seconds
        return image[..., 0]

    logits = predict_labels


def test_the_fastest_runtime_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(autoselect.time, "perf_counter", lambda: clock[0])
    opened: list[str] = []

    def candidate(name: str, seconds: float) -> Callable[[], Slow]:
        def open_runtime() -> Slow:
            opened.append(name)
            return Slow(name, clock, seconds)

        return open_runtime

    def measure(slow: Slow, size: tuple[int, int]) -> float:
        return autoselect.latency(slow, RGB, size)

    fastest = partial(autoselect.select_fastest, measure=measure)
    seconds = {"a": 3.0, "b": 1.0, "c": 2.0}
    candidates = {name: candidate(name, value) for name, value in seconds.items()}
    name, runtime = fastest("digest", candidates)
    assert (name, runtime.name, opened) == ("b", "b", ["a", "b", "c"])
    assert fastest("digest", candidates) == ("b", None)  # nothing was opened again
    assert opened == ["a", "b", "c"]
    assert fastest("another", candidates)[1] is not None
    fewer = {name: candidates[name] for name in "ac"}
    assert fastest("digest", fewer)[0] == "c"  # other candidates are measured again
    cache = autoselect.cache_folder() / "runtimes.json"
    (record, *_) = json.loads(cache.read_text()).values()
    assert record["fastest"] == "b"  # the key that version 0.1 wrote
    assert record["size"] == [360, 480]
    cache.write_text("{")  # damaged
    assert fastest("digest", candidates)[0] == "b"


def test_auto_selects_the_fastest_runtime(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[list[str]] = []
    sizes: list[tuple[int, int] | None] = []

    def fastest(
        digest: str, candidates: dict[str, object], _: object, *, size: tuple[int, int] | None
    ) -> tuple[str, None]:
        measured.append(list(candidates))
        sizes.append(size)
        return list(candidates)[1], None

    monkeypatch.setattr(load_model, "select_fastest", fastest)
    assert pixelwise.load(copy).runtime.name == "onnx"
    assert measured == [["openvino", "onnx", "torch"]]  # bf16 only on request
    pixelwise.load(copy, image_size=(70, 80))
    assert sizes == [None, (70, 80)]
    del measured[1:]
    Predictor.from_options(copy, InferenceOptions(), prefer_tiling=True)
    assert measured.pop() == ["openvino", "onnx", "torch"]
    remove_requirements(copy.with_name("net-onnx"))  # it then does not support tiling
    Predictor.from_options(copy, InferenceOptions(), prefer_tiling=True)
    assert measured.pop() == ["openvino", "torch"]
    for name in ("net-openvino", "net-onnx"):
        shutil.rmtree(copy.with_name(name))
    assert pixelwise.load(copy).runtime.name == "torch"
    assert len(measured) == 1


def test_runtimes_are_measured_at_the_size_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def measure(name: str, size: tuple[int, int]) -> float:
        sizes.append(size)
        # "a" has a cost per call, "b" one per pixel.
        return 0.1 if name == "a" else size[0] * size[1] * 1e-6

    def fastest(size: tuple[int, int] | None, digest: str = "digest") -> str:
        names = {"a": lambda: "a", "b": lambda: "b"}
        return autoselect.select_fastest(digest, names, measure, size=size)[0]

    assert fastest((100, 100)) == "b"
    assert fastest((500, 500)) == "a"
    assert sizes == [(100, 100)] * 2 + [(500, 500)] * 2
    assert fastest((110, 95)) == "b"  # about as large as before
    assert fastest((520, 490)) == "a"
    assert len(sizes) == 4
    assert fastest((4000, 8000)) == "a"
    assert sizes[-1] == (724, 1448)  # the same shape, with a million pixels
    assert fastest(None) == "a"
    assert sizes[-1] == (360, 480)
    count = len(sizes)
    fastest((100, 100), digest="another export")
    assert len(sizes) == count + 2
    monkeypatch.setattr(autoselect, "processor", lambda: ["another one"])
    fastest((100, 100))
    assert len(sizes) == count + 4


@pytest.mark.parametrize("folder", ["no home", "a file"])
def test_without_a_cache_runtimes_are_measured_again(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if folder == "no home":
        monkeypatch.delenv("PIXELWISE_CACHE")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no account")))
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "file"))
    names = {"a": lambda: "a", "b": lambda: "b"}
    for _ in range(2):
        name, opened = autoselect.select_fastest(
            "digest", names, lambda name, _: {"a": 2, "b": 1}[name]
        )
        assert (name, opened) == ("b", "b")


def test_a_command_measures_at_the_size_of_its_images(
    copy: Path, tmp_path: Path, cli: Callable[..., object]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate([(40, 60), (48, 64), (400, 300)]):
        Image.fromarray(photo(*size)).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no image")
    cli("predict", copy, folder, "--no-overlay")
    (record,) = json.loads((autoselect.cache_folder() / "runtimes.json").read_text()).values()
    assert record["size"] == [48, 64]
    assert set(record["milliseconds"]) == {"torch", "openvino", "onnx"}


# --- int8


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder, train=3, val=2, test=0, height=48, width=64, seed=0)
    return open_dataset(folder, splits=("train", "val"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "net.safetensors"
    return write_bundle(path, "deeplab_v3plus", SCENE_CLASSES, backbone="tiny")


@pytest.mark.parametrize(
    ("target", "milliseconds"),
    [("openvino", (2.0, 1.0)), ("onnx", (131.6, 133.0))],  # also if it is slower on this machine
)
def test_an_int8_export_records_its_score_and_speed(
    target: str,
    milliseconds: tuple[float, float],
    network: Path,
    scenes: SegmentationData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "_speed", lambda one, other, data: milliseconds)
    monkeypatch.setattr(processor, "processor_flags", lambda: frozenset({"avx2"}))
    stages: list[str] = []
    manifest = export(
        network,
        to=target,
        int8=True,
        data=scenes if target == "openvino" else scenes.root,
        max_drop=100,
        calibration=2,
        progress=stages.append,
        note=stages.append,
    )
    assert manifest.name == f"{target}-int8"
    assert manifest.checks["milliseconds"] == dict(
        zip(("float32", "int8"), milliseconds, strict=True)
    )
    assert stages[0].startswith("this processor has no 8-bit instructions")  # before calibrating
    assert len([stage for stage in stages if "8-bit" in stage]) == 1
    assert manifest.checks["layers in float32"] == []
    assert manifest.requirements is not None
    assert any("2 images" in stage for stage in stages)
    image = scenes.read(scenes.splits["val"][0])[0]
    fast = pixelwise.load(network, runtime=f"{target}-int8")
    logits, exact = fast.logits(image), pixelwise.load(network, runtime="torch").logits(image)
    error = float(np.abs(logits - exact).max() / (exact.max() - exact.min()))
    assert 1e-5 < error < 0.2  # rounded, but the same network
    assert isinstance(fast, Predictor)
    assert_tiles_are_crops(fast.runtime)


@pytest.mark.slow
def test_int8_predicts_images_of_changing_sizes(
    scenes: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO 2026.4 crashes at some of these if the graph was compiled for any size."""
    monkeypatch.setattr(int8, "_speed", lambda one, other, data: (2.0, 1.0))
    path = write_bundle(tmp_path / "net.safetensors", "deeplab_v3plus", SCENE_CLASSES)
    export(path, to="openvino", int8=True, data=scenes, max_drop=100, calibration=2)
    sizes = [(96, 128), (97, 131), (201, 333), (222, 222), (375, 500)]
    script = (
        "import sys, numpy, pixelwise\n"
        "fast = pixelwise.load(sys.argv[1], runtime='openvino-int8')\n"
        f"for size in {sizes} * 2: fast.predict_labels(numpy.zeros((*size, 3), numpy.uint8))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def assert_tiles_are_crops(runtime: Runtime) -> None:
    """A tile that covers the image, with its own mean, has the logits of one pass up to rounding in
    resizes. Maps rounded to 8 bits get a larger margin."""
    assert supports_tiling(runtime)
    assert margin_of(runtime.requirements) > margin_of(replace(runtime.requirements, rounded=False))
    image, size = photo(160, 200), (160, 200)
    sums, count = runtime.tile_sums(image, TileView(size, 0, 0), (slice(0, 160), slice(0, 200)))
    mean = (sums / count).astype(np.float32)
    expected, logits = (
        runtime.logits(image),
        runtime.tile_logits(image, TileView(size, 0, 0, (mean,))),
    )
    error = np.abs(logits - expected) / (expected.max() - expected.min())
    assert error.mean() < 1e-3
    other = runtime.tile_logits(image, TileView(size, 0, 0, (mean + 1,)))
    assert not np.array_equal(logits, other)  # the mean is used


def test_int8_that_loses_too_much_is_not_written(
    network: Path, scenes: SegmentationData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remaining = [50.0, 49.0, 49.2, 49.3]
    monkeypatch.setattr(int8, "_score", lambda runtime, export, data: remaining.pop(0))
    monkeypatch.setattr(
        "nncf.quantize_with_accuracy_control", lambda model, calibration, *_, **__: model
    )
    out = tmp_path / "out"
    text = refusal(
        lambda: export(network, to="openvino", out=out, int8=True, data=scenes, calibration=2)
    )
    assert "0.70 points of mean IoU on val (50.00 to 49.30)" in text
    assert remaining == []
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        ({"avx2"}, False, False),
        ({"avx512_vnni", "avx512_bf16"}, True, True),
        ({"avx_vnni"}, True, False),
        ({"amx_int8", "amx_bf16"}, True, True),
        ({"asimddp", "fphp"}, True, False),
        (set(), True, True),  # unknown: nothing is said
    ],
)
def test_a_processor_without_fast_instructions_is_named(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], int8: bool, bf16: bool
) -> None:
    monkeypatch.setattr(processor, "processor_flags", lambda: frozenset(flags))
    assert (processor.missing_instructions("int8") is None) == int8
    assert (processor.missing_instructions("bf16") is None) == bf16


def test_the_command_reports_that_int8_is_not_faster() -> None:
    checks = {
        "val mean IoU": {"float32": 50, "int8": 49.9},
        "max drop": 0.3,
        "milliseconds": {"float32": 131.6, "int8": 133.0},
    }
    facts = _facts(checks)
    assert facts["time per image here"].endswith("133.0 ms in int8: 0.99 times as fast")
    assert "--runtime auto measures" in facts["runtime"]
    assert "runtime" not in _facts({**checks, "milliseconds": {"float32": 2.0, "int8": 1.0}})


def test_bfloat16_on_a_processor_without_it_is_named(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processor, "processor_flags", lambda: frozenset({"avx2"}))
    given = {"scales": "1", "tile": "auto", "crf": False, "crf_set": None}
    given |= {"device": None, "flip": False}
    for runtime, lines in (("openvino-bf16", 1), ("openvino", 0)):
        parse_options(SimpleNamespace(params=given), runtime)  # type: ignore[arg-type]
        assert capsys.readouterr().err.count("no bfloat16 instructions") == lines


@pytest.mark.parametrize("invalid", [{"max_drop": -1}, {"max_drop": 101}, {"calibration": 0}])
def test_int8_settings_are_checked(invalid: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"must be 0 to 100|at least 1 image"):
        Int8Settings(**invalid)


# --- every network

SMALL = {
    "fcn32s": {"width": 0.125},
    "fcn16s": {"width": 0.125},
    "fcn8s": {"width": 0.125},
    "fcn8s_atonce": {"width": 0.125},
    "fcn_alexnet": {"width": 0.25},
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "onnx"])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_can_be_exported(tmp_path: Path, name: str, target: str) -> None:
    path = write_bundle(tmp_path / "net.safetensors", name, CLASSES, **SMALL.get(name, {}))
    manifest = export(path, to=target)  # raises if the logits differ
    assert manifest.path.exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # test_simplify.py has a faster one of the same network
        pytest.param("fcn8s", {"width": 0.125}, marks=pytest.mark.slow),
        # pads its input to a multiple of its stride
        pytest.param("deeplab_v2", {"backbone": "vgg16"}, marks=pytest.mark.slow),
        # pads in each convolution
        pytest.param(
            "deeplab_v3plus", {"tensorflow": True, "align_corners": True}, marks=pytest.mark.slow
        ),
        pytest.param("deeplab_v3plus", {"backbone": "efficientnet_lite0"}, marks=pytest.mark.slow),
        ("deeplab_v3plus", {"backbone": "tiny", "stride_2_skip": True, "input_scale": 1.25}),
    ],
)
def test_exported_sizes_are_dynamic(name: str, options: dict[str, object], tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "net.safetensors", name, CLASSES, **options)
    manifest = export(path, to="openvino")
    assert max(image["difference"] for image in manifest.checks["parity"]) < 1e-4
