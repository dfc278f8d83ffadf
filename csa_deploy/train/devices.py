"""Processes, devices and threads of a training."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.train.faults import AtomicCheckpointIO
from csa_deploy.train.options import TrainOptions


@contextmanager
def determinism(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms and a number of CPU threads, while entered."""
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    # On a GPU some gradients (of resizes) have no deterministic algorithm; there the same seed gives similar weights.
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    torch.set_num_threads(threads or threads_before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads_before)


def launched(options: TrainOptions) -> Fabric:
    """Start the processes; torchrun and SLURM have done it already where they are in use."""
    accelerator = options.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacksError("no CUDA device for --accelerator cuda", fix="use --accelerator cpu")
    devices, nodes = _processes(options, accelerator)
    strategy: Any = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(broadcast_buffers=not options.sync_bn, process_group_backend=None)
    warnings.filterwarnings("ignore", module="lightning_fabric")  # hints at its own options
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=devices,
        num_nodes=nodes,
        precision="bf16-mixed" if options.amp else "32-true",
        plugins=[AtomicCheckpointIO()],
    )
    fabric.launch()
    return fabric


def _processes(options: TrainOptions, accelerator: str) -> tuple[int, int]:
    """Devices per node and nodes: as asked, as torchrun or SLURM started, else all GPUs or one process on the CPU."""
    environment = os.environ
    local = environment.get("LOCAL_WORLD_SIZE") or environment.get("SLURM_NTASKS_PER_NODE")
    default = int(local) if local else torch.cuda.device_count() if accelerator == "cuda" else 1
    devices = options.devices or default
    world = environment.get("WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else None
    started = int(world) // int(local) if world and local else int(environment.get("SLURM_NNODES", 1)) if local else 1
    return devices, options.nodes or started


def workers_for(options: TrainOptions, size: tuple[int, int], fabric: Fabric) -> int:
    """Processes per device that decode images of a (height, width)."""
    if options.workers is not None:
        return options.workers
    if max(size) <= 64:
        return 0
    local = max(1, fabric.world_size // max(1, options.nodes or 1))
    return min(8, len(os.sched_getaffinity(0)) // local)
