"""Prediction in shards: the results of one machine, each once, whatever is lost on the way."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixelwise
from fixture_types import Cli
from pixelwise.cluster.inputs import divide, find_items
from pixelwise.cluster.manifest import parse, parse_part
from pixelwise.cluster.output import STATE
from pixelwise.errors import InputError

HAS_RAY = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("ray"), reason="Ray is not installed"
)


@pytest.fixture(scope="session")
def contrast_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """`tiny_bundle`, changed so that its masks contain several classes."""
    from pixelwise.weights.bundle import Bundle

    bundle = Bundle.load(tiny_bundle)
    name = [name for name in bundle.weights if name.endswith("weight")][-1]
    bundle.weights[name] = bundle.weights[name] * 200
    path = tmp_path_factory.mktemp("contrast") / "net.safetensors"
    bundle.save(path)
    return path


def write_images(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        coarse.resize((48, 32), Image.Resampling.BILINEAR).save(folder / f"i{number:04d}.png")
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """The content of each result by name."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*") if path.is_file()}


def lines(out: Path, name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / STATE / name).read_text().splitlines()]


def test_parts_give_the_results_and_the_table_of_one_run(
    tmp_path: Path, cli: Cli, contrast_bundle: Path
) -> None:
    images = write_images(tmp_path / "in", 11)
    (images / "i0004.png").write_bytes(b"damaged")
    arguments = ("--confidence", "--table")
    plain = cli("predict", contrast_bundle, "in", "--out", "plain", *arguments, "plain.csv")
    assert plain.code == 1
    for number in (1, 2, 3):
        part = cli(
            *("predict", contrast_bundle, "in", "--out", "parts", "--shard", f"{number}/3"),
            *(*arguments, "parts.csv", "--shard-size", 2),
        )
        assert part.code == (1 if number == 3 else 0), part.err
    assert part.err == plain.err
    merged = cli("merge", "parts", "--table", "parts.csv")
    assert merged.code == 1
    assert merged.err == plain.err
    assert "6 shards with 10 images are in parts" in merged.out
    assert results(tmp_path / "parts") == results(tmp_path / "plain")
    assert len({bytes(np.asarray(Image.open(p))) for p in tmp_path.glob("plain/i????.png")}) > 5
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()


def test_merge_names_the_missing_part_and_the_one_that_ran_twice(
    tmp_path: Path, cli: Cli, contrast_bundle: Path
) -> None:
    write_images(tmp_path / "in", 34)
    command = ("predict", contrast_bundle, "in", "--out", "out", "--no-overlay", "--shard")
    for number in [*range(1, 17), 5]:
        if number != 7:
            assert cli(*command, f"{number}/16").code == 0
    again = cli(*command, "5/16")
    assert "2 of 2 images were finished by an earlier run and are kept" in again.out
    incomplete = cli("merge", "out")
    assert incomplete.code == 1
    assert "out: part 7 of 16 is missing: predict with --shard 7/16" in incomplete.err
    assert "out: part 5 of 16 ran 3 times; each of its results is kept once" in incomplete.err
    cli(*command, "7/16")
    merged = cli("merge", "out")
    assert merged.code == 0, merged.err
    assert "part 5 of 16 ran 3 times" in merged.out
    assert len(results(tmp_path / "out")) == 34
    assert len(lines(tmp_path / "out")) == 1 + 17 + 1  # header, shards, end


def test_merge_of_several_folders_copies_and_refuses_what_differs(
    tmp_path: Path, cli: Cli, contrast_bundle: Path
) -> None:
    write_images(tmp_path / "in", 4)
    for out, part in (("a", "1/2"), ("b", "2/2"), ("c", "1/2")):
        cli("predict", contrast_bundle, "in", "--out", out, "--no-overlay", "--shard", part)
    cli("predict", contrast_bundle, "in", "--out", "plain", "--no-overlay")
    merged = cli("merge", "a", "b", "c", "--out", "all")
    assert merged.code == 0, merged.err
    assert "a and c: part 1 of 2 ran twice" in merged.out.replace(f"{tmp_path}/", "")
    assert results(tmp_path / "all") == results(tmp_path / "plain")

    assert cli("merge", "a", "b").err.endswith("add --out with the place for all results\n")
    (tmp_path / "b" / "i0002.png").unlink()
    gone = cli("merge", "a", "b", "--out", "new")
    assert gone.code == 1
    assert "1 results of shard 1 are gone or changed, such as i0002.png" in gone.err
    assert not (tmp_path / "new").exists()

    manifest = tmp_path / "c" / STATE / "manifest-1-of-2.jsonl"
    record = lines(tmp_path / "c", manifest.name)[1]
    manifest.write_text(manifest.read_text().replace(record["digest"], "0" * 32))
    differing = cli("merge", "a", "c", "b", "--out", "new")
    assert "shard 0 ran twice with different results" in differing.err
    cli("predict", contrast_bundle, "in", "--out", "d", "--shard", "2/2")
    other = cli("merge", "a", "d", "--out", "new")
    assert other.code == 2
    assert "belongs to another job" in other.err
    assert "the network or options differ" in other.err


