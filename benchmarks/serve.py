"""Measure `pixelwise serve` at 1, 8 and 64 connections, next to the folder pipeline.

    python benchmarks/serve.py [--model EXPORT] [--seconds S] [--rounds N] [--overload SECONDS]

JPEG in, mask PNG out. The client runs on the same machine, in one process with one thread per
connection; its own processor time is printed, because it takes cores from the server. With
`--overload`, four times as many requests as the service can answer are sent for that long: every
answer must be the right mask or status 503.
"""

from __future__ import annotations

import argparse
import http.client
import io
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import harness
from pixelwise.data.scenes import generate_scene
from pixelwise.inference import Predictor, predict_folder

SIZE = (360, 480)
IMAGES = 24
CONNECTIONS = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a bundle or an export")
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, default=0.0, metavar="SECONDS")
    arguments = parser.parse_args()
    print(f"{harness.machine()}, {date.today().isoformat()}, {arguments.rounds} rounds, medians")
    with tempfile.TemporaryDirectory(prefix="pixelwise-bench-") as name:
        folder = Path(name)
        model = arguments.model or export_default(folder)
        images = write_images(folder / "images")
        server = Server(model, folder / "log")
        try:
            compare(server, model, images, folder, arguments.seconds, arguments.rounds)
            if arguments.overload:
                overload(server, model, images, arguments.overload)
        finally:
            server.stop()


def export_default(folder: Path) -> Path:
    """Export the default network with random weights to OpenVINO."""
    from pixelwise.exporters import export
    from runtimes import random_bundle

    bundle = random_bundle(folder / "best.safetensors", "deeplab_v3plus", {}, 11)
    return Path(export(bundle, to="openvino").path).parent


def write_images(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = []
    for seed in range(IMAGES):
        paths.append(folder / f"{seed:03d}.jpg")
        image, _ = generate_scene(seed, height=SIZE[0], width=SIZE[1])
        Image.fromarray(image).save(paths[-1], quality=90)
    return paths


class Server:
    """A server process on a free port."""

    def __init__(self, model: Path, log: Path) -> None:
        command = [sys.executable, "-m", "pixelwise", "serve", str(model), "--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if " at " not in line:
            sys.exit(f"the server did not start: {log.read_text()}")
        self.port = int(line.split(" at ")[1].split()[0].rpartition(":")[2])

    def memory(self) -> float:
        """Resident memory in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def compare(
    server: Server, model: Path, images: list[Path], folder: Path, seconds: float, rounds: int
) -> None:
    predictor = Predictor.load(model)
    rates: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    client: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first round warms up
        pipeline = folder_rate(predictor, images, folder / f"out{number}", seconds)
        results = {"folder pipeline": (pipeline, [0.0], 0.0)}
        for count in CONNECTIONS:
            results[f"{count} connections"] = load(server.port, images, count, seconds)
        for name, (rate, times, own) in results.items():
            if number:
                rates.setdefault(name, []).append(rate)
                latencies.setdefault(name, []).extend(times)
                client.setdefault(name, []).append(own)
    base = statistics.median(rates["folder pipeline"])
    print(
        f"{'':16} {'images/s':>9} {'of folder':>10} {'p50 ms':>8} {'p99 ms':>8} {'client CPU':>11}"
    )
    for name, values in rates.items():
        rate = statistics.median(values)
        times = sorted(latencies[name])
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        own = statistics.median(client[name])
        print(
            f"{name:16} {rate:9.2f} {rate / base:10.0%} {1000 * p50:8.0f} {1000 * p99:8.0f} "
            f"{own:11.1%}",
            flush=True,
        )


def folder_rate(predictor: Predictor, images: list[Path], out: Path, seconds: float) -> float:
    """Images per second of the folder pipeline, masks only."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        predict_folder(predictor, images, out / str(done), overlay=False)
        done += len(images)
    return done / (time.perf_counter() - start)


def load(
    port: int, images: list[Path], connections: int, seconds: float
) -> tuple[float, list[float], float]:
    """Send requests over persistent connections.

    Returns:
        Answered images per second, the time of each, and the client's share of one core.
    """
    bodies = [path.read_bytes() for path in images]
    times: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    end = begin + seconds

    def run(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/v1/segment", bodies[number % len(bodies)])
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            times.append(time.perf_counter() - start)
            number += connections

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    return len(times) / elapsed, times, (time.process_time() - cpu) / elapsed


def overload(server: Server, model: Path, images: list[Path], seconds: float) -> None:
    """Send four times the requests that the queue holds, and check every answer."""
    predictor = Predictor.load(model)
    expected = [predictor.segment(path).mask for path in images]
    bodies = [path.read_bytes() for path in images]
    counts: Counter[Any] = Counter()
    memory = [server.memory()]
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            try:
                connection.request("POST", "/v1/segment", bodies[number % len(bodies)])
                response = connection.getresponse()
                body = response.read()
            except OSError as error:
                counts[type(error).__name__] += 1
                continue
            finally:
                connection.close()
            if response.status == 200:
                mask = np.asarray(Image.open(io.BytesIO(body)))
                same = np.array_equal(mask, expected[number % len(bodies)])
                counts["right" if same else "WRONG"] += 1
            else:
                counts[response.status] += 1
                time.sleep(0.2)
            number += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4 * 128)]
    for thread in threads:
        thread.start()
    while time.perf_counter() < end:
        time.sleep(min(10.0, seconds / 6))
        memory.append(server.memory())
    for thread in threads:
        thread.join()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/v2/health/ready")
    healthy = connection.getresponse().status == 200
    shown = ", ".join(f"{value:.0f}" for value in memory)
    print(f"\noverload, {seconds:.0f} s: {dict(counts)}; healthy afterwards: {healthy}")
    print(f"server memory in MiB, from the start: {shown}")
    assert not counts["WRONG"]


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    main()
