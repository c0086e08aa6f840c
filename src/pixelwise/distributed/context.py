"""The processes of a distributed run, connected by Lightning Fabric.

All processes compute the same numbers: they have the same random states, gradients, weights and
learning rates, so a checkpoint, which rank 0 writes, can be resumed with any number of processes.
What only one process can know (a measurement, the time, a signal, a full disk) is decided by one
and sent to all.

If a process ends unexpectedly, the others find their connection to it closed. The error code that
it leaves in the rendezvous store tells them whether it has reported the reason.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from pixelwise.distributed.environment import (
    LOST,
    DistributedEnv,
    read_distributed_env,
    report_once,
)
from pixelwise.distributed.shard import BatchShard, use_shard
from pixelwise.errors import InputError, PixelwiseError, ReportedElsewhereError
from pixelwise.recipes.schema import Recipe

with warnings.catch_warnings():  # importing Fabric changes the filters of the program
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another, for example while rank 0 measures or a machine hangs."""
_ERROR_KEY = "pixelwise/fault"

T = TypeVar("T")


class PeerLostError(PixelwiseError):
    """Another process of the run ended without reporting a reason."""

    exit_code = LOST


class DistributedContext:
    """This process and its connection to the others. With a single process, calls do nothing.

    Args:
        fabric: The launched Fabric.
        distributed_env: The position of this process.
    """

    def __init__(self, fabric: Fabric, distributed_env: DistributedEnv) -> None:
        self.fabric = fabric
        self.distributed_env = distributed_env
        self.error_is_known = False  # whether all processes know the error that ends the run

    @property
    def rank(self) -> int:
        return self.distributed_env.rank

    @property
    def world_size(self) -> int:
        return self.distributed_env.world_size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def __str__(self) -> str:
        """Describe the group for the report; empty for a single process."""
        if self.world_size == 1:
            return ""
        nodes = self.distributed_env.nodes
        machines = "" if nodes == 1 else f" on {nodes} machines"
        return f"{self.world_size}{machines}, each batch is split between them"

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and return its result on all ranks.

        Raises:
            PixelwiseError: On all ranks, if `work` raises it.
        """
        if self.world_size == 1:
            return work()
        result, error, code = _attempt(work) if self.is_rank_zero else (None, None, None)
        result, exit_code = self.fabric.broadcast((result, code))
        if exit_code is not None:
            self.error_is_known = True
            raise error or ReportedElsewhereError(exit_code)
        return result  # type: ignore[return-value]

    def on_rank_zero_without_broadcast(self, work: Callable[[], T]) -> T | None:
        """Run `work` on rank 0; return its result there, None elsewhere. Errors reach all ranks."""
        results: list[T] = []
        self.on_rank_zero(lambda: results.append(work()))
        return results[0] if results else None

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank and return each rank's own result.

        Raises:
            PixelwiseError: On all ranks, if `work` raises it on any. The lowest of these ranks
                reports it.
        """
        if self.world_size == 1:
            return work()
        result, error, code = _attempt(work)
        codes = self.gather(code)
        failed = [(rank, code) for rank, code in enumerate(codes) if code is not None]
        if failed:
            self.error_is_known = True
            reporter, exit_code = failed[0]
            raise error if error and reporter == self.rank else ReportedElsewhereError(exit_code)
        return result  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the maximum over all processes of each of the numbers."""
        if self.world_size == 1:
            return list(numbers)
        values = torch.tensor(numbers, device=self.fabric.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values.tolist()

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """Wrap network and optimizer with Fabric; all ranks start from the weights of rank 0."""
        network, optimizer = self.fabric.setup(model, optimizer)
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                sent = tensor.contiguous()
                dist.broadcast(sent, src=0)
                tensor.copy_(sent)
        return network, optimizer

    @contextmanager
    def training_step(
        self, network: Any, shard: BatchShard, *, sync_gradients: bool
    ) -> Iterator[None]:
        """Wrap the forward pass, loss and backward pass of a batch.

        Args:
            network: The network that `setup` returned.
            shard: This process's images of the batch.
            sync_gradients: Whether to sum the gradients over the processes, which the last batch
                before an update needs.
        """
        if self.world_size == 1:
            yield
            return
        with use_shard(shard):
            yield
        if sync_gradients:
            _sum_gradients(network)

    @contextmanager
    def fail_together(self, folder: Path) -> Iterator[None]:
        """Wrap everything that the processes do together: an error in one ends all of them.

        One process reports the error in one line. `folder` is the run's, for its message.
        """
        if self.world_size == 1:
            yield
            return
        store = dist.distributed_c10d._get_default_store()
        try:
            yield
        except BaseException as error:
            if not self.error_is_known:
                self._share_error(store, error, folder)
            raise
        if dist.is_initialized():
            dist.destroy_process_group()

    def _share_error(self, store: Any, error: BaseException, folder: Path) -> None:
        """Publish an error, or find out that it follows from the error of another process.

        Raises a replacement if another process caused the error.
        """
        lost = _is_lost_connection(error)
        exit_code = error.exit_code if isinstance(error, PixelwiseError) else 1
        first_code = self._publish_exit_code(store, exit_code)
        if first_code is not None and (lost or isinstance(error, PixelwiseError)):
            raise ReportedElsewhereError(first_code) from error
        if lost and self.distributed_env.launched and self.distributed_env.nodes == 1:
            # The launcher sees how the other process ended, and reports it.
            raise ReportedElsewhereError(PeerLostError.exit_code) from error
        if lost:
            raise PeerLostError(
                "another process of the run has ended: if it reports no error, it was killed, and "
                f"`pixelwise train --resume {folder}` resumes from the last checkpoint"
            ) from error

    def _publish_exit_code(self, store: Any, exit_code: int) -> int | None:
        """Publish the exit code of the run, or return the one that another process published.

        Also None if the store is gone because its host (rank 0 or torchrun) exited.
        """
        own = f"{exit_code} {self.rank}"
        try:
            published = store.compare_set(_ERROR_KEY, "", own).decode()
        except RuntimeError:
            return None
        return None if published == own else int(published.split()[0])


class _Processes(DDPStrategy):
    """One process per device, without PyTorch's wrapper, which sums the gradients.

    The wrapper divides the gradients differently in its first step than in the others. The order in
    which three or more numbers are added depends on their position, so a resumed run would differ.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def _sum_gradients(network: nn.Module) -> None:
    """Replace each gradient by its sum over the processes, in the order of the parameters.

    A parameter that no process used keeps its gradient of None.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    users = gradients[0].new_tensor([p.grad is not None for p in parameters])
    summed = torch.cat([tensor.reshape(-1) for tensor in (*gradients, users)])
    dist.all_reduce(summed)
    *sums, users = torch.split(summed, [tensor.numel() for tensor in (*gradients, users)])
    for parameter, gradient, total, used in zip(
        parameters, gradients, sums, users.tolist(), strict=True
    ):
        parameter.grad = gradient.copy_(total.view_as(gradient)) if used else None


def _attempt(work: Callable[[], T]) -> tuple[T | None, PixelwiseError | None, int | None]:
    """Return the result of `work`, or the error that it raises and its exit code."""
    try:
        return work(), None, None
    except PixelwiseError as error:
        return None, error, error.exit_code


def join_distributed_run(
    recipe: Recipe, distributed_env: DistributedEnv | None = None
) -> DistributedContext:
    """Connect to the other processes of the run, if the environment sets any, and seed this one.

    Args:
        recipe: The recipe: its device, precision and seed are used.
        distributed_env: The position of this process. None: that of the environment.

    Raises:
        InputError: If the device cannot be used, or not by this number of processes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    distributed_env = distributed_env or read_distributed_env() or DistributedEnv()
    with report_once():
        fabric = _launch_fabric(recipe.device, recipe.precision, distributed_env)
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    return DistributedContext(fabric, distributed_env)


def _launch_fabric(device: str, precision: Any, distributed_env: DistributedEnv) -> Fabric:
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if precision == "16-mixed" and on_cpu:  # Fabric would silently use bfloat16
        raise InputError("precision = '16-mixed': needs a GPU: use bf16-mixed or 32-true")
    options: dict[str, Any] = {}
    try:
        if distributed_env.world_size > 1:
            environment = (
                SLURMEnvironment(auto_requeue=False)
                if distributed_env.slurm
                else TorchElasticEnvironment()
            )
            options = {"strategy": _Processes(timeout=TIMEOUT), "plugins": [environment]}
        fabric = Fabric(
            accelerator=device,
            devices=distributed_env.local_world_size,
            num_nodes=distributed_env.nodes,
            precision=precision,
            **options,
        )
        fabric.launch()
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device = {device!r}: cannot be used here ({reason})") from error
    return fabric


def check_batch_size(batch_size: int, world_size: int) -> None:
    """Raise InputError if the batch size is not a multiple of the number of processes."""
    if batch_size % world_size:
        raise InputError(
            f"batch_size = {batch_size}: is not divisible by the {world_size} processes: use a "
            f"multiple of {world_size}, or another number of --devices"
        )


def _is_lost_connection(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
    )