def test_a_part_redoes_what_changed_and_keeps_the_rest(
    tmp_path: Path, cli: Cli, contrast_bundle: Path
) -> None:
    images = write_images(tmp_path / "in", 8)
    command = (
        *("predict", contrast_bundle, "in", "--out", "out", "--no-overlay"),
        *("--shard", "1/1", "--shard-size", 2),
    )
    cli(*command)
    before = results(tmp_path / "out")
    write_images(tmp_path / "other", 8, seed=1)
    shutil.copy(tmp_path / "other" / "i0003.png", images / "i0003.png")
    (tmp_path / "out" / "i0006.png").unlink()
    assert "4 of 8 images were finished" in cli(*command).out
    after = results(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {"i0003.png"}
    assert {*after} == {*before}

    manifest = tmp_path / "out" / STATE / "manifest-1-of-1.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-90])  # torn: the end and part of a shard
    assert "6 of 8 images were finished" in cli(*command).out
    assert results(tmp_path / "out") == after
    other = cli(*command, "--flip")
    assert "discarded an unfinished run of another bundle, other options" in other.out


def test_files_of_others_stay(tmp_path: Path, cli: Cli, contrast_bundle: Path) -> None:
    write_images(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "i0001.png").write_bytes(b"mine")
    command = ("predict", contrast_bundle, "in", "--out", "out", "--shard", "1/1")
    refused = cli(*command)
    assert refused.code == 2
    assert "out/i0001.png: exists and was not written by this command" in refused.err
    assert results(tmp_path / "out") == {"i0001.png": b"mine"}
    assert cli(*command, "--overwrite").code == 0
    assert len(results(tmp_path / "out")) == 6


def write_tar(path: Path, images: Path) -> Path:
    """Write a WebDataset shard with a class and a mask beside each image."""
    with tarfile.open(path, "w") as archive:
        for image in sorted(images.glob("*.png")):
            for suffix, content in (("cls", b"1"), ("seg.png", b"?"), ("png", image.read_bytes())):
                member = tarfile.TarInfo(f"a/{image.stem}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_tar_files_in_and_out(tmp_path: Path, cli: Cli, contrast_bundle: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    cli("predict", contrast_bundle, "in", "--out", "plain", "--confidence")
    plain = results(tmp_path / "plain")
    (tmp_path / "tars").mkdir()
    for name in ("x", "y"):
        write_tar(tmp_path / "tars" / f"{name}.tar", images)
    command = ("predict", contrast_bundle, "tars", "--out", "out", "--confidence")
    run = cli(*command, "--shard", "1/1")
    assert run.code == 0, run.err
    assert {*results(tmp_path / "out")} == {"x.tar", "y.tar"}
    with tarfile.open(tmp_path / "out" / "y.tar") as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    expected = {"a/" + name.replace("_", ".", 1): content for name, content in plain.items()}
    assert members == expected

    (tmp_path / "dotted").mkdir()
    with tarfile.open(tmp_path / "dotted" / "z.tar", "w") as archive:
        for name in ("22.05.png", "b.png", "b.seg.png"):
            archive.add(images / "i0001.png", name)
    dotted = cli("predict", contrast_bundle, "dotted", "--out", "few", "--shard", "1/1")
    assert dotted.code == 1
    assert dotted.err.count("\n") == 1
    assert "dotted/z.tar!22: its only image is 22.05.png, but a key ends at the" in dotted.err
    with tarfile.open(tmp_path / "few" / "z.tar") as archive:
        assert archive.getnames() == ["b.png", "b.overlay.png"]

    loose = cli(
        *("predict", contrast_bundle, "in", "--out", "packed", "--confidence"),
        *("--shard", "1/1", "--tar"),
    )
    assert loose.code == 0, loose.err
    with tarfile.open(tmp_path / "packed" / "shard-000000.tar") as archive:
        assert {f"a/{name}" for name in archive.getnames()} == {*expected}
    cut = (tmp_path / "tars" / "x.tar").read_bytes()
    (tmp_path / "tars" / "x.tar").write_bytes(cut[: len(cut) // 2 + 100])
    damaged = cli(*command, "--shard", "1/1")
    assert damaged.code == 1
    assert "tars/x.tar: cannot be read to its end" in damaged.err
    own_input = cli("predict", contrast_bundle, "tars", "--out", "tars", "--shard", "1/1")
    assert own_input.code == 2
    assert "were not written by this" in own_input.err or "did not write" in own_input.err


def test_inputs_are_folders_patterns_and_lists(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 4)
    (images / "note.md").write_text("no image")
    listed = tmp_path / "list.txt"
    listed.write_text(f"in/i0002.png\n\n{images}/i0001.png\nin/i0002.png\n")

    def names(*inputs: object) -> list[str]:
        return [Path(item.where).name for item in find_items([str(i) for i in inputs])]

    assert names(images) == [f"i000{n}.png" for n in range(4)]
    assert names(f"{images}/*2.*", f"{images}/*1.*") == ["i0002.png", "i0001.png"]
    assert names(listed) == ["i0002.png", "i0001.png"]
    assert (
        len(
            {
                shard.key
                for shard in divide(
                    find_items([str(images)]), "out", overlay=True, suffixes=(), size=1
                )
            }
        )
        == 4
    )
    with pytest.raises(InputError, match="no images in it"):
        names(f"{images}/*.tif")
    write_tar(images / "x.tar", images)
    with pytest.raises(InputError, match="1 tar files and 4 images"):
        names(images)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--shard", "0/4"), "--shard 0/4: give NUMBER/COUNT with a number from 1 to the count"),
        (("--shard", "5/4"), "--shard 5/4: give NUMBER/COUNT"),
        (("--shard", "1/2", "--cluster", "local"), "--cluster with --shard: each divides"),
        (("--shard", "1/2", "--large"), "--large with --shard: only whole images"),
        (("--shard-size", "3"), "--shard-size: has no effect without --cluster or --shard"),
        (("--tar",), "--tar: has no effect without --cluster or --shard"),
        (("--out", "s3://bucket/x"), "s3://bucket/x: addresses need --cluster local"),
        (("--shard", "1/2", "--out", "zz://x"), "zz:"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, cli: Cli, contrast_bundle: Path, arguments: tuple[str, ...], line: str
) -> None:
    write_images(tmp_path / "in", 1)
    result = cli("predict", contrast_bundle, "in", *arguments)
    if line == "zz:":  # an unknown kind of address is a folder
        assert result.code == 0
        return
    assert result.code == 2
    assert line in result.err
    assert len(result.err.splitlines()) == 1


def test_manifest_lines_after_a_torn_one_do_not_count() -> None:
    assert parse("") is None
    assert parse('{"format": 99}\n') is None
    header, end = '{"format": 1, "settings": {}}', '{"finished": true}'
    content = parse(f'{header}\n{end}\n{{"sha\n{end}\n')
    assert content is not None
    assert content.finished == 1
    assert parse_part("3/16") == (3, 16)


# --- Ray


def node_environment() -> dict[str, str]:
    source = str(Path(pixelwise.__file__).parent.parent)
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    return {**os.environ, "PYTHONPATH": source, **variables}


def tokenless() -> dict[str, str]:
    """Return an environment in which Ray ignores the token in the home folder, if there is one."""
    return {**node_environment(), "RAY_AUTH_MODE": "disabled"}


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a Ray node in a process group of its own, which `end_node` ends."""
    ray = Path(sys.executable).with_name("ray")
    return subprocess.Popen(
        [ray, "start", "--block", "--num-cpus=1", "--disable-usage-stats", *arguments],
        env=tokenless(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_node(node: subprocess.Popen[bytes]) -> None:
    os.killpg(node.pid, signal.SIGKILL)
    node.wait()


@HAS_RAY
def test_a_local_cluster_gives_the_results_of_one_machine(
    tmp_path: Path, run_cli: Cli, contrast_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", node_environment())
    images = write_images(tmp_path / "in", 40)
    (images / "i0017.png").write_bytes(b"damaged")
    arguments = ("in", "--confidence", "--table")
    plain = run_cli("predict", contrast_bundle, *arguments, "plain.csv", "--out", "plain")
    ray = run_cli(
        *("predict", contrast_bundle, *arguments, "ray.csv", "--out", "ray"),
        *("--cluster", "local", "--shard-size", 8),
    )
    assert (ray.code, ray.err) == (1, plain.err)
    assert results(tmp_path / "ray") == results(tmp_path / "plain")
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    assert sorted(line["shard"] for line in lines(tmp_path / "ray")[1:-1]) == [0, 1, 2, 3, 4]
    assert [p.name for p in (tmp_path / "ray" / STATE).iterdir() if p.name.startswith("job")] == []


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    port = 20000 + os.getpid() % 20000
    address = f"127.0.0.1:{port}"
    nodes = [start_node("--head", f"--port={port}", "--include-dashboard=false")]
    time.sleep(10)
    nodes.append(start_node(f"--address={address}"))
    try:
        yield address, nodes
    finally:
        for node in nodes:
            if node.poll() is None:
                end_node(node)


@HAS_RAY
@pytest.mark.slow
def test_a_lost_node_and_a_killed_driver_lose_and_duplicate_nothing(
    tmp_path: Path,
    run_cli: Cli,
    contrast_bundle: Path,
    two_nodes: tuple[str, list[subprocess.Popen[bytes]]],
) -> None:
    count = int(os.environ.get("PIXELWISE_TEST_IMAGES", "400"))
    write_images(tmp_path / "in", count)
    assert run_cli("predict", contrast_bundle, "in", "--out", "plain", "--no-overlay").code == 0
    address, nodes = two_nodes
    command = [
        *(sys.executable, "-m", "pixelwise", "predict", str(contrast_bundle), "in"),
        *("--out", "out", "--no-overlay", "--cluster", address, "--shard-size", str(count // 50)),
    ]

    def wait_for(shards: int, driver: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            manifest = tmp_path / "out" / STATE / "manifest.jsonl"
            if manifest.exists() and len(manifest.read_text().splitlines()) > shards:
                return
            assert driver.poll() is None
            time.sleep(0.1)
        raise AssertionError(f"no {shards} shards")

    driver = subprocess.Popen(command, cwd=tmp_path, env=tokenless())
    wait_for(10, driver)
    end_node(nodes[1])
    wait_for(20, driver)
    driver.kill()
    driver.wait()
    again = subprocess.run(command, cwd=tmp_path, env=tokenless(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"of {count} images were finished by an earlier run and are kept" in again.stdout
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    records = [line for line in lines(tmp_path / "out") if "shard" in line]
    assert sorted(record["shard"] for record in records) == list(range(50))
    assert not (tmp_path / "out" / STATE / "work").exists()


@HAS_RAY
@pytest.mark.slow
def test_a_token_that_the_cluster_does_not_use_is_one_line(
    tmp_path: Path, contrast_bundle: Path, two_nodes: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    """Ray connects all the same, and ends each worker at once."""
    write_images(tmp_path / "in", 2)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pixelwise", "predict", str(contrast_bundle), "in"),
            *("--out", "out", "--cluster", two_nodes[0]),
        ],
        cwd=tmp_path,
        env={**node_environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 32 * "ab"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "its workers end before they start" in done.stderr.splitlines()[-1]
    assert "set RAY_AUTH_MODE alike in both" in done.stderr.splitlines()[-1]


@HAS_RAY
@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_is_one_line(
    tmp_path: Path, run_cli: Cli, contrast_bundle: Path
) -> None:
    write_images(tmp_path / "in", 1)
    result = run_cli("predict", contrast_bundle, "in", "--cluster", "127.0.0.1:1")
    assert result.code == 2
    assert "cluster 127.0.0.1:1: cannot be reached" in result.err.splitlines()[-1]
