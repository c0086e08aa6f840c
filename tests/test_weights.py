"""Published weights by name: the catalog, their download, conversion, cache and use."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import pixelwise
from file_server import Server, serve_files
from fixture_types import Cli
from networks import randomize
from pixelwise.data.published.download import DownloadError
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.published import catalog
from pixelwise.weights.published.catalog import WEIGHTS, PublishedWeights, find_bundle
from pixelwise.weights.published.fetch import find_imagenet_weights, get_weights, provide_weights

NAME = "lraspp_mobilenet_v3_large_coco_voc"  # the smallest network
CLASSIFIER = "mobilenet_v3_large_imagenet_v2"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve_files(monkeypatch) as state:
        yield state


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def lraspp_file() -> bytes:
    """torchvision's file of LR-ASPP, with random weights."""
    return as_torchvision_lraspp(randomize(create_model("lraspp", num_classes=21)))


def saved(tensors: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def as_torchvision_lraspp(model: Any) -> bytes:
    names = {
        "backbone.features.": "backbone.",
        "head.project.": "classifier.cbr.",
        "head.gate.": "classifier.scale.1.",
        "head.classify_fine.": "classifier.low_classifier.",
        "head.classify.": "classifier.high_classifier.",
    }
    return saved(
        {
            next(
                theirs + name.removeprefix(ours)
                for ours, theirs in names.items()
                if name.startswith(ours)
            ): tensor
            for name, tensor in model.state_dict().items()
        }
    )


def publish(
    monkeypatch: pytest.MonkeyPatch, server: Server, name: str, content: bytes
) -> PublishedWeights:
    """Let an entry of the catalog refer to a file on the server, with an eight-digit prefix."""
    file = WEIGHTS[name].remote.file
    server.files[file] = content
    remote = replace(
        WEIGHTS[name].remote,
        urls=(f"{server.address}/{file}",),
        digest=hashlib.sha256(content).hexdigest()[:8],
    )
    entry = replace(WEIGHTS[name], remote=remote)
    monkeypatch.setitem(WEIGHTS, name, entry)
    return entry


@pytest.fixture
def network(
    monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path, lraspp_file: bytes
) -> PublishedWeights:
    return publish(monkeypatch, server, NAME, lraspp_file)


# --- Fetching


def test_a_network_becomes_a_bundle_that_predicts_by_name(
    network: PublishedWeights, server: Server, tmp_path: Path, cli: Cli
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), (90, 120, 30)).save(photo)
    before = cli("predict", NAME, photo)
    assert (before.code, before.err) == (
        2,
        f"pixelwise: error: {NAME}: is not on this machine: run `pixelwise weights get {NAME}`\n",
    )
    done = cli("weights", "get", NAME)
    assert (done.code, done.err) == (0, "")
    assert f"license: {network.license}" in done.out
    assert f"pixelwise predict {NAME} photo.jpg" in done.out
    bundle = Bundle.load(Path(NAME))
    assert bundle.classes.names[15] == "person"
    assert bundle.scores["license"] == network.license
    assert bundle.scores["published"] == network.score
    assert [path.name for path in network.folder.iterdir()] == [f"{NAME}.safetensors"]
    expected = randomize(create_model("lraspp", num_classes=21)).state_dict()
    for name, tensor in bundle.weights.items():
        assert torch.equal(tensor, expected[name]), name
    assert cli("predict", NAME, photo, "--runtime", "torch").code == 0
    with Image.open("predictions/photo.png") as mask:
        assert mask.size == (40, 30)
    assert pixelwise.load(NAME).classes.names == bundle.classes.names
    server.files.clear()
    assert pixelwise.get_weights(NAME, quiet=True) == network.bundle  # without the network


