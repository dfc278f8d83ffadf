"""Loading weights from files that others wrote, without executing anything that they contain."""

from __future__ import annotations

import logging
import pickletools
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from csa_deploy.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

KEYS = ("model", "model_ema", "state_dict")
BARE = "the file itself"
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, storage keys
_SHOWN = 3


class Inert:
    """Stands in for every class and function a checkpoint names that is not a plain container or tensor.

    It takes any arguments and state and does nothing with them.
    """

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def load_checkpoint(module: nn.Module, path: Path, *, key: str | None = None) -> str:
    """Load the weights in ``path`` into ``module``.

    Reads ``.safetensors`` and what ``torch.save`` writes (``.pth``, ``.pt``, ``.ckpt``; zip and legacy format). The
    weights are the file's dictionary itself or lie in it under ``model``, ``model_ema`` or ``state_dict``, the first
    of these that is there. A leading ``module.`` of every name (DistributedDataParallel) is dropped.

    Args:
        module: takes the weights; on an error its weights are unspecified.
        path: the checkpoint.
        key: name of the dictionary to use, if another one than the first.

    Returns:
        The key under which the weights were.

    Raises:
        UsageError: unreadable, not a checkpoint, or not of this network; the message names the missing, unexpected
            and mis-shaped keys.
    """
    import torch

    used, weights = _select(_read(path), path, key)
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    own = module.state_dict()
    misshapen = {n: v for n, v in weights.items() if n in own and own[n].shape != v.shape}
    nonfinite = [n for n, v in weights.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    fitting = {n: v for n, v in weights.items() if n not in misshapen}
    result = module.load_state_dict(fitting, strict=False)
    problems = {
        "missing": [n for n in result.missing_keys if n not in misshapen],
        "unexpected": result.unexpected_keys,
        "mis-shaped": [f"{n} {_shape(v)} instead of {_shape(own[n])}" for n, v in misshapen.items()],
        "not finite": nonfinite,
    }
    found = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in problems.items() if keys]
    if found:
        raise UsageError(
            f"{path}: these weights (under {used}) are not for this network: {'; '.join(found)}",
            fix="give the checkpoint that was trained with this network",
        )
    return used


def _read(path: Path) -> Any:
    """The content of a checkpoint file, with :class:`Inert` objects for whatever is neither plain data nor tensor."""
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}", fix="name a checkpoint file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _read_pickled(path)
    except UsageError:
        raise
    except Exception as error:  # damaged files fail in many ways, in zip, pickle, torch and safetensors
        if str(error).startswith("Weights only load failed"):  # what torch goes on to advise would run the file's code
            raise UsageError(
                f"{path}: refused: to load it means to run code that it names ({_first(sorted(_globals(path)))})",
                fix="get the weights as .safetensors from someone you trust",
            ) from error
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UsageError(
            f"{path}: cannot be read as a checkpoint: {reason}",
            fix="give a .safetensors file or one that torch.save wrote",
        ) from error


def _read_pickled(path: Path) -> Any:
    import torch

    names = _globals(path)
    stand_ins = [(Inert, name) for name in sorted(names)]
    # torch looks its own allow-list up first, and refuses names of os, sys and the like whatever is listed here.
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True)


def _globals(path: Path) -> set[str]:
    """Full names of the classes and functions in a file of ``torch.save``, found without unpickling."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found: set[str] = set()
            for member in archive.namelist():
                if member.endswith("/data.pkl"):
                    with archive.open(member) as stream:
                        found |= _globals_of_next_pickle(stream)  # type: ignore[arg-type]
            return found
    with path.open("rb") as stream:
        return set().union(*(_globals_of_next_pickle(stream) for _ in range(_LEGACY_PICKLES)))


def _globals_of_next_pickle(stream: BinaryIO) -> set[str]:
    return {
        argument.replace(" ", ".") for op, argument, _ in pickletools.genops(stream) if op.name == "GLOBAL" and argument
    }


def _select(content: Any, path: Path, key: str | None) -> tuple[str, dict[str, Tensor]]:
    """The weights in a checkpoint's content and the key they were found under."""
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds a {type(content).__name__}, no dictionary of weights")
    held = [k for k in content if isinstance(k, str) and isinstance(content[k], dict)]
    if key is not None and key not in held:
        raise UsageError(
            f"{path}: no weights under '{key}'", fix=f"dictionaries in the file: {', '.join(held) or 'none'}"
        )
    used = key or next((k for k in KEYS if k in held), BARE)
    others = [k for k in KEYS if k in held and k != used]
    if key is None and others:
        log.warning("%s: using the weights under '%s'; also there: %s", path, used, ", ".join(others))
    weights = content if used == BARE else content[used]
    foreign = [str(k) for k, v in weights.items() if not _is_tensor(v)]
    if foreign or not weights:
        raise UsageError(
            f"{path}: no dictionary of weights under {used}: "
            + (f"{len(foreign)} entries are no tensors ({_first(foreign)})" if foreign else "it is empty"),
            fix=f"weights lie under {', '.join(KEYS)} or are the whole file",
        )
    return used, weights


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
