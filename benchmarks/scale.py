"""A billion images on a thousand workers: a simulation of failing workers, by the size of shards.

    python benchmarks/scale.py [--images 1e9] [--workers 1000] [--rate 25] [--seed 0]

Workers take shards from one queue. A shard costs a fixed overhead (listing, transfer of the first
image, commit) and its images at the rate of the worker; rates differ between workers. Workers fail
at random; what they had of their shard is lost, the shard goes back to the queue, and a new worker
starts after a delay. For comparison, each worker has a fixed part of the images, as with
`--shard 3/1000`; a part continues on the new worker after its last complete shard.

It also prints what a billion images take in storage, from generated scenes, and how long the
manifest becomes.
"""

from __future__ import annotations

import argparse
import heapq
import io
from dataclasses import dataclass

import numpy as np

SIZES = (256, 1000, 4000, 10_000, 40_000, 160_000)
MONTH = 30 * 24 * 3600.0
FAILURES = {"one in 30 days": MONTH, "one in 20 hours": 72_000.0, "one in 2 hours": 7200.0}
LINE = 270  # bytes of a line of the manifest


@dataclass(frozen=True)
class Job:
    """What is simulated; times in seconds.

    Attributes:
        images: Number of images.
        workers: Number of workers.
        rate: Mean number of images per second of a worker.
        spread: Standard deviation of the logarithm of the rates.
        overhead: Fixed time of a shard.
        restart: Time until a lost worker is replaced and has loaded the network.
    """

    images: int
    workers: int
    rate: float
    spread: float = 0.1
    overhead: float = 2.0
    restart: float = 180.0

    @property
    def ideal(self) -> float:
        """The time without failures, overhead and differences."""
        return self.images / self.workers / self.rate


@dataclass(frozen=True)
class Outcome:
    """Time of the job, lost worker time as a fraction of all, and the number of failures."""

    seconds: float
    lost: float
    failures: int


def simulate_queue(job: Job, size: int, mean_time: float, seed: int) -> Outcome:
    """Simulate workers that take shards of `size` images from one queue.

    Args:
        job: The job.
        size: Images per shard.
        mean_time: Mean time between the failures of a worker.
        seed: Seed of rates and failures.
    """
    rng = np.random.default_rng(seed)
    rates = job.rate * np.exp(rng.normal(0, job.spread, job.workers) - job.spread**2 / 2)
    waiting = -(-job.images // size)
    durations = job.overhead + size / rates
    free = [(0.0, worker) for worker in range(job.workers)]  # when a worker is free
    fails = rng.exponential(mean_time, job.workers)
    failures, lost, end = 0, 0.0, 0.0
    heapq.heapify(free)
    running: list[float] = []  # when a failed shard returns to the queue
    while waiting or running:
        now, worker = heapq.heappop(free)
        while running and running[0] <= now:
            heapq.heappop(running)
            waiting += 1
        if not waiting:
            if not running:
                break
            heapq.heappush(free, (running[0], worker))  # idle until a shard returns
            continue
        waiting -= 1
        done = now + durations[worker]
        if done <= fails[worker]:
            end = max(end, done)
            heapq.heappush(free, (done, worker))
            continue
        failed = max(now, fails[worker])
        failures += 1
        lost += failed - now + job.restart
        heapq.heappush(running, failed)
        fails[worker] = failed + job.restart + rng.exponential(mean_time)
        heapq.heappush(free, (failed + job.restart, worker))
    return Outcome(end, lost / (end * job.workers), failures)


def simulate_parts(job: Job, size: int, mean_time: float, seed: int) -> Outcome:
    """Simulate workers with a fixed part of the images each."""
    rng = np.random.default_rng(seed)
    rates = job.rate * np.exp(rng.normal(0, job.spread, job.workers) - job.spread**2 / 2)
    images = job.images / job.workers
    failures, lost, end = 0, 0.0, 0.0
    for rate in rates:
        duration = job.overhead + size / rate
        now, left = 0.0, images
        while left > 0:
            needed = -(-left // size) * job.overhead + left / rate
            until = rng.exponential(mean_time)
            if needed <= until:
                now += needed
                break
            complete = int(until // duration)
            left -= complete * size
            failures += 1
            lost += until - complete * duration + job.restart
            now += until + job.restart
        end = max(end, now)
    return Outcome(end, lost / (end * job.workers), failures)


def best_size(job: Job, mean_time: float) -> float:
    """The size at which overhead and lost work balance: Young's formula for checkpoints."""
    return job.rate * float(np.sqrt(2 * job.overhead * mean_time))


def bytes_per_image(count: int = 100) -> tuple[float, float]:
    """Return the mean bytes of a JPEG image and of a palette mask of a scene of 360x480."""
    from PIL import Image

    from pixelwise.data.png_encoding import encode_palette
    from pixelwise.data.scenes import generate_scene
    from pixelwise.data.scenes.scene_classes import SCENE_CLASSES

    images, masks = [], []
    for seed in range(count):
        image, mask = generate_scene(seed, height=360, width=480)
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=90)
        images.append(stream.tell())
        masks.append(len(encode_palette(mask, SCENE_CLASSES.palette())))
    return float(np.mean(images)), float(np.mean(masks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=float, default=1e9)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=25.0, help="images/s of a worker")
    parser.add_argument("--overhead", type=float, default=2.0, help="seconds per shard")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    job = Job(int(arguments.images), arguments.workers, arguments.rate, overhead=arguments.overhead)
    print(f"{job.images:,} images, {job.workers} workers of {job.rate:g} images/s")
    print(f"without failures and overhead: {job.ideal / 3600:.1f} hours\n")
    for name, mean_time in FAILURES.items():
        print(f"failures of a worker: {name}; balance at {best_size(job, mean_time):,.0f} images")
        print("  images/shard    shards  manifest  failures    lost  queue, hours  parts, hours")
        for size in SIZES:
            queue = simulate_queue(job, size, mean_time, arguments.seed)
            parts = simulate_parts(job, size, mean_time, arguments.seed)
            shards = -(-job.images // size)
            print(
                f"  {size:>12,} {shards:>9,} {shards * LINE / 1e6:>6,.1f} MB {queue.failures:>9,} "
                f"{queue.lost:>6.1%} {queue.seconds / 3600:>13.2f} {parts.seconds / 3600:>13.2f}"
            )
        print()
    image, mask = bytes_per_image()
    for what, each in (("images, JPEG of 360x480", image), ("masks", mask)):
        print(f"{what}: {each / 1e3:.1f} kB each, {each * job.images / 1e12:.1f} TB")


if __name__ == "__main__":
    main()