def test_an_existing_path_wins_over_a_name(
    network: PublishedWeights, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(tiny_bundle.read_bytes())
    assert find_bundle(Path(NAME)) == Path(NAME)
    assert pixelwise.load(NAME, runtime="torch").classes.names == ("sky", "road", "car")


def test_a_similar_name_and_a_classifier_are_refused(cache: Path) -> None:
    with pytest.raises(InputError, match=f"did you mean {NAME}"):
        find_bundle(Path("lraspp_mobilenet_v3_large_coco"))
    with pytest.raises(InputError, match=f"predicts no masks: .*--weights {CLASSIFIER}"):
        find_bundle(Path(CLASSIFIER))
    with pytest.raises(InputError, match=r"'resnet50_imagenet': are unknown \(did you mean"):
        get_weights("resnet50_imagenet")
    assert find_bundle(Path("runs/best.safetensors")) == Path("runs/best.safetensors")


@pytest.mark.parametrize("cut", [1, 100, 5000, -1])
def test_a_download_cut_at_any_byte_is_resumed(
    network: PublishedWeights, server: Server, lraspp_file: bytes, cut: int
) -> None:
    server.cuts = [cut % len(lraspp_file)]
    calls: list[tuple[str, int, int | None]] = []
    assert get_weights(NAME, progress=lambda *call: calls.append(call)) == network.bundle
    assert server.requests == [None, f"bytes={cut % len(lraspp_file)}-"]
    assert ("downloading", len(lraspp_file), len(lraspp_file)) in calls


def test_a_later_call_resumes(
    network: PublishedWeights, server: Server, lraspp_file: bytes
) -> None:
    network.folder.mkdir(parents=True)
    (network.folder / f"{network.remote.file}.part").write_bytes(lraspp_file[:777])
    assert get_weights(NAME) == network.bundle
    assert server.requests == ["bytes=777-"]


def test_a_redirect_is_followed(network: PublishedWeights, server: Server) -> None:
    server.files["moved"] = server.files.pop(network.remote.file)
    server.redirects[network.remote.file] = f"{server.address}/moved"
    assert get_weights(NAME) == network.bundle


def test_wrong_content_is_removed_and_converted_by_nobody(
    network: PublishedWeights, server: Server, lraspp_file: bytes
) -> None:
    server.files[network.remote.file] = b"x" + lraspp_file[1:]
    with pytest.raises(InputError, match=r"is not the published file \(SHA-256 .*was removed"):
        get_weights(NAME)
    assert list(network.folder.iterdir()) == []
    server.files[network.remote.file] = lraspp_file
    assert get_weights(NAME) == network.bundle


def test_a_missing_file_names_what_to_put_where(
    network: PublishedWeights, server: Server, lraspp_file: bytes, cli: Cli
) -> None:
    server.files.clear()
    done = cli("weights", "get", NAME)
    assert done.code == 1
    assert "answers 404" in done.err
    check_instructions(network, done.err)
    place = network.folder / network.remote.file
    place.write_bytes(lraspp_file)
    server.requests.clear()
    assert get_weights(NAME) == network.bundle
    assert (server.requests, place.read_bytes()) == ([], lraspp_file)  # used and kept


def check_instructions(entry: PublishedWeights, text: str) -> None:
    assert entry.remote.urls[0] in text
    assert f"SHA-256 {entry.remote.digest}" in text
    assert f"save it as {entry.folder / entry.remote.file}" in text


@pytest.mark.parametrize("weights", [NAME, CLASSIFIER])
def test_offline_nothing_is_requested(
    weights: str, monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path, lraspp_file: bytes
) -> None:
    entry = publish(monkeypatch, server, weights, lraspp_file)
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="PIXELWISE_OFFLINE=1 forbids downloads") as caught:
        provide_weights(weights, entry.backbone)
    check_instructions(entry, str(caught.value))
    assert "unset PIXELWISE_OFFLINE, or put" in str(caught.value)
    assert server.requests == []


def test_a_wrong_file_put_by_hand_is_kept(network: PublishedWeights) -> None:
    network.folder.mkdir(parents=True)
    place = network.folder / network.remote.file
    place.write_bytes(b"another file")
    with pytest.raises(InputError, match="is not the published file"):
        get_weights(NAME)
    assert place.read_bytes() == b"another file"


