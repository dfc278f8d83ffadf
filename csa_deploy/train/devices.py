"""Processes, devices and threads of a training."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.train.faults import AtomicCheckpointIO
from csa_deploy.train.options import TrainOptions

_Result = TypeVar("_Result")


@contextmanager
def determinism(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms and a number of CPU threads, while entered."""
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    # Nothing here reads memory before it is written; to fill it all the same takes a sixth of csa_digits' training.
    memory.fill_uninitialized_memory = False
    # On a GPU some gradients (of resizes) have no deterministic algorithm; there the same seed gives similar weights.
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    torch.set_num_threads(threads or threads_before)
    _keep_memory()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filling
        torch.set_num_threads(threads_before)


def _keep_memory() -> None:
    """Let glibc keep what this process frees, from here on.

    By default it gives large blocks back and asks for them again, several times per update: that takes a sixth of
    csa_digits' training on a CPU, in page faults that the threads wait for one another in.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((-1, 1 << 30), (-3, 1 << 25)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and its maximum
            mallopt(parameter, size)


def accelerator_of(options: TrainOptions) -> str:
    """``cuda`` or ``cpu``.

    Raises:
        EnvironmentLacksError: a GPU was asked for, and there is none.
    """
    if options.accelerator == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacksError("no CUDA device for --accelerator cuda", fix="use --accelerator cpu")
    if options.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.accelerator


def launched(options: TrainOptions) -> Fabric:
    """Start the processes; torchrun and SLURM have done it already where they are in use.

    Raises:
        UsageError: the devices or nodes are not those that the launcher started or the machine has.
        EnvironmentLacksError: no GPU, or no address of the other nodes.
    """
    accelerator = accelerator_of(options)
    devices, nodes = processes(options)
    _check_rendezvous(nodes)
    strategy: Any = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(broadcast_buffers=not options.sync_bn, process_group_backend=None)
    warnings.filterwarnings("ignore", module="lightning_fabric")  # hints at its own options
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            strategy=strategy,
            devices=devices,
            num_nodes=nodes,
            precision="bf16-mixed" if options.amp else "32-true",
            plugins=[AtomicCheckpointIO()],
        )
        fabric.launch()
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{nodes} nodes with {devices} devices each: {reason}",
            fix="leave --nodes and --devices out under torchrun and srun, or give what these started: docs/train.md",
        ) from error
    return fabric


def part(fabric: Fabric) -> None:
    """Leave the other processes when all are done: who just ended would look like a fault to those who had not yet."""
    if fabric.world_size > 1 and torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


def within_group(work: Callable[[], _Result]) -> _Result:
    """Do what a process of a group has to do, so that the group goes after all that uses it.

    A group waits for its threads when it goes, and these may wait for Python's lock, which they need to free tensors.
    Freed by Python it gives that lock up; freed as part of a DistributedDataParallel it does not, and the process waits
    for ever (pytorch 56297). After an error it stays until the process ends: its threads may wait for others in vain.
    """
    group = torch.distributed.group.WORLD if torch.distributed.is_initialized() else None
    if group is None:
        return work()
    try:
        done = work()
    except BaseException:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
        raise
    gc.collect()
    return done


def processes(options: TrainOptions) -> tuple[int, int]:
    """Devices per node and nodes: as asked, as torchrun or SLURM started, else all GPUs or one process on the CPU."""
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        nodes = int(environment["WORLD_SIZE"]) // local
    elif SLURMEnvironment.detect():
        nodes = int(environment.get("SLURM_NNODES", 1))
        local = int(environment["SLURM_NTASKS"]) // nodes
    else:
        nodes, local = 1, torch.cuda.device_count() if accelerator_of(options) == "cuda" else 1
    return options.devices or local, options.nodes or nodes


def _check_rendezvous(nodes: int) -> None:
    """Without torchrun and SLURM each node must be told who it is; else each would wait for the others for ever."""
    told = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
    if nodes > 1 and "LOCAL_WORLD_SIZE" not in os.environ and not SLURMEnvironment.detect() and told - set(os.environ):
        raise EnvironmentLacksError(
            f"{nodes} nodes, but {', '.join(sorted(told - set(os.environ)))} not set: the nodes cannot find each other",
            fix="set them on each node (NODE_RANK counts from 0), or start with torchrun or srun: docs/train.md",
        )


def workers_for(options: TrainOptions, size: tuple[int, int], fabric: Fabric) -> int:
    """Processes per device that decode images of a (height, width)."""
    if options.workers is not None:
        return options.workers
    if max(size) <= 64:
        return 0
    local = max(1, fabric.world_size // max(1, options.nodes or 1))
    return min(8, len(os.sched_getaffinity(0)) // local)
