"""A training from its options to its result: devices, data, resumption, files."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import CSVLogger, Logger, TensorBoardLogger

from csa_deploy.checkpoint import start_from
from csa_deploy.data.base import ImageDataset
from csa_deploy.data.dataset import Split, open_split
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.augment import augmentation
from csa_deploy.train.average import averaged, first_share, warmed
from csa_deploy.train.devices import determinism, launched, part, within_group, workers_for
from csa_deploy.train.evaluation import accuracy_of
from csa_deploy.train.faults import StopRequest, faults_of_others, load_state, save_tensors
from csa_deploy.train.loading import EvaluationImages, TrainImages, UpdateOrder, evaluation_loader, train_loader
from csa_deploy.train.loop import Clock, Progress, Training, Watch
from csa_deploy.train.network import parameter_groups, synchronised, trainable
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.plan import plan_for
from csa_deploy.train.result import Average, Score, TrainResult
from csa_deploy.train.task import TrainTask, task_for
from csa_deploy.workspace import dump_json, write_atomic

log = logging.getLogger(__name__)

EVALUATION_BATCH = 125


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
    if options.output.exists() and not options.output.is_dir():
        raise UsageError(f"{options.output}: is a file", fix="give a folder with --output")
    with determinism(options.threads), faults_of_others():
        fabric = launched(options)
        return within_group(lambda: _trained(fabric, entry, options, progress, watch))


def _trained(
    fabric: Fabric, entry: NetworkEntry, options: TrainOptions, progress: Progress, watch: Watch
) -> TrainResult | None:
    preprocessing = entry.preprocessing.with_size(options.size or entry.preprocessing.size)
    split = open_split(options.data, preprocessing, options.class_map)
    training, order = _prepared(fabric, entry, options, split)
    workers = workers_for(options, preprocessing.size, fabric)
    held_out = None
    if split.held_out is not None:
        images = EvaluationImages(split.held_out, preprocessing)
        held_out = evaluation_loader(images, EVALUATION_BATCH, fabric.global_rank, fabric.world_size, workers)
    training.fabric.barrier()
    if options.evaluate_only and held_out is None:
        raise UsageError(f"{options.data}: has no held-out images to evaluate on", fix="add a folder val beside train")
    if options.evaluate_only or training.update == training.schedule.total:
        accuracy, clock = _evaluated(training, held_out), Clock()
    else:
        recipe = options.recipe
        crops = TrainImages(
            split.train, preprocessing, recipe.random_crop, options.seed, recipe.crowded * recipe.epochs
        )
        order.first_update, order.last_update = training.update, training.schedule.total
        loader = train_loader(crops, order, workers)
        with StopRequest() as stop:
            accuracy, clock = training.fit(loader, held_out, stop, progress, _on_first(fabric, watch))
    for logger in fabric.loggers:
        logger.finalize("success")
    part(fabric)
    if not fabric.is_global_zero:
        return None
    result = _result(training, entry, options, accuracy, clock, held_out is not None)
    if options.evaluate_only:  # what the training itself wrote stays as it is
        write_atomic(options.output / "evaluation.json", dump_json(result.evaluation()))
    else:
        write_atomic(options.output / "result.json", dump_json(result.to_json()))
    return result


def _prepared(fabric: Fabric, entry: NetworkEntry, options: TrainOptions, split: Split) -> tuple[Training, UpdateOrder]:
    recipe, world = options.recipe, fabric.world_size
    size = options.size or entry.preprocessing.size
    plan = plan_for(options, len(split.train), world)
    if fabric.is_global_zero and not options.evaluate_only:
        log.info("%s", plan.text)
        if plan.warning:
            log.warning("%s", plan.warning)
    network: Any = trainable(entry, recipe, size, options.seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.init is not None:
        taken = start_from(network, options.init)
        log.info("starting from %d of %d tensors, of %s", taken, len(network.state_dict()), options.init)
    task = task_for(split.train)
    classes = _classes(network, entry, size, task)
    for images in (split.train, split.held_out):
        if images is not None:
            images.check_labels(classes)
    if world > 1 and options.sync_bn:
        network = synchronised(network, fabric.device)
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe.weight_decay), lr=recipe.lr, fused=True)
    wrapped, optimizer = fabric.setup(network, optimizer)
    warmup = warmed(recipe.ema_decay, plan.schedule.total, recipe.ema_warmup)
    settings = {
        "network": entry.name,
        "size": list(size),
        "recipe": {**recipe.to_json(), "ema_warmup": warmup},
        "seed": options.seed,
        "images": _fingerprint(split.train),
        "batch_size": plan.per_device,
        "accumulate": plan.accumulate,
        "world": world,
        "amp": options.amp,
        "sync_bn": options.sync_bn and world > 1,
    }
    if options.init is not None:
        settings["init"] = hashlib.sha256(options.init.read_bytes()).hexdigest()
    training = Training(
        fabric=fabric,
        network=network,
        wrapped=wrapped,
        optimizer=optimizer,
        ema=averaged(network, recipe.ema_decay, warmup=warmup) if recipe.ema_decay else None,
        task=task,
        augment=augmentation(recipe, entry.preprocessing, classes, split.train.task).to(fabric.device),
        schedule=plan.schedule,
        accumulate=plan.accumulate,
        seed=options.seed,
        output=options.output,
        settings=settings,
        evaluate_every=options.evaluate_every,
        update=0,
        unreadable={},
    )
    _resume(training, options)
    if fabric.is_global_zero:
        fabric.loggers.extend(_loggers(options, f"from_{training.update:07d}"))
    order = UpdateOrder(split.train, plan.per_device, plan.accumulate, fabric.global_rank, world, options.seed)
    return training, order


def _loggers(options: TrainOptions, version: str) -> list[Logger]:
    """Where the epochs' figures go: a CSV file, and event files for TensorBoard if asked for."""
    loggers: list[Logger] = [CSVLogger(options.output, "log", version, flush_logs_every_n_steps=1)]
    if options.tensorboard:
        try:
            loggers.append(TensorBoardLogger(options.output, "tensorboard", version))
        except ModuleNotFoundError as error:
            raise EnvironmentLacksError(
                "--tensorboard needs a writer of its event files", fix="pip install tensorboardX (or tensorboard)"
            ) from error
    return loggers


