"""The loop over updates.

Its whole state is the weights, their average, the optimizer and the number of the next update: order, crops and
augmentation follow from the seed and that number. So a resumed training goes on bit for bit where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from csa_deploy.errors import UsageError
from csa_deploy.train.augment import Augment
from csa_deploy.train.evaluation import accuracy_of
from csa_deploy.train.faults import CHECKPOINT, StopRequest, stop_at_bad_loss
from csa_deploy.train.loading import TrainBatch
from csa_deploy.train.result import EpochSummary, Score
from csa_deploy.train.schedule import Schedule
from csa_deploy.train.task import TrainTask

Progress = Callable[[int, int], None]
Watch = Callable[[EpochSummary], None]


@dataclass
class Clock:
    """Seconds in updates, seconds of waiting for images in them, and images of this rank."""

    busy: float = 0.0
    waiting: float = 0.0
    images: int = 0

    def rate(self, world: int) -> float:
        """Images per second over all devices."""
        return self.images * world / self.busy if self.busy else 0.0


@dataclass(frozen=True)
class UpdateStep:
    """What one step fed: its share of the update's loss, images, targets, and the images' names."""

    loss: Tensor
    images: Tensor
    targets: Tensor
    names: tuple[str, ...]


@dataclass
class Training:
    """A training at the point where it stands; the fields are its parts.

    Attributes:
        fabric: devices, processes and precision.
        network: the module itself, on the device.
        wrapped: the same for forward and backward passes over all processes.
        optimizer: as Fabric set it up.
        ema: the average; None when the recipe has none.
        task: what the network is for.
        augment: on the device.
        schedule: of the learning rate.
        accumulate: steps per update.
        seed: of everything random.
        output: folder for the checkpoint and what is kept of faults.
        settings: stored in the checkpoint.
        evaluate_every: epochs between evaluations; the last epoch is evaluated in any case.
        update: number of the next update.
        unreadable: reason by file.
    """

    fabric: Fabric
    network: nn.Module
    wrapped: Any
    optimizer: Any
    ema: AveragedModel | None
    task: TrainTask
    augment: Augment
    schedule: Schedule
    accumulate: int
    seed: int
    output: Path
    settings: dict[str, Any]
    evaluate_every: int
    update: int
    unreadable: dict[str, str]

    @property
    def checkpoint(self) -> Path:
        """Where the training is saved: after each epoch and when it is stopped."""
        return self.output / CHECKPOINT

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Raw weights and, if there is one, their average."""
        return {"model": self.network} | ({"model_ema": self.ema.module} if self.ema is not None else {})

    def fit(
        self, loader: DataLoader, held_out: DataLoader | None, stop: StopRequest, progress: Progress, watch: Watch
    ) -> tuple[dict[str, Score], Clock]:
        """Train up to the last update, or until every rank knows that one was asked to stop.

        Returns:
            The accuracy after the last update (empty: not evaluated), and this run's clock.
        """
        clock, epoch_clock, losses = Clock(), Clock(), []
        accuracy: dict[str, Score] = {}
        steps = iter(loader)
        while self.update < self.schedule.total:
            started = time.perf_counter()
            loss, stopping = self._update(steps, stop, epoch_clock)
            epoch_clock.busy += time.perf_counter() - started
            losses.append(loss)
            progress(self.update, self.schedule.total)
            epoch, position = divmod(self.update, self.schedule.per_epoch)
            if position == 0:
                # A stopped run has no time for an evaluation, unless it would be the last.
                due = epoch % self.evaluate_every == 0 and not stopping
                due = due or self.update == self.schedule.total
                self.save()  # before the evaluation, which may fail
                accuracy = (
                    accuracy_of(self.fabric, self.networks, held_out, self.task) if due and held_out is not None else {}
                )
                watch(self._summary(losses, epoch_clock, accuracy))
                _add(clock, epoch_clock)
                epoch_clock, losses = Clock(), []
            elif stopping:
                self.save()
            if stopping:
                break
        _add(clock, epoch_clock)
        return accuracy if self.update == self.schedule.total else {}, clock

    def _update(self, steps: Iterator[TrainBatch], stop: StopRequest, clock: Clock) -> tuple[float, bool]:
        """One update; returns the loss over all ranks, and whether any of them is to stop."""
        torch.manual_seed(
            int(np.random.SeedSequence((self.seed, self.update, self.fabric.global_rank)).generate_state(1)[0])
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.update)
        parts: list[UpdateStep] = []
        for step in range(self.accumulate):
            waiting = time.perf_counter()
            batch = next(steps).checked()
            clock.waiting += time.perf_counter() - waiting
            clock.images += len(batch.labels)
            self.unreadable.update(batch.unreadable)
            images, targets = self._prepared(batch)
            with self.fabric.no_backward_sync(self.wrapped, enabled=step + 1 < self.accumulate):
                loss = self.task.loss(self.wrapped(images), targets) / self.accumulate
                self.fabric.backward(loss)
            parts.append(UpdateStep(loss.detach(), images, targets, batch.names))
        mean = torch.stack([part.loss for part in parts]).sum()
        shared = self.fabric.all_reduce(torch.stack([mean, mean.new_tensor(float(stop.received))]), reduce_op="mean")
        assert isinstance(shared, Tensor)
        value, stopping = shared.tolist()
        if not np.isfinite(value):
            # Only now: to ask after each step would make a GPU wait for its host. Another rank's may be the bad one.
            bad = next((part for part in parts if not torch.isfinite(part.loss)), parts[-1])
            raise stop_at_bad_loss(
                self.output, self.fabric.global_rank, self.update, bad.images, bad.targets, bad.names
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        self.update += 1
        return value, stopping > 0

    def _prepared(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        device = self.fabric.device
        images, targets = self.augment(
            batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
        )
        return images.contiguous(memory_format=torch.channels_last), targets

    def _summary(self, losses: list[float], clock: Clock, accuracy: dict[str, Score]) -> EpochSummary:
        summary = EpochSummary(
            epoch=self.update // self.schedule.per_epoch,
            epochs=self.schedule.total // self.schedule.per_epoch,
            loss=sum(losses) / len(losses),
            lr=self.schedule.rate(self.update - 1),
            images_per_second=clock.rate(self.fabric.world_size),
            waiting=clock.waiting / clock.busy,
            accuracy=accuracy,
        )
        figures = {f"{n}_{k}": share for n, a in accuracy.items() for k, share in a.shares.items()}
        self.fabric.log_dict({"loss": summary.loss, "lr": summary.lr, **figures}, step=self.update)
        return summary

    def save(self) -> None:
        """Write the checkpoint, in place of the previous one."""
        if self.fabric.world_size > 1:
            found: list[dict[str, str]] = [{}] * self.fabric.world_size
            torch.distributed.all_gather_object(found, self.unreadable)
            self.unreadable = {name: reason for part in found for name, reason in part.items()}
        state = {name: network.state_dict() for name, network in self.networks.items()}
        self.fabric.save(
            self.checkpoint,
            {
                **state,
                "optimizer": self.optimizer.state_dict(),
                "averaged": 0 if self.ema is None else int(self.ema.n_averaged),
                "update": self.update,
                "unreadable": dict(self.unreadable),
                "settings": self.settings,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was saved.

        Raises:
            UsageError: it holds the weights of another network, or no average of them.
        """
        for name, network in self.networks.items():
            if name not in state:
                raise UsageError("the checkpoint holds no average of the weights", fix="give --no-ema")
            theirs, ours = ({n: tuple(t.shape) for n, t in d.items()} for d in (state[name], network.state_dict()))
            if unlike := sorted(n for n in theirs.keys() | ours.keys() if theirs.get(n) != ours.get(n)):
                raise UsageError(
                    f"the checkpoint is of another network: {len(unlike)} of its tensors differ, first {unlike[0]}",
                    fix="name the network that was trained, or another --output",
                )
            network.load_state_dict(state[name])
        if self.ema is not None:
            self.ema.n_averaged.fill_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.update = int(state["update"])
        self.unreadable.update(state["unreadable"])


def _add(total: Clock, part: Clock) -> None:
    total.busy, total.waiting = total.busy + part.busy, total.waiting + part.waiting
    total.images += part.images
