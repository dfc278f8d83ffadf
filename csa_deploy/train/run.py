"""A training from its options to its result: devices, data, resumption, files."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import CSVLogger
from lightning_fabric.strategies import DDPStrategy
from safetensors.torch import save_file

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.augment import Augment
from csa_deploy.train.evaluation import accuracy_of
from csa_deploy.train.faults import AtomicCheckpointIO, StopRequest, load_state
from csa_deploy.train.loading import EvaluationImages, TrainImages, UpdateOrder, evaluation_loader, train_loader
from csa_deploy.train.loop import Clock, Progress, Training, Watch
from csa_deploy.train.network import averaged, parameter_groups, synchronised, trainable
from csa_deploy.train.pictures import Pictures, Split, open_split
from csa_deploy.train.recipe import Recipe
from csa_deploy.train.result import Accuracy, TrainResult
from csa_deploy.train.schedule import batch_warning, make_schedule
from csa_deploy.workspace import dump_json, write_atomic

log = logging.getLogger(__name__)

MOST_PER_DEVICE = 128
EVALUATION_BATCH = 125


@dataclass(frozen=True)
class TrainOptions:
    """What a user may ask of a training.

    Attributes:
        data: see :func:`csa_deploy.train.pictures.open_split`.
        output: folder for checkpoints, weights and results.
        recipe: all that decides about the outcome, with the seed.
        seed: of initialisation, order and augmentation.
        size: (height, width) of the input in pixels; None: the network's.
        batch_size: images per device and step; None: as fits the recipe's global batch, at most 128.
        accumulate: steps per update; None: as fits the recipe's global batch.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        devices: per node; None: all GPUs, or one process on a CPU (under torchrun and SLURM: what they started).
        nodes: machines; None: 1, or what torchrun and SLURM started.
        amp: bfloat16 mixed precision.
        sync_bn: BatchNorm over the batches of all devices.
        workers: processes that decode; None: none for small images, else the cores' share, at most 8.
        threads: CPU threads of torch; None: its default.
        evaluate_every: epochs between evaluations.
        resume: checkpoint to go on from; None: ``last.ckpt`` in the output folder, if there is one.
        class_map: see :func:`csa_deploy.train.pictures.open_split`.
        evaluate_only: no training: classify the held-out images with what was trained so far.
    """

    data: str
    output: Path
    recipe: Recipe
    seed: int = 0
    size: tuple[int, int] | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    accelerator: str = "auto"
    devices: int | None = None
    nodes: int | None = None
    amp: bool = False
    sync_bn: bool = True
    workers: int | None = None
    threads: int | None = None
    evaluate_every: int = 5
    resume: Path | None = None
    class_map: Path | None = None
    evaluate_only: bool = False


def train(entry: NetworkEntry, options: TrainOptions, progress: Progress, watch: Watch) -> TrainResult | None:
    """Train a network, or go on with a training.

    Args:
        entry: the network; its factory makes it without weights.
        options: see there.
        progress: called with (updates done, updates in all).
        watch: called after each epoch, on the first process.

    Returns:
        The result; None on all processes but the first.

    Raises:
        UsageError: data, recipe, checkpoint or devices do not fit.
        AccuracyGateError: the loss or an output is not finite.
        EnvironmentLacksError: a checkpoint cannot be written, or the device lacks what was asked for.
    """
    with _determinism(options.threads):
        fabric = _launched(options)
        preprocessing = entry.preprocessing.with_size(options.size or entry.preprocessing.size)
        split = open_split(options.data, preprocessing, options.class_map)
        training, order = _prepared(fabric, entry, options, split)
        workers = _workers(options, preprocessing.size, fabric)
        held_out = None
        if split.held_out is not None:
            images = EvaluationImages(split.held_out, preprocessing)
            held_out = evaluation_loader(images, EVALUATION_BATCH, fabric.global_rank, fabric.world_size, workers)
        training.fabric.barrier()
        if options.evaluate_only or training.update == training.schedule.total:
            accuracy, clock = _evaluated(training, held_out), Clock()
        else:
            crops = TrainImages(split.train, preprocessing, options.recipe.random_crop, options.seed)
            order.first_update, order.last_update = training.update, training.schedule.total
            loader = train_loader(crops, order, workers)
            with StopRequest() as stop:
                accuracy, clock = training.fit(loader, held_out, stop, progress, _on_first(fabric, watch))
        if not fabric.is_global_zero:
            return None
        return _result(training, entry, options, accuracy, clock, held_out is not None)


@contextmanager
def _determinism(threads: int | None) -> Iterator[None]:
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    # On a GPU some gradients (of resizes) have no deterministic algorithm; there the same seed gives similar weights.
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    torch.set_num_threads(threads or threads_before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads_before)


def _launched(options: TrainOptions) -> Fabric:
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


def _batches(options: TrainOptions, world: int) -> tuple[int, int]:
    """Images per device and step, and steps per update."""
    share = options.recipe.global_batch // world
    if options.batch_size is None and options.accumulate is None and share * world == options.recipe.global_batch:
        steps = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= MOST_PER_DEVICE)
        return share // steps, steps
    accumulate = options.accumulate or max(1, round(share / (options.batch_size or MOST_PER_DEVICE)))
    return options.batch_size or max(1, share // accumulate), accumulate


def _prepared(fabric: Fabric, entry: NetworkEntry, options: TrainOptions, split: Split) -> tuple[Training, UpdateOrder]:
    recipe, world = options.recipe, fabric.world_size
    size = options.size or entry.preprocessing.size
    per_device, accumulate = _batches(options, world)
    warning = batch_warning(recipe, per_device * accumulate * world)
    if warning and fabric.is_global_zero:
        log.warning("%s", warning)
    schedule = make_schedule(recipe, len(split.train.labels), per_device * accumulate * world)
    network: Any = trainable(entry, recipe, size, options.seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = _classes(network, entry, size)
    _check_labels(split, classes, options.data)
    if world > 1 and options.sync_bn:
        network = synchronised(network, fabric.device)
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe.weight_decay), lr=recipe.lr)
    wrapped, optimizer = fabric.setup(network, optimizer)
    settings = {
        "network": entry.name,
        "size": list(size),
        "recipe": recipe.to_json(),
        "seed": options.seed,
        "images": _fingerprint(split.train),
        "batch_size": per_device,
        "accumulate": accumulate,
        "world": world,
        "amp": options.amp,
        "sync_bn": options.sync_bn and world > 1,
    }
    training = Training(
        fabric=fabric,
        network=network,
        wrapped=wrapped,
        optimizer=optimizer,
        ema=averaged(network, recipe.ema_decay) if recipe.ema_decay else None,
        augment=Augment(recipe, entry.preprocessing, classes).to(fabric.device),
        schedule=schedule,
        accumulate=accumulate,
        seed=options.seed,
        output=options.output,
        settings=settings,
        evaluate_every=options.evaluate_every,
        update=0,
        unreadable={},
    )
    _resume(training, options)
    if fabric.is_global_zero:
        fabric.loggers.append(
            CSVLogger(options.output, "log", f"from_{training.update:07d}", flush_logs_every_n_steps=1)
        )
    order = UpdateOrder(split.train, per_device, accumulate, fabric.global_rank, world, options.seed)
    return training, order


def _resume(training: Training, options: TrainOptions) -> None:
    path = options.resume or (training.checkpoint if training.checkpoint.exists() else None)
    if path is None:
        if options.evaluate_only:
            raise UsageError(f"{training.checkpoint}: nothing was trained here yet", fix="give --resume CHECKPOINT")
        return
    state = load_state(path)
    stored, asked = state["settings"], training.settings
    changed = [key for key in asked if stored.get(key) != asked[key]]
    fatal = [key for key in changed if key in ("network", "size", "recipe", "seed", "images")]
    if fatal and not options.evaluate_only:
        raise UsageError(
            f"{path}: belongs to a training with another {', '.join(fatal)}",
            fix="use the settings it was started with, or another --output for a new training",
        )
    if changed and training.fabric.is_global_zero:
        log.warning("%s: other %s than before: the training goes on, but not bit for bit", path, ", ".join(changed))
    training.restore(state)
    if training.fabric.is_global_zero:
        log.info("going on from %s at update %d of %d", path, training.update, training.schedule.total)


def _classes(network: torch.nn.Module, entry: NetworkEntry, size: tuple[int, int]) -> int:
    """Number of the network's outputs."""
    network.eval()
    with torch.inference_mode():
        output = network(torch.zeros(1, entry.preprocessing.channels, *size))
    network.train()
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise UsageError(f"{entry.name}: is no classifier", fix="train networks that return logits (n, classes)")
    return output.shape[1]


