"""Three steps for each of many items, overlapped."""

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
Begun = TypeVar("Begun")

AHEAD = 4
BUDGET = 256 << 20
"""At most so many items, and about so many bytes, wait ahead of the middle step and behind it."""


@dataclass(frozen=True)
class Done(Generic[Item, Finished]):
    """An item that has come through, or the fault for which it has not."""

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
    """`finish(item, work(prepare(item)))` of each item, in order.

    concurrency: how many calls of `work` may run at the same time. One: it takes all cores and runs
        in the calling thread, `prepare` and `finish` in others ahead of and behind it. Several:
        each takes a core, and an item stays in one thread for all of its steps.
    size: bytes that a prepared item holds; large ones wait in smaller numbers.
    stop: asked before each item; when it is true, nothing new is begun and what has been worked
        on is finished.

    An InputError of `prepare` or `work` is the item's fault and the rest goes on; any other error,
    and any of `finish`, is raised. However it ends, no thread is left running; close it where it
    may be left early.
    """
    steps = _Steps(prepare, work, finish, size, stop)
    if concurrency == 1:
        return _staged(iter(items), steps)
    return _side_by_side(iter(items), steps, concurrency)


@dataclass(frozen=True)
class _Steps(Generic[Item, Prepared, Worked, Finished]):
    """What `overlapped` is given."""

    prepare: Callable[[Item], Prepared]
    work: Callable[[Prepared], Worked]
    finish: Callable[[Item, Worked], Finished]
    size: Callable[[Prepared], int]
    stop: Callable[[], bool]

    def begin(
        self,
        source: Iterator[Item],
        queue: deque[Begun],
        room: int,
        submit: Callable[[Item], Begun],
    ) -> None:
        """Have `room` items in the queue, as long as there are some and it is not to stop."""
        while not self.stop() and len(queue) < room:
            try:
                item = next(source)
            except StopIteration:
                break
            queue.append(submit(item))


def _staged(
    source: Iterator[Item], steps: _Steps[Item, Prepared, Worked, Finished]
) -> Generator[Done[Item, Finished]]:
    coming: deque[tuple[Item, Future[Prepared]]] = deque()
    going: deque[tuple[Item, Future[Finished] | InputError]] = deque()
    room = AHEAD
    with ThreadPoolExecutor(_threads(), "pixelwise") as pool:
        try:
            while True:
                steps.begin(
                    source, coming, room, lambda item: (item, pool.submit(steps.prepare, item))
                )
                if not coming or steps.stop():
                    break
                item, future = coming.popleft()
                try:
                    prepared = future.result()
                    room = _room(AHEAD, steps.size(prepared))
                    worked = steps.work(prepared)
                except InputError as error:
                    going.append((item, error))
                else:
                    going.append((item, pool.submit(steps.finish, item, worked)))
                    del prepared, worked  # the future holds what is still needed
                while going and (len(going) > room or _ready(going[0][1])):
                    yield _done(*going.popleft())
            while going:
                yield _done(*going.popleft())
        finally:
            for _, waiting in coming:
                waiting.cancel()


def _side_by_side(
    source: Iterator[Item], steps: _Steps[Item, Prepared, Worked, Finished], concurrency: int
) -> Generator[Done[Item, Finished]]:
    room, running = concurrency, 0
    changed = Condition()

    def whole(item: Item) -> Done[Item, Finished] | None:
        """None where it was to stop before."""
        nonlocal room, running
        with changed:
            changed.wait_for(lambda: running < room)
            if steps.stop():
                return None
            running += 1
        try:
            prepared = steps.prepare(item)
            # One is worked on while another is prepared and a third is finished.
            room = max(3, _room(concurrency, steps.size(prepared)))
            worked = steps.work(prepared)
            del prepared
            return Done(item, steps.finish(item, worked))
        except InputError as error:
            return Done(item, None, error)
        finally:
            with changed:
                running -= 1
                changed.notify_all()

    going: deque[Future[Done[Item, Finished] | None]] = deque()
    with ThreadPoolExecutor(concurrency, "pixelwise") as pool:
        try:
            while True:
                steps.begin(source, going, 2 * concurrency, lambda item: pool.submit(whole, item))
                if steps.stop():  # those that are begun are finished
                    going = deque(future for future in going if not future.cancel())
                if not going:
                    break
                done = going.popleft().result()
                if done is not None:
                    yield done
        finally:
            for future in going:
                future.cancel()


def _room(most: int, size: int) -> int:
    """How many items of so many bytes may wait."""
    return max(1, min(most, BUDGET // max(1, size)))


def _ready(state: Future[Finished] | InputError) -> bool:
    return isinstance(state, InputError) or state.done()


def _done(item: Item, state: Future[Finished] | InputError) -> Done[Item, Finished]:
    if isinstance(state, InputError):
        return Done(item, None, state)
    return Done(item, state.result())


def _threads() -> int:
    """The network has all cores; a few threads are enough for what is small beside it."""
    return max(2, min(8, cores() // 2))
