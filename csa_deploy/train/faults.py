"""What can go wrong in a long training: pre-emption, a loss that is no number, a full disk."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from csa_deploy.errors import AccuracyGateError, EnvironmentLacksError, UsageError

CHECKPOINT = "last.ckpt"


class StopRequest:
    """Remembers SIGTERM while entered, so that the loop can stop where a checkpoint is whole."""

    def __init__(self) -> None:
        self.received = False
        self._previous: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # others cannot have handlers
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _remember(self, _: int, __: FrameType | None) -> None:
        self.received = True


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the previous one and puts it in its place when it is whole and on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; on failure the previous checkpoint stays.

        Raises:
            EnvironmentLacksError: the disk is full, or cannot be written.
        """
        with _replacing(Path(path), "checkpoint") as temporary, temporary.open("wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors as safetensors, in place of an earlier file when they are whole; returns ``path``.

    Raises:
        EnvironmentLacksError: the disk is full, or cannot be written.
    """
    with _replacing(path, "file") as temporary:
        found = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(found, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes it private
    return path


@contextmanager
def _replacing(path: Path, what: str) -> Iterator[Path]:
    """A temporary file that takes the place of ``path``; on failure it goes, and what was at ``path`` stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except KeyboardInterrupt:
        temporary.unlink(missing_ok=True)
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # torch makes a failed write a RuntimeError
        temporary.unlink(missing_ok=True)
        kept = f"the previous {what} is kept" if path.exists() else "there is no earlier one"
        raise EnvironmentLacksError(
            f"{path}: the {what} cannot be written ({' '.join(str(error).split())[:120]}); {kept}",
            fix="free some space and run the same command again",
        ) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training; nothing in it is executed.

    Raises:
        UsageError: not there, damaged, or not written by a training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such checkpoint") from None
    except Exception as error:  # damaged files fail in many ways
        reason = str(error).strip().split("\n")[0][:120]
        raise UsageError(f"{path}: cannot be read as a checkpoint: {reason}") from error
    if not isinstance(state, dict) or "optimizer" not in state or "settings" not in state:
        raise UsageError(
            f"{path}: holds no training to go on with", fix="resume from the last.ckpt of a csa-deploy train"
        )
    return state


def stop_at_bad_loss(
    folder: Path, rank: int, update: int, images: Tensor, targets: Tensor, names: Sequence[str]
) -> AccuracyGateError:
    """Keep the batch whose loss is no number, as it was fed; returns the error to raise.

    ``bad_batch_rank<r>.safetensors`` holds ``images``, ``targets``, and in its metadata the update and the names.
    """
    path = save_tensors(
        folder / f"bad_batch_rank{rank}.safetensors",
        {"images": images, "targets": targets},
        metadata={"update": str(update), "names": json.dumps(list(names))},
    )
    before = "the last checkpoint stays" if (folder / CHECKPOINT).exists() else "there is no checkpoint before it"
    return AccuracyGateError(
        f"update {update}: the loss is not finite; its batch is kept in {path}, {before}",
        fix="look at the batch; lower --lr or lengthen the warm-up",
    )


@contextmanager
def faults_of_others() -> Iterator[None]:
    """What a process says whose partner has ended: that, instead of its network library's words.

    Raises:
        EnvironmentLacksError: another process of this training is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("Connection closed by peer", "Connection reset by peer")):
            raise
        raise EnvironmentLacksError(
            "another process of this training has ended", fix="read its message; the last checkpoint is whole"
        ) from error
