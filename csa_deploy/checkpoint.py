"""Loading weights from files that others wrote, without executing anything that they contain."""

from __future__ import annotations

import logging
import pickletools
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from csa_deploy.errors import UsageError
from csa_deploy.graph.guard import guarded_reading

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

KEYS = ("model", "model_ema", "state_dict")
BARE = "the file itself"
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, storage keys
_SHOWN = 3
_NAME = 100
_DIMENSIONS = 8
_MOST_RATIO = 4
_MOST_SMALL = 1 << 28
_WHERE = f"weights lie under {', '.join(KEYS)} or are the whole file"


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
        key: name of the dictionary to use, if another one than the first.

    Returns:
        The key under which the weights were.

    Raises:
        UsageError: unreadable, not a checkpoint, or not of this network; the message names the missing, unexpected
            and mis-shaped keys.
    """
    used, weights = _select(_read(path), path, key)
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    own = module.state_dict()
    misshapen = {n: v for n, v in weights.items() if n in own and own[n].shape != v.shape}
    unlike = [n for n, v in weights.items() if v.is_complex() and n in own and not own[n].is_complex()]
    fitting = {n: v for n, v in weights.items() if n not in misshapen and n not in unlike}
    result = module.load_state_dict(fitting, strict=False)
    taken = module.state_dict()
    # A tensor that was not taken is not looked into: one stored element may stand for 2^40.
    nonfinite = [n for n, v in fitting.items() if n in taken and not _is_finite(v)]
    problems = {
        "missing": [n for n in result.missing_keys if n not in weights],
        "unexpected": result.unexpected_keys,
        "mis-shaped": [f"{n} {_shape(v)} instead of {_shape(own[n])}" for n, v in misshapen.items()],
        "not finite": nonfinite,
        "complex": unlike,
    }
    found = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in problems.items() if keys]
    if found:
        raise UsageError(
            f"{path}: these weights (under {used}) are not for this network: {'; '.join(found)}",
            fix="give the checkpoint that was trained with this network",
        )
    return used


def start_from(module: nn.Module, path: Path) -> int:
    """Take from ``path`` the weights that fit ``module`` by name and shape; the others stay as they are.

    Files as :func:`load_checkpoint` reads them.

    Returns:
        The number of tensors taken.

    Raises:
        UsageError: unreadable, not a checkpoint, not finite, or nothing in it fits.
    """
    used, weights = _select(_read(path), path, None)
    own = module.state_dict()
    fitting = {n: v for n, v in weights.items() if n in own and own[n].shape == v.shape and not v.is_complex()}
    if bad := [n for n, v in fitting.items() if not _is_finite(v)]:
        raise UsageError(f"{path}: {len(bad)} of its weights (under {used}) are not finite ({_first(bad)})")
    if not fitting:
        raise UsageError(
            f"{path}: none of its {len(weights)} weights (under {used}) has a name and a shape of this network",
            fix="start from weights of a network with the same parts",
        )
    module.load_state_dict(fitting, strict=False)
    return len(fitting)


def _read(path: Path) -> Any:
    """The content of a checkpoint file, with :class:`Inert` objects for whatever is neither plain data nor tensor."""
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}", fix="name a checkpoint file")
    # A pickle can ask for any time and memory: it is read in a child process with bounds first.
    guarded_reading(lambda: _content(path) and None, path, alone=True)
    return _content(path)


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _require_bounded(path)
        return _read_pickled(path)
    except UsageError:
        raise
    except Exception as error:  # damaged files fail in many ways, in zip, pickle, torch and safetensors
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    if str(error).startswith("Weights only load failed"):  # what torch goes on to advise would run the file's code
        try:
            named = _first(sorted(_globals(path)))
        except Exception:  # the file is damaged as well
            named = ""
        return UsageError(
            f"{path}: refused: to load it means to run code that it names ({named or 'it does not say which'})",
            fix="get the weights as .safetensors from someone you trust",
        )
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return UsageError(
        f"{path}: cannot be read as a checkpoint: {reason}", fix="give a .safetensors file or one that torch.save wrote"
    )


def _require_bounded(path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is; ``torch.save`` does not compress."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if unpacked > max(_MOST_RATIO * size, _MOST_SMALL):
        raise UsageError(
            f"{path}: refused: {size / 2**20:.1f} MiB that unpack to {unpacked / 2**20:,.0f} MiB",
            fix="give a checkpoint as torch.save wrote it, from someone you trust",
        )


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
    if not weights:
        raise UsageError(f"{path}: no dictionary of weights under {used}: it is empty", fix=_WHERE)
    for kind, foreign in _foreign(weights).items():
        if foreign:
            raise UsageError(
                f"{path}: no dictionary of weights under {used}: {len(foreign)} {kind} ({_first(foreign)})", fix=_WHERE
            )
    return used, weights


def _foreign(weights: dict[Any, Any]) -> dict[str, list[str]]:
    """Entries that are no weights, by what is wrong with them."""
    return {
        "keys are no names": [_short(k) for k in weights if not isinstance(k, str)],
        "entries are no tensors": [_short(k) for k, v in weights.items() if not _is_tensor(v)],
        "tensors have no plain values": [_short(k) for k, v in weights.items() if _is_tensor(v) and not _is_plain(v)],
    }


def _short(key: object) -> str:
    text = key if isinstance(key, str) else f"{type(key).__name__} {key!r}" if isinstance(key, int | bytes) else ""
    return text[:_NAME] or f"a {type(key).__name__}"


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has one value per element, of a type that a network computes in: no meta, sparse, FP8 ..."""
    import torch

    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)
    whole = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return dense and not tensor.is_nested and not tensor.is_quantized and tensor.dtype in (*types, *whole)


def _is_finite(tensor: Tensor) -> bool:
    import torch

    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _first(keys: list[str]) -> str:
    return ", ".join(" ".join(key[:_NAME].split()) for key in keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _shape(tensor: Tensor) -> str:
    dims = [*map(str, tensor.shape[:_DIMENSIONS]), *(["..."] if tensor.dim() > _DIMENSIONS else [])]
    return "x".join(dims) or "scalar"