def _resume(training: Training, options: TrainOptions) -> None:
    path = options.resume or (training.checkpoint if training.checkpoint.exists() else None)
    if path is None:
        if options.evaluate_only:
            raise UsageError(f"{training.checkpoint}: nothing was trained here yet", fix="give --resume CHECKPOINT")
        return
    state = load_state(path)
    stored, asked = state["settings"], training.settings
    before = {"ema_warmup": False, "crowded": 0.0}  # what older versions did
    stored = {**stored, "recipe": {**before, **stored.get("recipe", {})}}
    changed = [key for key in asked if stored.get(key) != asked[key]]
    fatal = [key for key in changed if key in ("network", "size", "recipe", "seed", "images")]
    if _global_batch(stored) != _global_batch(asked):  # the number of the update would mean another place
        fatal.append(f"global batch ({_global_batch(stored)}, now {_global_batch(asked)})")
    if fatal and not options.evaluate_only:
        raise UsageError(
            f"{path}: belongs to a training with another {', '.join(fatal)}",
            fix="use the settings it was started with, or another --output for a new training",
        )
    training.restore(state)
    if "model_ema" in state and training.ema is None:
        log.warning("%s: its average of the weights is not used: the recipe has no ema_decay", path)
    if not training.fabric.is_global_zero:
        return
    if options.evaluate_only:
        log.info("evaluating %s after %d updates", path, training.update)
        return
    if changed:
        log.warning("%s: other %s than before: the training goes on, but not bit for bit", path, ", ".join(changed))
    log.info("going on from %s at update %d of %d", path, training.update, training.schedule.total)


def _global_batch(settings: dict[str, Any]) -> int:
    return int(settings["batch_size"] * settings["accumulate"] * settings["world"])


def _classes(network: torch.nn.Module, entry: NetworkEntry, size: tuple[int, int], task: TrainTask) -> int:
    """Number of the network's classes."""
    network.eval()
    try:
        with torch.inference_mode():
            output = network(torch.zeros(1, entry.preprocessing.channels, *size))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{entry.name}: does not run on {size[0]}x{size[1]} pixels: {reason}", fix="give another --size"
        ) from error
    network.train()
    if (classes := task.classes(output)) is None:
        raise UsageError(f"{entry.name}: is no network for {task.name}", fix=task.fix)
    return classes


def _average(training: Training) -> Average | None:
    """What the average of the weights is, so far."""
    if training.ema is None:
        return None
    recipe = training.settings["recipe"]
    decay, warmup = recipe["ema_decay"], recipe["ema_warmup"]
    return Average(decay, warmup, first_share(decay, training.update, warmup=warmup))


def _fingerprint(pictures: ImageDataset) -> str:
    """SHA-256 over the names and labels of the images; their content would take as long as an epoch."""
    digest = hashlib.sha256(np.asarray(pictures.labels).tobytes())
    for identity in pictures.identities():
        digest.update(f"{identity}\0".encode())
    return digest.hexdigest()


def _evaluated(training: Training, held_out: Any) -> dict[str, Score]:
    return {} if held_out is None else accuracy_of(training.fabric, training.networks, held_out, training.task)


def _on_first(fabric: Fabric, watch: Watch) -> Watch:
    return watch if fabric.is_global_zero else lambda _: None


def _result(
    training: Training,
    entry: NetworkEntry,
    options: TrainOptions,
    accuracy: dict[str, Score],
    clock: Clock,
    has_held_out: bool,
) -> TrainResult:
    schedule, not_done = training.schedule, []
    if not has_held_out:
        not_done.append(f"not evaluated: {options.data} has no held-out images (val)")
    elif not accuracy:
        not_done.append(f"not evaluated: stopped after {training.update} of {schedule.total} updates")
    weights = {
        name: save_tensors(options.output / f"{name}.safetensors", network.state_dict())
        for name, network in training.networks.items()
        if not options.evaluate_only
    }
    return TrainResult(
        network=entry.name,
        data=options.data,
        settings=training.settings,
        updates=training.update,
        total=schedule.total,
        warmup=schedule.warmup,
        accuracy=accuracy,
        average=_average(training),
        unreadable=training.unreadable,
        weights=weights,
        not_done=tuple(not_done),
        measured={
            "seconds": clock.busy,
            "images_per_second": clock.rate(training.fabric.world_size),
            "waiting": clock.waiting / clock.busy if clock.busy else 0.0,
        },
    )