def _check_labels(split: Split, classes: int, data: str) -> None:
    highest = max(int(part.labels.max()) for part in (split.train, split.held_out) if part is not None)
    if highest >= classes:
        raise UsageError(
            f"{data}: {highest + 1} classes, but the network has {classes} outputs",
            fix="give a network with as many outputs, for example file.py:factory",
        )


def _fingerprint(pictures: Pictures) -> str:
    """SHA-256 over the names and labels of the images; their content would take as long as an epoch."""
    digest = hashlib.sha256(pictures.labels.tobytes())
    for index in range(len(pictures.labels)):
        digest.update(f"{pictures.name(index)}\0".encode())
    return digest.hexdigest()


def _workers(options: TrainOptions, size: tuple[int, int], fabric: Fabric) -> int:
    if options.workers is not None:
        return options.workers
    if max(size) <= 64:
        return 0
    local = max(1, fabric.world_size // max(1, options.nodes or 1))
    return min(8, len(os.sched_getaffinity(0)) // local)


def _evaluated(training: Training, held_out: Any) -> dict[str, Accuracy]:
    return {} if held_out is None else accuracy_of(training.fabric, training.networks, held_out)


def _on_first(fabric: Fabric, watch: Watch) -> Watch:
    return watch if fabric.is_global_zero else lambda _: None


def _result(
    training: Training,
    entry: NetworkEntry,
    options: TrainOptions,
    accuracy: dict[str, Accuracy],
    clock: Clock,
    has_held_out: bool,
) -> TrainResult:
    schedule, not_done = training.schedule, []
    if not has_held_out:
        not_done.append(f"not evaluated: {options.data} has no held-out images (val)")
    elif not accuracy:
        not_done.append(f"not evaluated: stopped after {training.update} of {schedule.total} updates")
    weights = {}
    for name, network in training.networks.items():
        path = options.output / f"{name}.safetensors"
        temporary = path.with_name(f".{path.name}.tmp")
        save_file({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, temporary)
        weights[name] = temporary.replace(path)
    result = TrainResult(
        network=entry.name,
        data=options.data,
        settings=training.settings,
        updates=training.update,
        total=schedule.total,
        warmup=schedule.warmup,
        accuracy=accuracy,
        unreadable=training.unreadable,
        weights=weights,
        not_done=tuple(not_done),
        measured={
            "seconds": clock.busy,
            "images_per_second": clock.rate(training.fabric.world_size),
            "waiting": clock.waiting / clock.busy if clock.busy else 0.0,
        },
    )
    write_atomic(options.output / "result.json", dump_json(result.to_json()))
    return result
