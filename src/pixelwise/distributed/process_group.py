"""The processes that a run is shared out over, by Lightning Fabric.

All of them do the same with the same numbers: they have the same random states, gradients, weights
and schedule, so that a checkpoint, which process 0 writes, serves any number of them. What only one
can know (what is measured, the time, a signal, a full disk) one decides and all are told.

Where one ends on its own, the others find their connection to it closed. What it leaves in the
store in which they met tells them whether it has said why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pixelwise.distributed.process_rank import LOST, ProcessRank, find_process_rank, report_once
from pixelwise.distributed.shard import BatchShard, sharing
from pixelwise.errors import InputError, PixelwiseError, ReportedElsewhereError
from pixelwise.recipes.schema import Recipe

TIMEOUT = timedelta(hours=2)
"""For which the others wait, as for process 0 while it measures, or for a machine that is mute."""
_FAULT = "pixelwise/fault"

T = TypeVar("T")


class PeerLostError(PixelwiseError):
    """Another process of the run has ended, and left no word of it."""

    exit_code = LOST


class ProcessGroup:
    """This process of a run and its way to the others; with one alone all of it is plain.

    agreed: whether all have been told of the error that ends the run.
    """

    def __init__(self, fabric: Fabric, place: ProcessRank) -> None:
        self.fabric = fabric
        self.place = place
        self.agreed = False

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def count(self) -> int:
        return self.place.count

    @property
    def first(self) -> bool:
        """Whether this is process 0, which alone writes files and prints."""
        return self.rank == 0

    def __str__(self) -> str:
        """In words; empty for one process."""
        if self.count == 1:
            return ""
        nodes = "" if self.place.nodes == 1 else f" on {self.place.nodes} machines"
        return f"{self.count}{nodes}, each with its part of every batch"

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """What `work` returns in process 0, given to all, which wait for it; a PixelwiseError
        there ends all."""
        if self.count == 1:
            return work()
        result, error = None, None
        if self.first:
            try:
                result = work()
            except PixelwiseError as raised:
                error = raised
        outcome = (result, None if error is None else error.exit_code)
        result, exit_code = self.fabric.broadcast(outcome)
        if exit_code is not None:
            self.agreed = True
            raise error or ReportedElsewhereError(exit_code)
        return result  # type: ignore[return-value]

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """What `work` returns here; a PixelwiseError in any process ends all, and the first of
        those that had one tells it."""
        if self.count == 1:
            return work()
        result, error = None, None
        try:
            result = work()
        except PixelwiseError as raised:
            error = raised
        codes = self.gather(None if error is None else error.exit_code)
        at_fault = [(rank, code) for rank, code in enumerate(codes) if code is not None]
        if at_fault:
            self.agreed = True
            teller, exit_code = at_fault[0]
            raise error if error and teller == self.rank else ReportedElsewhereError(exit_code)
        return result  # type: ignore[return-value]

    def gather(self, own: T) -> list[T]:
        """What each process has, by rank."""
        if self.count == 1:
            return [own]
        everyone: list[Any] = [None] * self.count
        dist.all_gather_object(everyone, own)
        return everyone

    def largest(self, *numbers: int) -> list[int]:
        """Of each of the numbers the largest that any process has."""
        if self.count == 1:
            return list(numbers)
        values = torch.tensor(numbers, device=self.fabric.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values.tolist()

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """The network and the optimizer as Fabric has them, from process 0's weights and running
        statistics in all of them."""
        if self.count > 1:
            # The statistics are the same in all once they begin alike, and constants may not be
            # laid out as a broadcast wants them.
            buffers = dict(model.named_buffers())
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
                model, [*buffers]
            )
        network, optimizer = self.fabric.setup(model, optimizer)
        if self.count > 1:
            for name in sorted(buffers.keys() & model.state_dict().keys()):
                dist.broadcast(model.get_buffer(name), src=0)
        return network, optimizer

    @contextmanager
    def step(self, network: Any, share: BatchShard, *, updates: bool) -> Iterator[None]:
        """Around forward, loss and backward of a batch. updates: whether the weights change after
        it; else the gradients of the processes are not added up yet."""
        if self.count == 1:
            yield
            return
        with sharing(share), self.fabric.no_backward_sync(network, enabled=not updates):
            yield

    @contextmanager
    def faults(self, folder: Path) -> Iterator[None]:
        """Around all that the processes do together: the end of one is the end of all, with one
        line. folder: of the run, with which it goes on."""
        if self.count == 1:
            yield
            return
        store = dist.distributed_c10d._get_default_store()
        try:
            yield
        except BaseException as error:
            if not self.agreed:
                self._leave(store, error, folder)
            raise
        if dist.is_initialized():
            dist.destroy_process_group()

    def _leave(self, store: Any, error: BaseException, folder: Path) -> None:
        """Tell the others of an error, or find out which of theirs this one comes from. Raises what
        is to be raised in its place, if that is another."""
        lost = _is_lost_connection(error)
        told = self._tell(store, error.exit_code if isinstance(error, PixelwiseError) else 1)
        if told is not None and (lost or isinstance(error, PixelwiseError)):
            raise ReportedElsewhereError(told) from error
        if lost and self.place.launched and self.place.nodes == 1:
            raise ReportedElsewhereError(
                PeerLostError.exit_code
            ) from error  # the launcher knows more
        if lost:
            raise PeerLostError(
                "another process of the run has ended: if it says nothing, it was killed, and "
                f"`pixelwise train --resume {folder}` goes on from the last checkpoint"
            ) from error

    def _tell(self, store: Any, exit_code: int) -> int | None:
        """Leave the exit code of the run, as the first; else the one that another has left. None
        also where the store has gone with its process, which is process 0 or torchrun."""
        own = f"{exit_code} {self.rank}"
        try:
            said = store.compare_set(_FAULT, "", own).decode()
        except RuntimeError:
            return None
        return None if said == own else int(said.split()[0])


def join(recipe: Recipe, *, place: ProcessRank | None = None) -> ProcessGroup:
    """Meet the other processes of the run, if the environment has any.

    Raises InputError where the recipe's device cannot be used, or not by as many processes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    place = place or find_process_rank() or ProcessRank()
    with report_once():
        fabric = _fabric(recipe, place)
    fabric.seed_everything(recipe.seed, verbose=False)
    return ProcessGroup(fabric, place)


def _fabric(recipe: Recipe, place: ProcessRank) -> Fabric:
    on_cpu = recipe.device == "cpu" or (recipe.device == "auto" and not torch.cuda.is_available())
    if recipe.precision == "16-mixed" and on_cpu:  # Fabric would take bfloat16 in its place
        raise InputError("precision = '16-mixed': needs a GPU: take bf16-mixed or 32-true")
    several: dict[str, Any] = {}
    try:
        if place.count > 1:
            environment = (
                SLURMEnvironment(auto_requeue=False) if place.slurm else TorchElasticEnvironment()
            )
            several = {"strategy": DDPStrategy(timeout=TIMEOUT), "plugins": [environment]}
        fabric = Fabric(
            accelerator=recipe.device,
            devices=place.devices,
            num_nodes=place.nodes,
            precision=recipe.precision,
            **several,
        )
        fabric.launch()
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device = {recipe.device!r}: cannot be used here ({reason})") from error
    return fabric


def check_batch(batch_size: int, count: int) -> None:
    """Raise InputError where a batch has not the same number of images for each process."""
    if batch_size % count:
        raise InputError(
            f"batch_size = {batch_size}: does not divide by the {count} processes: give a multiple "
            f"of {count}, or another number of --devices"
        )


def _is_lost_connection(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
    )