def test_a_full_disk_is_one_line(
    network: PublishedWeights, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def fail(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == ".part":
            raise OSError(28, "No space left on device")
        return open_file(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(InputError, match="No space left on device"):
            get_weights(NAME)

    class Usage:
        free = 1000

    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: Usage)
        with pytest.raises(InputError, match="free some space, or set PIXELWISE_CACHE"):
            get_weights(NAME)
    assert get_weights(NAME) == network.bundle


def test_a_file_for_another_network_gives_no_bundle(
    monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path
) -> None:
    entry = publish(monkeypatch, server, NAME, saved({"conv.weight": torch.zeros(3, 3)}))
    with pytest.raises(InputError, match="is it for another network"):
        get_weights(NAME)
    assert not entry.bundle.exists()


def test_two_processes_at_once_download_once(
    network: PublishedWeights, server: Server, lraspp_file: bytes
) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=get_weights, args=(NAME,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert server.requests == [None]
    assert Bundle.load(network.bundle).model == "lraspp"


def test_a_classifier_is_kept_as_published_and_verified_at_each_use(
    monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path
) -> None:
    entry = publish(monkeypatch, server, CLASSIFIER, b"weights")
    path = entry.folder / entry.remote.file
    assert provide_weights(CLASSIFIER, "mobilenet_v3_large") == path
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="is not the published file"):
        provide_weights(CLASSIFIER, "mobilenet_v3_large")


def test_training_fetches_imagenet_weights_and_states_their_license(
    monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path, tmp_path: Path
) -> None:
    from pixelwise.data.scenes import SCENE_CLASSES
    from pixelwise.recipes.schema import ModelRecipe
    from pixelwise.training.initial_model import create_initial_model

    torch.manual_seed(0)
    features = randomize(create_model("lraspp", num_classes=2)).backbone.state_dict()
    content = saved({**features, "classifier.0.weight": torch.zeros(1)})
    publish(monkeypatch, server, "mobilenet_v3_large_imagenet_v1", content)
    with pytest.raises(InputError, match="weights get mobilenet_v3_large_imagenet_v1"):
        find_imagenet_weights("mobilenet_v3_large")
    said: list[str] = []
    recipe = ModelRecipe(name="lraspp")
    start = create_initial_model(recipe, SCENE_CLASSES, progress=lambda *call: said.append(call[0]))
    assert "downloading" in said
    assert "ImageNet weights mobilenet_v3_large_imagenet_v1 (license: BSD" in start.origin
    for name, tensor in start.model.backbone.state_dict().items():
        assert torch.equal(tensor, features[name]), name
    assert find_imagenet_weights("mobilenet_v3_large").parent.parent == cache / "weights"


# --- The commands


def test_list_and_show(cache: Path, cli: Cli) -> None:
    listed = cli("weights", "list").out
    assert all(name in listed for name in WEIGHTS)
    assert "resnet50_imagenet_v2" not in cli("weights", "list", "*_voc").out
    assert NAME not in cli("weights", "list", "--fetched").out
    shown = cli("weights", "show", "deeplab_v3_resnet50_coco_voc").out
    for text in (
        "https://download.pytorch.org/models/deeplabv3_resnet50_coco-cd0a2569.pth",
        "SHA-256 cd0a2569...",
        "160.5 MiB",
        "66.4 % mean IoU",
        "BSD-3-Clause",
        "tvmonitor",
    ):
        assert text in " ".join(shown.split()), text
    assert cli("weights", "show", "nothing").code == 2


# --- The catalog


@pytest.mark.parametrize("entry", WEIGHTS.values(), ids=WEIGHTS)
def test_every_entry_is_complete(entry: PublishedWeights) -> None:
    assert entry.license
    assert entry.score
    assert entry.remote.urls or entry.package
    assert re.fullmatch("[0-9a-f]*", entry.remote.digest)
    assert bool(entry.remote.digest) == bool(entry.remote.source)
    assert (entry.classes is None) == (entry.model == "")
    if entry.model:
        from pixelwise.weights.published.fetch import network_options

        with torch.device("meta"):
            create_model(entry.model, num_classes=len(entry.classes), **network_options(entry))


def test_names_and_prefixes_are_unique() -> None:
    files = [entry.remote.file for entry in catalog.WEIGHTS.values()]
    assert len({*files}) == len(files)
