"""Exports give the bundle's masks, are trusted only when whole and fresh, and need no PyTorch."""

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

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
from pixelwise.data.classes import Classes
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.pixel_format import RGB
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.export import export, export_bundle, int8
from pixelwise.export.int8 import Int8Settings
from pixelwise.export.parity import Parity
from pixelwise.inference import InferenceOptions, Predictor, load_model
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import Runtime, View, autoselect, supports_tiling
from pixelwise.inference.tiling.tiled_model import margin_of
from pixelwise.models import MODELS, create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

CLASSES = Classes.make(["soil", "plant", "stone"], values=[0, 10, 200], ignore=255)


def write_bundle(path: Path, name: str, classes: Classes, **options: object) -> Path:
    """A network with random weights and statistics that matter."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=len(classes), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # FCN's scores start at 0, which no parity could tell apart
                parameter.normal_(0, 0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    Bundle(name, options, classes, IMAGENET, model.state_dict()).save(path)
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an export for OpenVINO and one for ONNX Runtime beside it."""
    path = tmp_path_factory.mktemp("exports") / "net.safetensors"
    write_bundle(path, "deeplab_v3plus", CLASSES, backbone="tiny")
    for target in ("openvino", "onnx"):
        export(path, target)
    return path


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own, to be damaged."""
    shutil.copytree(exported.parent, tmp_path / "exports")
    return tmp_path / "exports" / exported.name


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_export_gives_the_logits_of_pytorch_at_any_size(exported: Path, runtime: str) -> None:
    fast, reference = (pixelwise.load(exported, runtime=name) for name in (runtime, "torch"))
    assert fast.runtime.name == runtime
    assert fast.classes == reference.classes

    @settings(max_examples=8, deadline=None)
    @given(st.integers(1, 90), st.integers(1, 90))
    def same(height: int, width: int) -> None:
        image = photo(height, width)
        one, other = fast.logits(image), reference.logits(image)
        spread = float(other.max() - other.min())
        assert np.abs(one - other).max() <= 1e-5 * spread
        assert (fast.classify(image) == one.argmax(axis=0)).all()

    same()
    assert fast(photo(33, 47)).mask.shape == (33, 47)


def test_a_size_that_comes_often_is_compiled_for_itself(exported: Path) -> None:
    predictor = pixelwise.load(exported, runtime="openvino")
    runtime = predictor.runtime
    expected = {size: predictor.classify(photo(*size)) for size in ((20, 30), (21, 31), (22, 32))}
    assert runtime._one.sizes == [(20, 30)]
    for _ in range(2):
        for size, labels in expected.items():
            assert (predictor.classify(photo(*size)) == labels).all()
    assert sorted(runtime._one.sizes) == [(21, 31), (22, 32)]  # two are kept


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_several_images_at_once_have_their_own_labels(
    exported: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sizes that change, so that some are compiled for while others run."""
    for module in ("openvino", "onnx"):
        monkeypatch.setattr(
            f"pixelwise.inference.runtimes.{module}.{module}_runtime.cores", lambda: 2
        )
    predictor = pixelwise.load(exported, runtime=runtime)
    assert predictor.concurrency in {2, 3}
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (20, 30), (21, 31), (40, 22), (21, 31), (33, 30)] * 6
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    expected = [predictor.classify(image) for image in images]
    with ThreadPoolExecutor(predictor.concurrency) as pool:
        found = list(pool.map(predictor.segment_concurrently, images))
    for result, image, labels in zip(found, images, expected, strict=True):
        assert result.image is image
        np.testing.assert_array_equal(result.index, labels)
    if runtime == "openvino":
        assert len(predictor.runtime._several.sizes) == 2


