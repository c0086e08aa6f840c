"""Runs predictions with a bounded queue, so that overload is refused instead of piling up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference import Predictor, Segmentation
from pixelwise.process_settings import cores

Result = TypeVar("Result")

PENDING_BYTES = 512 << 20
"""Largest total size of the bodies that wait or run."""


class OverloadedError(Exception):
    """The queue is full.

    Attributes:
        retry_after: Seconds after which the queue is expected to have room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class CancelledJobError(Exception):
    """The client of a job has gone, or its time is up, before it started."""


class Job:
    """A prediction that waits or runs; `cancel` keeps it from starting."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raise CancelledJobError if the job was cancelled."""
        if self._cancelled.is_set():
            raise CancelledJobError


class Scheduler:
    """Runs jobs in threads.

    Decoding and encoding run in any thread. As many networks run at once as the runtimes gain from
    (`Predictor.concurrency`): on a CPU, one image per core is as fast as a batch, and takes less
    memory, so that images are not joined to batches.

    Args:
        limit: Largest number of jobs that wait or run.
        longest_wait: Largest expected time in seconds that a new job may have to wait.
        concurrency: Largest number of networks that run at the same time.
    """

    def __init__(self, *, limit: int, longest_wait: float, concurrency: int) -> None:
        self.limit, self.longest_wait = limit, longest_wait
        self._concurrency = max(1, concurrency)
        self._slots = threading.Semaphore(self._concurrency)
        # Two more than networks: one image is decoded and another encoded meanwhile.
        self._pool = ThreadPoolExecutor(self._concurrency + min(2, cores()), "pixelwise-serve")
        self._lock = threading.Lock()
        self._pending = self._pending_bytes = 0
        self._seconds = 0.1  # running mean of the time between results

    @property
    def pending(self) -> int:
        """The number of jobs that wait or run."""
        return self._pending

    def submit(self, work: Callable[[Job], Result], *, size: int) -> tuple[Job, Future[Result]]:
        """Queue a job.

        Args:
            work: Called with the job in a thread.
            size: Number of bytes that the job keeps in memory.

        Raises:
            OverloadedError: If the queue is full.
        """
        with self._lock:
            wait = self._pending * self._seconds
            full = self._pending >= self.limit or (self._pending and wait > self.longest_wait)
            if full or (self._pending and self._pending_bytes + size > PENDING_BYTES):
                raise OverloadedError(max(1, round(wait)))
            self._pending += 1
            self._pending_bytes += size
        job = Job()
        future = self._pool.submit(self._run, work, job)
        future.add_done_callback(lambda _: self._release(size))
        return job, future

    def predict(
        self, predictor: Predictor, job: Job, pixels: Pixels, *, probabilities: bool
    ) -> Segmentation:
        """Predict a mask, with or without probabilities, when a network may run."""
        with self._slots:
            job.check()
            if probabilities:
                return predictor.predict_prepared(pixels)
            if self.pending > 1 and predictor.concurrency > 1:
                return predictor.segment_concurrently(pixels)
            return predictor.segment_prepared(pixels)

    def close(self) -> None:
        """Finish the accepted jobs."""
        self._pool.shutdown(wait=True)

    def _run(self, work: Callable[[Job], Result], job: Job) -> Result:
        job.check()
        start = time.monotonic()
        result = work(job)
        taken = (time.monotonic() - start) / self._concurrency
        self._seconds += 0.1 * (taken - self._seconds)
        return result

    def _release(self, size: int) -> None:
        with self._lock:
            self._pending -= 1
            self._pending_bytes -= size
