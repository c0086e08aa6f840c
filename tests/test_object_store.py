"""Datasets, images and results in an object store that fails: nothing lost, and a clear line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixture_types import Cli, MakeData
from object_store import CLIENT, Store, object_store
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError
from pixelwise.storage import addresses
from pixelwise.storage.addresses import StorageError, as_address, fetch, in_parallel, upload
from pixelwise.training import TrainingStoppedError, resume, train
from pixelwise.training.run_folder import Run
from pixelwise.weights.bundle import Bundle
from test_cluster import HAS_RAY, contrast_bundle, node_environment, results, write_images
from test_resume import StopAt, recipe, scenes, uninterrupted

pytestmark = [
    pytest.mark.skipif(
        not all(map(find_spec, ("s3fs", "moto", "flask_cors"))), reason="needs s3fs and moto"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # connections that are cut
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
__all__ = ["contrast_bundle", "scenes", "uninterrupted"]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    variables = {
        **CLIENT,
        "AWS_ENDPOINT_URL": server.url,
        "PIXELWISE_CACHE": str(tmp_path / "cache"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    import fsspec

    fsspec.config.set_conf_env(fsspec.config.conf)
    monkeypatch.setattr(addresses, "FIRST_WAIT_SECONDS", 0.02)
    server.fail()
    yield server
    server.fail()


def upload_tree(folder: Path, address: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    in_parallel(lambda f: upload(f, f"{address}/{f.relative_to(folder).as_posix()}"), files)


def kept(root: Path) -> list[Path]:
    """The images and masks whose content is in a mirror."""
    files = [path for path in root.rglob("*.png") if path.is_file()]
    return [path for path in files if not path.read_bytes().startswith(b"pixelwise placeholder")]


def test_a_dataset_in_a_failing_store_reads_like_a_folder(
    store: Store, tmp_path: Path, make_folder_data: MakeData
) -> None:
    folder = make_folder_data(tmp_path / "data", splits={"train": 6, "val": 2})
    upload_tree(folder, "s3://bucket/read")
    local = open_dataset(folder)
    limit = 10 * 1024
    before = store.failures()
    store.fail("error", "slow", "short", times=1, match=".png")
    remote = open_dataset("s3:/bucket/read", cache_bytes=0, mirror_bytes=limit)
    assert store.failures() - before >= 16  # every file failed once
    assert remote.checksums == local.checksums
    for _ in range(2):
        for split, samples in remote.splits.items():
            for sample, other in zip(samples, local.splits[split], strict=True):
                assert all(map(np.array_equal, remote.read(sample), local.read(other)))
        assert 0 < sum(path.stat().st_size for path in kept(remote.root)) <= limit

    few = kept(remote.root)
    replaced = folder / "images" / "train" / "train_000.png"
    replaced.write_bytes((folder / "images" / "train" / "train_001.png").read_bytes())
    upload(replaced, "s3://bucket/read/images/train/train_000.png")
    again = open_dataset("s3://bucket/read", cache_bytes=0, mirror_bytes=limit // 2)
    assert 0 < len(kept(again.root)) < len(few)
    assert again.checksums == open_dataset(folder).checksums

    store.fail("error", times=99, match="val_001")
    with pytest.raises(StorageError, match=r"images/val/val_001\.png: cannot be read after 5 att"):
        open_dataset("s3://bucket/read", cache_bytes=0, mirror_bytes=0)


def test_the_doctor_examines_an_address_like_a_folder(
    store: Store, tmp_path: Path, cli: Cli, make_folder_data: MakeData
) -> None:
    folder = make_folder_data(tmp_path / "data", splits={"train": 4, "val": 1})
    (folder / "masks" / "train" / "train_002.png").write_bytes(b"damaged")
    (folder / "images" / "train" / "alone.png").write_bytes(
        (folder / "images" / "train" / "train_000.png").read_bytes()
    )
    upload_tree(folder, "s3://bucket/doctor")
    store.fail("error", "short", times=1, match=".png")
    local = cli("doctor", "data", "--json", "local.json")
    remote = cli("doctor", "s3://bucket/doctor", "--json", "remote.json", "--html", "page.html")
    assert local.code == remote.code == 1, remote.err
    there, here = ((tmp_path / f"{name}.json").read_text() for name in ("remote", "local"))
    assert there.replace("s3://bucket/doctor", "data") == here
    assert str(tmp_path) not in there
    assert "image-without-mask" in {finding["kind"] for finding in json.loads(here)["findings"]}
    assert "train_002.png" in here
    assert "pixelwise train s3://bucket/doctor" in (tmp_path / "page.html").read_text()
    trained = cli("train", "s3://bucket/doctor", "--out", "run")
    assert trained.code == 2
    assert "s3://bucket/doctor/images/train/alone.png: has no mask" in trained.err
    assert str(tmp_path) not in trained.err
    refused = cli("doctor", "s3://bucket/doctor", "--write-data-toml")
    assert refused.code == 2
    assert "--write-data-toml: s3://bucket/doctor is an address" in refused.err


def test_rasters_in_a_store_are_read_like_local_ones(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    pytest.importorskip("pyogrio")
    import raster_files

    folder = tmp_path / "field"
    raster_files.write_flight(folder)
    labels = '{ path = "fields.gpkg", attribute = "crop" }'
    (folder / "data.toml").write_text(f'[[rasters]]\nimage = "north.tif"\nlabels = {labels}\n')
    upload_tree(folder, "s3://bucket/field")
    local = open_dataset(folder)
    remote = open_dataset("s3://bucket/field", cache_bytes=0, mirror_bytes=0)
    assert remote.checksums == local.checksums


def test_addresses_that_cannot_be_used_are_one_line(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s3://nobody/x: does not exist: check the address"):
        open_dataset("s3://nobody/x")
    with pytest.raises(InputError, match=r"no files there|does not exist"):
        open_dataset("s3://bucket/nothing")
    with pytest.raises(InputError, match=r"s3://bucket/a\.png: does not exist: check the address"):
        fetch("s3://bucket/a.png", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    if find_spec("gcsfs") is None:
        with pytest.raises(InputError, match=r"needs gcsfs.*pip install 'pixelwise\[gs\]'"):
            open_dataset("gs://bucket/x")
    assert as_address(Path("s3://b/x")) == "s3://b/x"
    assert as_address("data/s3/x") is None
    assert as_address("C:/x") is None


def download(address: str, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    for file in addresses.list_remote(address):
        fetch(file.address, folder / file.address.rpartition("/")[2])
    return results(folder)


def test_parts_read_from_and_write_to_a_failing_store(
    store: Store, tmp_path: Path, cli: Cli, contrast_bundle: Path
) -> None:
    images = write_images(tmp_path / "in", 9)
    (images / "i0004.png").write_bytes(b"damaged")
    (images / "i0005.png").rename(images / "i5 +%20::#[x]\u00e4.png")
    upload_tree(images, "s3://bucket/in")
    plain = cli("predict", contrast_bundle, "in", "--out", "plain", "--table", "plain.csv")
    store.fail("error", "slow", "short", times=1)
    for number in (1, 2):
        part = cli(
            *("predict", contrast_bundle, "s3://bucket/in", "--out", "s3://bucket/out"),
            *("--table", "t.csv", "--shard", f"{number}/2", "--shard-size", 3),
        )
        assert part.code == number - 1, part.err  # the second has the damaged image
    merged = cli("merge", "s3://bucket/out", "--table", "remote.csv")
    assert merged.code == 1
    assert merged.err == plain.err.replace("in/", "s3://bucket/in/")
    assert download("s3://bucket/out", tmp_path / "copy") == results(tmp_path / "plain")
    table = (tmp_path / "remote.csv").read_text()
    assert table.replace("s3://bucket/in/", "in/") == (tmp_path / "plain.csv").read_text()

    store.fail("error", times=999, match="/gone/")
    failed = cli(*("predict", contrast_bundle, "in", "--out", "s3://bucket/gone", "--shard", "1/1"))
    assert failed.code == 1
    assert "s3://bucket/gone" in failed.err
    assert "after 5 attempts" in failed.err
    store.fail()
    assert (
        cli(*("predict", contrast_bundle, "in", "--out", "s3://bucket/gone", "--shard", "1/1")).code
        == 1
    )  # one image is damaged
    assert download("s3://bucket/gone", tmp_path / "gone") == results(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_a_store_is_the_same_and_stops_with_one_line(
    store: Store, tmp_path: Path, run_cli: Cli, make_folder_data: MakeData, workers: int
) -> None:
    folder = make_folder_data(tmp_path / "data", splits={"train": 6, "val": 2})
    upload_tree(folder, f"s3://bucket/train{workers}")
    settings = {
        "model.options.backbone": "tiny",
        "model.weights": "none",
        "data.cache_mib": 0,
        "data.workers": workers,
        "kernels": "plain",
        "memory_format": "contiguous",
        "augmentation.crop": "[24,32]",
        "batch_size": 2,
    }
    arguments = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
    address = f"s3://bucket/train{workers}"
    local = run_cli("train", "data", "--out", "local", "--epochs", 3, *arguments)
    assert local.code == 0, local.err
    store.fail("error", "slow", "short", times=1, match=".png")
    remote = run_cli(
        *("train", address, "--out", "remote", "--epochs", 3, "--cache", "0.001MiB", *arguments)
    )
    assert remote.code == 0, remote.err
    assert json.loads((tmp_path / "remote" / "data.json").read_text())["root"] == address

    def scores(run: str) -> list[Any]:
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        values = [json.loads(line) for line in lines]
        return [(v.get("step"), v.get("loss"), v.get("mean_iou")) for v in values if "loss" in v]

    assert scores("remote") == scores("local")
    assert len(scores("local")) >= 3

    # A store that fails for good stops the run with one line.
    store.fail("error", times=10_000, match="train_003")
    stopped = run_cli("train", address, "--out", "new", "--epochs", 3, *arguments)
    assert stopped.code != 0
    assert "train_003.png: cannot be read after 5 attempts" in stopped.err
    assert "Traceback" not in stopped.err
    store.fail()


@pytest.mark.parametrize(
    ("position", "workers"),
    [
        (("step", 2, 2), 0),
        pytest.param(("validating", 2, 1), 0, marks=pytest.mark.slow),
        pytest.param(("step", 2, 2), 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_a_run_from_a_store_resumes_to_the_same_bits_on_another_machine(
    store: Store,
    tmp_path: Path,
    scenes: Path,
    uninterrupted: Run,
    position: tuple[Any, ...],
    workers: int,
) -> None:
    address = f"s3://bucket/resume-{position[0]}-{workers}"
    upload_tree(scenes, address)
    out = tmp_path / "run"
    settings = {"data.workers": workers, "data.cache_mib": 0, "data.disk_cache_mib": 0}
    store.fail("error", "short", times=1, match=".png")
    with pytest.raises(TrainingStoppedError):
        train(address, out, recipe(**settings), callback=StopAt(*position))
    shutil.rmtree(tmp_path / "cache")  # another machine has another cache
    store.fail("error", "short", times=1, match=".png")
    run = resume(out)
    before, after = Bundle.load(uninterrupted.last), Bundle.load(run.last)
    assert before.weights.keys() == after.weights.keys()
    assert all(before.weights[name].equal(after.weights[name]) for name in before.weights)
    assert before.scores == after.scores
    assert kept(tmp_path / "cache") == []


@HAS_RAY
@pytest.mark.slow
def test_a_cluster_reads_from_and_writes_to_a_failing_store(
    store: Store,
    tmp_path: Path,
    run_cli: Cli,
    contrast_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in node_environment().items():
        monkeypatch.setenv(name, value)
    images = write_images(tmp_path / "in", 60)
    upload_tree(images, "s3://bucket/ray")
    assert run_cli("predict", contrast_bundle, "in", "--out", "plain", "--no-overlay").code == 0
    store.fail("error", "slow", "short", times=2)
    command = ("predict", contrast_bundle, "s3://bucket/ray", "--out", "s3://bucket/masks")
    run = run_cli(*command, "--no-overlay", "--cluster", "local", "--shard-size", 10)
    assert run.code == 0, run.err
    assert "60 masks written to s3://bucket/masks" in run.out
    assert download("s3://bucket/masks", tmp_path / "copy") == results(tmp_path / "plain")
    assert os.environ["AWS_ENDPOINT_URL"] == store.url