def test_on_one_core_images_go_one_after_the_other(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelwise.inference.runtimes.openvino.openvino_runtime.cores", lambda: 1)
    predictor = pixelwise.load(exported, runtime="openvino")
    assert predictor.concurrency == 1
    image = photo(20, 30)
    index = predictor.segment_concurrently(image).index
    np.testing.assert_array_equal(index, predictor.classify(image))


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_the_description_holds_what_was_checked(exported: Path, target: str) -> None:
    made = ExportManifest.load(exported.parent / f"net-{target}")
    assert (made.target, made.precision, made.model) == (target, "float32", "deeplab_v3plus")
    assert len(made.checks["parity"]) == 3
    assert all(one["difference"] < 1e-5 for one in made.checks["parity"])
    assert any(side % 2 for one in made.checks["parity"] for side in one["size"])
    assert made.checks["made with"][target]
    assert made.checks["tile"]["difference"] < 1e-5


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_runtime_is_freed_as_soon_as_it_is_not_used(exported: Path, runtime: str) -> None:
    """In a cycle it would wait for the collector, which frees OpenVINO's parts in a fatal order."""
    predictor = pixelwise.load(exported, runtime=runtime)
    predictor.segment_concurrently(photo(20, 30))
    predictor.classify(photo(20, 30))
    held = weakref.ref(predictor.runtime)
    gc.disable()
    try:
        del predictor
        assert held() is None
    finally:
        gc.enable()


def test_without_onnx_tiles_by_onnx_runtime_see_themselves_alone(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supports_tiling(pixelwise.load(exported, runtime="onnx").runtime)
    monkeypatch.setitem(sys.modules, "onnx", None)  # its import fails
    runtime = pixelwise.load(exported, runtime="onnx").runtime
    assert not supports_tiling(runtime)
    assert runtime.classify(photo(30, 40)).shape == (30, 40)


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_an_export_of_an_earlier_version_is_used_as_before(copy: Path, target: str) -> None:
    """Its windows see themselves alone, for it does not say what they need."""
    folder = copy.with_name(f"net-{target}")
    assert supports_tiling(pixelwise.load(folder).runtime)
    content = json.loads((folder / "export.json").read_text())
    requirements = without_traits(folder)
    earlier = pixelwise.load(folder)
    assert not supports_tiling(earlier.runtime)
    assert earlier.classify(photo(30, 40)).shape == (30, 40)
    for wrong in (
        {**requirements, "step": 0},
        {"step": 16},
        {**requirements, "bytes_per_pixel": None},
    ):
        (folder / "export.json").write_text(json.dumps({**content, "requirements": wrong}))
        assert "export.json: is damaged" in refusal(lambda: pixelwise.load(folder))


def without_traits(folder: Path) -> dict[str, object]:
    """Make the export one of an earlier version; the traits that it had."""
    about = folder / "export.json"
    content = json.loads(about.read_text())
    requirements: dict[str, object] = content.pop("requirements")
    about.write_text(json.dumps(content))
    return requirements


def test_predicting_by_openvino_imports_no_torch(exported: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.png")
    code = (
        "import sys; from pixelwise.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end\n"
        "assert 'torch' not in sys.modules"
    )
    folder = exported.parent / "net-openvino"
    command = [sys.executable, "-c", code, "predict", str(folder), str(tmp_path / "a.png")]
    subprocess.run([*command, "--out", str(tmp_path / "masks")], check=True)
    assert (tmp_path / "masks" / "a.png").exists()


def test_torch_export_runs_in_plain_pytorch(exported: Path, tmp_path: Path) -> None:
    made = export(exported, "torch-export", out=tmp_path / "program")
    program = torch.export.load(made.path).module()
    image = photo(45, 70)
    labels, logits = program(torch.from_numpy(image)[None])
    reference = pixelwise.load(exported, runtime="torch")
    assert np.allclose(logits[0].detach().numpy(), reference.logits(image), atol=1e-4)
    assert labels.dtype == torch.uint8
    with pytest.raises(InputError, match="it is for other programs"):
        pixelwise.load(made.folder)


# --- what is not used, and what is not written


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(PixelwiseError) as caught:
        work()
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
        whole = file.read_bytes()
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        assert "is damaged" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
        file.unlink()
        assert "does not exist" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
        file.write_bytes(whole)
    about = copy.with_name("net-openvino") / "export.json"
    whole = about.read_bytes()
    content = json.loads(whole)
    for text in ("{", "[]", "{}", json.dumps({**content, "files": {}})):
        about.write_text(text)
        assert "damaged" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
    about.write_text(json.dumps({**content, "format": 99}))
    assert "export format 99" in refusal(lambda: pixelwise.load(copy, runtime="openvino"))
    # a file that the description names elsewhere is never opened there
    files = {"../net.safetensors": content["files"]["model.bin"], "model.xml": ""}
    about.write_text(json.dumps({**content, "files": files}))
    assert "net-openvino/net.safetensors" in refusal(lambda: pixelwise.load(about.parent))


def test_what_cannot_be_had_is_said_with_the_remedy(
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


def test_a_request_that_cannot_be_met_is_refused_first(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "allowed are openvino, onnx" in refusal(lambda: export(exported, "tflite"))
    (tmp_path / "full").mkdir()
    text = refusal(lambda: export(exported, "onnx", out=tmp_path / "full"))
    assert "is there and is no export" in text
    assert "not a bundle" in refusal(lambda: export(exported.parent, "onnx"))
    text = refusal(lambda: export(exported, "torch-export", int8=Int8Settings()))
    assert "choose openvino or onnx" in text
    monkeypatch.setattr("pixelwise.export.format_writers.find_spec", lambda name: None)
    assert "`pip install openvino`" in refusal(lambda: export(exported, "openvino"))


def test_logits_that_differ_are_not_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Parity((97, 131), difference=1e-3, equal=0.99)
    monkeypatch.setattr(export_bundle, "compare", lambda runtime, reference, pixels: [wrong])
    text = refusal(lambda: export(exported, "torch-export", out=tmp_path / "program"))
    assert "at 97x131" in text
    assert list(tmp_path.iterdir()) == []


def test_commands_of_exporting_and_its_use(copy: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(30, 41)).save(tmp_path / "a.png")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pixelwise", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    out = run("export", str(copy), "--to", "torch-export")
    assert "at 97x131" in out
    assert "net-torch-export" in out
    masks = {}
    for runtime in ("torch", "openvino", "onnx", "auto"):
        folder = tmp_path / runtime
        run(
            "predict",
            str(copy),
            str(tmp_path / "a.png"),
            "--runtime",
            runtime,
            "--out",
            str(folder),
        )
        with Image.open(folder / "a.png") as mask:
            masks[runtime] = np.asarray(mask)
    assert all((mask == masks["torch"]).all() for mask in masks.values())


# --- which one is the fastest


class Slow:
    """A runtime that takes so long."""

    def __init__(self, name: str, clock: list[float], seconds: float) -> None:
        self.name, self.clock, self.seconds = name, clock, seconds

    def classify(self, image: np.ndarray) -> np.ndarray:
        self.clock[0] += self.seconds
        return image[..., 0]

    logits = classify


def test_the_fastest_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(autoselect.time, "perf_counter", lambda: clock[0])
    made: list[str] = []

    def maker(name: str, seconds: float) -> Callable[[], Slow]:
        def make() -> Slow:
            made.append(name)
            return Slow(name, clock, seconds)

        return make

    fastest = partial(autoselect.select_fastest, runtime=lambda one: one, pixels=lambda one: RGB)
    ways = {"a": maker("a", 3.0), "b": maker("b", 1.0), "c": maker("c", 2.0)}
    name, opened = fastest("digest", ways)
    assert (name, opened.name, made) == ("b", "b", ["a", "b", "c"])
    assert fastest("digest", ways) == ("b", None)  # nothing was opened again
    assert made == ["a", "b", "c"]
    assert fastest("another", ways)[1] is not None
    few = {name: ways[name] for name in "ac"}
    assert fastest("digest", few)[0] == "c"  # of other candidates: measured anew
    autoselect.cache_folder().joinpath("runtimes.json").write_text("{")  # a damaged cache
    assert fastest("digest", ways)[0] == "b"


def test_auto_takes_what_was_fastest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fastest(digest: str, ways: dict[str, object], **_: object) -> tuple[str, None]:
        asked.append(list(ways))
        return list(ways)[1], None

    monkeypatch.setattr(load_model, "select_fastest", fastest)
    assert pixelwise.load(copy).runtime.name == "onnx"
    assert asked == [["openvino", "onnx", "torch"]]  # bf16 only where it is asked for
    Predictor.from_options(copy, InferenceOptions(), prefer_tiling=True)
    assert asked.pop() == ["openvino", "onnx", "torch"]
    without_traits(copy.with_name("net-onnx"))  # its windows see themselves alone
    Predictor.from_options(copy, InferenceOptions(), prefer_tiling=True)
    assert asked.pop() == ["openvino", "torch"]
    for name in ("net-openvino", "net-onnx"):
        shutil.rmtree(copy.with_name(name))
    assert pixelwise.load(copy).runtime.name == "torch"
    assert len(asked) == 1


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


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_int8_is_written_with_its_score_and_speed(
    target: str, network: Path, scenes: SegmentationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_speed", lambda one, other, data: (2.0, 1.0))
    said: list[str] = []
    settings = Int8Settings(max_drop=100, calibration=2)
    made = export(network, target, int8=settings, data=scenes, say=said.append)
    assert made.name == f"{target}-int8"
    assert made.checks["milliseconds"] == {"float32": 2.0, "int8": 1.0}
    assert made.checks["layers in float32"] == []
    assert made.requirements is not None
    assert any("2 images" in text for text in said)
    image = scenes.read(scenes.splits["val"][0])[0]
    fast = pixelwise.load(network, runtime=f"{target}-int8")
    logits, exact = fast.logits(image), pixelwise.load(network, runtime="torch").logits(image)
    off = float(np.abs(logits - exact).max() / (exact.max() - exact.min()))
    assert 1e-5 < off < 0.2  # rounded, and not another network
    assert isinstance(fast, Predictor)
    assert_a_tile_is_a_part(fast.runtime)


@pytest.mark.slow
def test_int8_takes_images_of_any_size_one_after_the_other(
    scenes: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO 2026.4 dies at some of these if the graph was compiled for any size."""
    monkeypatch.setattr(int8, "_speed", lambda one, other, data: (2.0, 1.0))
    path = write_bundle(tmp_path / "net.safetensors", "deeplab_v3plus", SCENE_CLASSES)
    settings = Int8Settings(max_drop=100, calibration=2)
    export(path, "openvino", int8=settings, data=scenes)
    sizes = [(96, 128), (97, 131), (201, 333), (222, 222), (375, 500)]
    script = (
        "import sys, numpy, pixelwise\n"
        "fast = pixelwise.load(sys.argv[1], runtime='openvino-int8')\n"
        f"for size in {sizes} * 2: fast.classify(numpy.zeros((*size, 3), numpy.uint8))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def assert_a_tile_is_a_part(runtime: Runtime) -> None:
    """A window that is the image, with the mean that it finds itself, is a pass over it but for
    how its resizes round; and rounded maps get the larger margin."""
    assert supports_tiling(runtime)
    assert margin_of(runtime.requirements) > margin_of(replace(runtime.requirements, rounded=False))
    image, size = photo(160, 200), (160, 200)
    sums, count = runtime.tile_sums(image, View(size, 0, 0), (slice(0, 160), slice(0, 200)))
    mean = (sums / count).astype(np.float32)
    whole, part = runtime.logits(image), runtime.tile_logits(image, View(size, 0, 0, (mean,)))
    off = np.abs(whole - part) / (whole.max() - whole.min())
    assert off.mean() < 1e-3
    other = runtime.tile_logits(image, View(size, 0, 0, (mean + 1,)))
    assert not np.array_equal(part, other)  # the mean that is given counts


@pytest.mark.parametrize(
    ("speed", "scores", "words"),
    [
        ((1.0, 2.0), [50.0, 50.0], "gains nothing here"),
        ((2.0, 1.0), [50.0, 49.0, 49.2, 49.3], "0.70 points of mean IoU on val (50.00 to 49.30)"),
    ],
)
def test_int8_that_loses_too_much_or_gains_nothing_is_not_written(
    network: Path,
    scenes: SegmentationData,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    speed: tuple[float, float],
    scores: list[float],
    words: str,
) -> None:
    monkeypatch.setattr(int8, "_speed", lambda one, other, data: speed)
    left = list(scores)
    monkeypatch.setattr(int8, "_score", lambda runtime, export, data: left.pop(0))
    monkeypatch.setattr(
        "nncf.quantize_with_accuracy_control", lambda model, calibration, *_, **__: model
    )
    settings = Int8Settings(max_drop=0.3, calibration=2)
    out = tmp_path / "out"
    text = refusal(lambda: export(network, "openvino", out=out, int8=settings, data=scenes))
    assert words in text
    assert left == []
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("wrong", [{"max_drop": -1}, {"max_drop": 101}, {"calibration": 0}])
def test_settings_of_int8_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"allowed|at least"):
        Int8Settings(**wrong)


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
    made = export(path, target)  # raises where parity does not hold
    assert made.path.exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {"width": 0.125}),
        # pads its input to a multiple
        pytest.param("deeplab_v2", {"backbone": "vgg16"}, marks=pytest.mark.slow),
        # pads each convolution
        pytest.param(
            "deeplab_v3plus", {"tensorflow": True, "align_corners": True}, marks=pytest.mark.slow
        ),
    ],
)
def test_sizes_are_left_open(name: str, options: dict[str, object], tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "net.safetensors", name, CLASSES, **options)
    made = export(path, "openvino")
    assert max(one["difference"] for one in made.checks["parity"]) < 1e-4
