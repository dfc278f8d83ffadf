"""Sizes of a network's inputs while they are resolved: what the file states, what is asked for, what contradicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx

from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean

Extent = int | str | None
"""A size, the name of an open one, or an open one without a name."""

_NAMELESS = ("", "?", "-1", "None")  # written for any open axis: two of them need not be equal


@dataclass(frozen=True)
class Wanted:
    """Sizes that the user asks for.

    Attributes:
        shapes: by input; ``""`` is the only input.
        batch: extent of axis 0 of every input, None for 1 where the file leaves it open.
        size: (height, width) of image inputs.
        nhwc: whether the channels of image inputs come last; None to tell by the shape.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    size: tuple[int, int] | None = None
    nhwc: bool | None = None


class SymbolSize(NamedTuple):
    """The size of a symbol, and the input that gave it."""

    extent: int
    name: str


class InputShapes:
    """Shapes of the inputs while they are resolved; an axis of a name has one size wherever it is.

    Attributes:
        symbols: sizes of the named axes, as far as they are given.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.symbols: dict[str, SymbolSize] = {}
        self._stated: dict[str, list[Extent]] = {value.name: _extents(value) for value in model.graph.input}
        self.shapes: dict[str, list[Extent]] = {value.name: _extents(value) for value in model.graph.input}
        self._ranked = {v.name: v.type.tensor_type.HasField("shape") for v in model.graph.input}

    def resolve(self, wanted: Wanted) -> None:
        """Fill in what is asked for, then 1 for the batch."""
        for name, shape in wanted.shapes.items():
            self._set_shape(name, shape)
        if wanted.batch is not None:
            for name in self.shapes:
                self._set(name, 0, wanted.batch, "--batch")
        if wanted.size is not None:
            self._set_size(wanted.size, wanted.nhwc)
        for name, extents in self.shapes.items():
            if len(extents) > 1 and not isinstance(extents[0], int):
                self._set(name, 0, 1, "--batch")

    def open_axes(self) -> dict[str, list[int]]:
        """Axes without a size by input, where there are any; an input of unknown rank has none but is listed."""
        found = {n: [a for a, e in enumerate(s) if not isinstance(e, int)] for n, s in self.shapes.items()}
        return {name: axes for name, axes in found.items() if axes or not self._ranked[name]}

    def leaves_open(self, model: onnx.ModelProto) -> bool:
        """Whether the model leaves open what is resolved here."""
        return any(
            self.shapes[value.name] != [d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in model.graph.input
        )

    def write(self, model: onnx.ModelProto) -> None:
        """Put the sizes into the model."""
        for value in model.graph.input:
            declare(value, [int(e) for e in self.shapes[value.name] if e is not None])

    def with_sides(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes in which the open axes have some size: rows and columns of images, 1 for the batch, else 16."""
        found = {}
        for name, extents in self.shapes.items():
            rows, columns = _image_axes(extents, None) or (-1, -1)
            guess = {0: 1, rows: height, columns: width}
            shape = [e if isinstance(e, int) else guess.get(a, 16) for a, e in enumerate(extents)]
            if len(shape) == 4 and rows == 2 and not isinstance(extents[1], int):
                shape[1] = 3
            found[name] = tuple(shape)
        return found

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if name == "":
            if len(self.shapes) != 1:
                raise UsageError(
                    f"--input-shape {text_of(shape)}: the network has {len(self.shapes)} inputs: {self._listed()}",
                    fix=f"write --input-shape {next(iter(self.shapes), 'NAME')}={text_of(shape)}",
                )
            name = next(iter(self.shapes))
        if name not in self.shapes:
            meant = did_you_mean(name, self.shapes)
            raise UsageError(
                f"--input-shape {name}={text_of(shape)}: no input has this name{f', {meant}' if meant else ''}",
                fix=f"the inputs are {self._listed()}",
            )
        if not self._ranked[name]:
            self.shapes[name], self._ranked[name] = [None] * len(shape), True
        if len(shape) != len(self.shapes[name]):
            raise UsageError(
                f"--input-shape {name}={text_of(shape)} has {len(shape)} axes, the file's has "
                f"{len(self.shapes[name])}: {self._listed()}",
                fix="give one size for each axis",
            )
        for axis, extent in enumerate(shape):
            self._set(name, axis, extent, "--input-shape")

    def _set_size(self, size: tuple[int, int], nhwc: bool | None) -> None:
        images = {n: axes for n, extents in self.shapes.items() if (axes := _image_axes(extents, nhwc))}
        if not images:
            raise UsageError(f"--size: no input is an image: {self._listed()}", fix="give --input-shape instead")
        for name, axes in images.items():
            for axis, extent in zip(axes, size, strict=True):
                self._set(name, axis, extent, "--size")

    def _set(self, name: str, axis: int, extent: int, flag: str) -> None:
        """Give an axis its size, and every axis of the same name."""
        extents = self.shapes[name]
        known = extents[axis] if axis < len(extents) else extent
        if isinstance(known, int):
            if known != extent:
                symbol = dict(enumerate(self._stated[name])).get(axis)
                before = self.symbols.get(symbol) if isinstance(symbol, str) else None
                if before is not None and before.name != name:
                    raise UsageError(
                        f"{flag}: axis {axis} of input '{name}' is '{symbol}', which input '{before.name}' made "
                        f"{before.extent}, not {extent}",
                        fix=f"give '{symbol}' one size wherever it stands",
                    )
                raise UsageError(
                    f"{flag}: axis {axis} of input '{name}' is {known}, not {extent}: {self._listed()}",
                    fix="give the sizes that the file leaves open, each once; others need another export",
                )
            return
        extents[axis] = extent
        if known is not None:
            self.symbols[known] = SymbolSize(extent, name)
            self.shapes = {n: [extent if e == known else e for e in s] for n, s in self.shapes.items()}

    def _listed(self) -> str:
        return ", ".join(f"{n} [{', '.join('?' if e is None else str(e) for e in s)}]" for n, s in self.shapes.items())


def _extents(value: onnx.ValueInfoProto) -> list[Extent]:
    if not value.type.HasField("tensor_type"):
        raise UsageError(f"input '{value.name}' is not a tensor", fix="cut the network behind it, or export it again")
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.dim_value > 0 else None if d.dim_param in _NAMELESS else d.dim_param for d in dims]


def _image_axes(extents: list[Extent], nhwc: bool | None) -> tuple[int, int] | None:
    """Axes of rows and columns of an image input."""
    if len(extents) != 4:
        return None
    last = extents[3] in (1, 3) and extents[1] not in (1, 3)
    return (1, 2) if (last if nhwc is None else nhwc) else (2, 3)


def declare(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    """State the shape of an input or output."""
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    dims.SetInParent()
    for extent in shape:
        dims.dim.add().dim_value = extent


def text_of(shape: Sequence[Extent]) -> str:
    """``1x3x224x224``."""
    return "x".join(map(str, shape))
