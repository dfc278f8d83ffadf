"""trtexec's I/O formats, ``TYPE:FORMAT`` up to 10.16 and ``FORMAT`` from 11.0, against the graph that is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csa_deploy.errors import UsageError
from csa_deploy.records.build import TensorInfo
from csa_deploy.trtexec.versions import Version

_TYPES = {
    **{"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8", "uint8": "UINT8"},
    **{"int32": "INT32", "int64": "INT64", "bool": "BOOL"},
}
_WORDS = {kind: word for word, kind in _TYPES.items()}
_FORMATS = ("chw", "chw2", "chw4", "chw16", "chw32", "hwc", "hwc8", "dhwc", "dhwc8", "cdhw32", "dla_linear", "dla_hwc4")
_FROM_10 = ("hwc16",)
# What DLA takes at its border (DLA Runtime Configuration, I/O Formats on DLA); trtexec takes chw4 for dla_hwc4.
_DLA = {"HALF": ("dla_linear", "chw16"), "INT8": ("dla_linear", "chw32")}
_DLA_IMAGES, _IMAGE_CHANNELS = ("dla_hwc4", "chw4"), (1, 3, 4)


def with_formats(
    tensors: Sequence[TensorInfo], formats: str | None, option: str, version: Version, *, weak: bool
) -> tuple[TensorInfo, ...]:
    """A graph's inputs or outputs as the engine has them.

    A weakly typed build gives them the types of the formats. A strongly typed one cannot: trtexec refuses other types
    than the graph's from 10.15, and before changes the graph under the hand of who asked.

    Args:
        tensors: the graph's.
        formats: as given; None leaves the choice of trtexec, the graph's own types in linear layout.
        option: its name, for messages.
        version: of trtexec, whose grammar counts.
        weak: whether TensorRT makes the precision itself.

    Raises:
        UsageError: not in this version's form, not one for all or one for each, or of another type than the graph's.
    """
    if formats is None:
        if option == "input_formats" and version.major < 10 and any(t.dtype == "INT8" for t in tensors):
            raise UsageError(
                f"trtexec of TensorRT {version} turns INT8 inputs into FP32", fix="add input_formats=int8:chw"
            )
        return tuple(tensors)
    said = f"{option}={formats}"
    kinds = [_kind(item, said, version) for item in formats.split(",")]
    if len(kinds) not in (1, len(tensors)):
        raise UsageError(
            f"{said} states {len(kinds)} formats for {len(tensors)} tensors", fix="give one for all, or one for each"
        )
    kinds = kinds * len(tensors) if len(kinds) == 1 else kinds
    wanted = tuple(replace(t, dtype=kind or t.dtype) for t, kind in zip(tensors, kinds, strict=True))
    for have, want in zip(tensors, wanted, strict=True):
        if not weak and have.dtype != want.dtype:
            raise UsageError(
                f"{said}: {have.name!r} is {_WORDS[have.dtype]} in the graph, whose types count in this build",
                fix=f"write {_WORDS[have.dtype]}:FORMAT, or export the graph with that type",
            )
    return wanted


def require_dla_formats(tensors: Sequence[TensorInfo], formats: str | None, option: str) -> None:
    """Refuse formats and types that no DLA loadable has at its inputs or outputs: nothing reformats in front of it.

    Args:
        tensors: as :func:`with_formats` gives them.
        formats: as given there.
        option: its name, for messages.

    Raises:
        UsageError: names the tensor and what it may have.
    """
    items = (formats or "").split(",")
    for tensor, item in zip(tensors, items * len(tensors) if len(items) == 1 else items, strict=True):
        if tensor.dtype not in _DLA:
            raise UsageError(
                f"{option}: {tensor.name!r} is {_WORDS[tensor.dtype]}, and a DLA loadable takes fp16 and int8 only",
                fix="type inputs and outputs FP16 (--fp16-io); before 10 write fp16:chw16",
            )
        image = len(tensor.shape) == 4 and tensor.shape[1] in _IMAGE_CHANNELS and option == "input_formats"
        known = (*_DLA[tensor.dtype], *(_DLA_IMAGES if image else ()))
        if unfit := [layout for layout in item.rpartition(":")[2].split("+") if layout not in known]:
            raise UsageError(
                f"{option}={formats}: a DLA loadable has no {unfit[0]!r} for {tensor.name!r} "
                f"({_WORDS[tensor.dtype]} of {list(tensor.shape)})",
                fix=f"use {', '.join(known)}",
            )


def _kind(item: str, said: str, version: Version) -> str | None:
    """The type that one format states; None from 11, where it states none."""
    word, colon, layouts = item.rpartition(":")
    if version.major >= 11 and colon:
        raise UsageError(
            f"{said}: TensorRT {version} takes no types in formats, they are the graph's", fix=f"write {layouts}"
        )
    if version.major < 11 and word not in _TYPES:
        raise UsageError(
            f"{said}: TensorRT {version} takes formats as TYPE:FORMAT, with a type of {', '.join(_TYPES)}",
            fix=f"write fp16:{layouts or 'chw'}",
        )
    known = (*_FORMATS, *(_FROM_10 if version.major >= 10 else ()))
    if unknown := [layout for layout in layouts.split("+") if layout not in known]:
        raise UsageError(f"{said}: unknown format {unknown[0]!r}", fix=f"use one of {', '.join(known)}")
    return _TYPES[word] if colon else None
