"""Run three steps for each of many items, with the steps of different items overlapped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

from pixelwise.errors import InputError
from pixelwise.process_settings import cores

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Worked = TypeVar("Worked")
Finished = TypeVar("Finished")
Queued = TypeVar("Queued")

QUEUE_ITEMS = 4
QUEUE_BYTES = 256 << 20
"""The largest number of items, and about the largest number of bytes, that wait before the middle
step and after it."""


@dataclass(frozen=True)
class Done(Generic[Item, Finished]):
    """An item with its result, or with the fault that prevented one."""

    item: Item
    result: Finished | None
    fault: InputError | None = None


def overlapped(
    items: Iterable[Item],
    *,
    prepare: Callable[[Item], Prepared],
    work: Callable[[Prepared], Worked],
    finish: Callable[[Item, Worked], Finished],
    size: Callable[[Prepared], int],
    stop: Callable[[], bool] = lambda: False,
    concurrency: int = 1,
) -> Generator[Done[Item, Finished]]:
    """Yield `finish(item, work(prepare(item)))` for each item, in order.

    However it ends, no thread keeps running. Close the generator if it may be left early.

    Args:
        items: The items.
        prepare: The first step; an InputError is recorded as the fault of the item.
        work: The middle step; an InputError is recorded as the fault of the item.
        finish: The last step. All of its errors are raised, as are other errors of `prepare` and
            `work`.
        size: The number of bytes that a prepared item holds; fewer of the large ones wait.
        stop: Called before each item. Once it returns True, no further item is started, and those
            that have been worked on are finished.
        concurrency: The number of calls of `work` that may run at the same time. With 1, `work`
            uses all cores and runs in the calling thread, while other threads run `prepare` and
            `finish`. With more, each call uses one core, and an item stays in one thread.
    """
    steps = _Steps(prepare, work, finish, size, stop)
    if concurrency == 1:
        return _pipelined(iter(items), steps)
    return _in_parallel(iter(items), steps, concurrency)


@dataclass(frozen=True)
class _Steps(Generic[Item, Prepared, Worked, Finished]):
    """The arguments of `overlapped`."""

    prepare: Callable[[Item], Prepared]
    work: Callable[[Prepared], Worked]
    finish: Callable[[Item, Worked], Finished]
    size: Callable[[Prepared], int]
    stop: Callable[[], bool]

    def fill(
        self,
        queue: deque[Queued],
        source: Iterator[Item],
        length: int,
        submit: Callable[[Item], Queued],
    ) -> None:
        """Submit items until the queue has `length` entries, the items end, or it should stop."""
        while not self.stop() and len(queue) < length:
            try:
                item = next(source)
            except StopIteration:
                break
            queue.append(submit(item))


def _pipelined(
    source: Iterator[Item], steps: _Steps[Item, Prepared, Worked, Finished]
) -> Generator[Done[Item, Finished]]:
    preparing: deque[tuple[Item, Future[Prepared]]] = deque()
    finishing: deque[Future[Done[Item, Finished]]] = deque()
    length = QUEUE_ITEMS

    def finish(item: Item, worked: Worked) -> Done[Item, Finished]:
        return Done(item, steps.finish(item, worked))

    # A small number: the network uses all cores, and the other steps are cheap.
    threads = max(2, min(8, cores() // 2))
    with ThreadPoolExecutor(threads, "pixelwise") as pool:
        try:
            while True:
                steps.fill(
                    preparing, source, length, lambda item: (item, pool.submit(steps.prepare, item))
                )
                if not preparing or steps.stop():
                    break
                item, future = preparing.popleft()
                try:
                    prepared = future.result()
                    length = _queue_length(QUEUE_ITEMS, steps.size(prepared))
                    worked = steps.work(prepared)
                except InputError as error:
                    finishing.append(pool.submit(Done[Item, Finished], item, None, error))
                else:
                    finishing.append(pool.submit(finish, item, worked))
                    del prepared, worked  # the future holds what is still needed
                while finishing and (len(finishing) > length or finishing[0].done()):
                    yield finishing.popleft().result()
            while finishing:
                yield finishing.popleft().result()
        finally:
            for _, waiting in preparing:
                waiting.cancel()


def _in_parallel(
    source: Iterator[Item], steps: _Steps[Item, Prepared, Worked, Finished], concurrency: int
) -> Generator[Done[Item, Finished]]:
    limit, running = concurrency, 0
    changed = Condition()

    def run(item: Item) -> Done[Item, Finished] | None:
        """Run all steps of an item; return None if it should stop before."""
        nonlocal limit, running
        with changed:
            changed.wait_for(lambda: running < limit)
            if steps.stop():
                return None
            running += 1
        try:
            prepared = steps.prepare(item)
            # One is worked on while another is prepared and a third is finished.
            limit = max(3, _queue_length(concurrency, steps.size(prepared)))
            worked = steps.work(prepared)
            del prepared
            return Done(item, steps.finish(item, worked))
        except InputError as error:
            return Done(item, None, error)
        finally:
            with changed:
                running -= 1
                changed.notify_all()

    futures: deque[Future[Done[Item, Finished] | None]] = deque()
    with ThreadPoolExecutor(concurrency, "pixelwise") as pool:
        try:
            while True:
                steps.fill(futures, source, 2 * concurrency, lambda item: pool.submit(run, item))
                if steps.stop():  # items that have been started are finished
                    futures = deque(future for future in futures if not future.cancel())
                if not futures:
                    break
                done = futures.popleft().result()
                if done is not None:
                    yield done
        finally:
            for future in futures:
                future.cancel()


def _queue_length(most: int, size: int) -> int:
    """Return how many items of `size` bytes may wait."""
    return max(1, min(most, QUEUE_BYTES // max(1, size)))
