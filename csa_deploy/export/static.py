"""Fixes the sizes that an ONNX file leaves open, and finds the shapes that its outputs then have."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, save_model, weight_bytes
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

if TYPE_CHECKING:
    from csa_deploy.config import Config

Extent = int | str | None  # a size, the name of an open one, or an open one without a name
Shape = tuple[int | None, ...]

_NAMELESS = ("", "?", "-1", "None")  # written for any open axis: two of them need not be equal
_SIDES = ((480, 640), (224, 224), (48, 320), (64, 256), (32, 32))  # tried for a message that names a size that works
_DAMAGED = "check the file with `csa-deploy check`, or export it again"
_MOST_BYTES = 2**31  # of an input: more is no image
_LARGE = 2**22  # elements of an input; larger ones are not tried for a message


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


def wanted_by(config: Config) -> Wanted:
    """What the settings ask for."""
    nhwc = {"nhwc": True, "nchw": False}.get(config.layout or "")
    return Wanted(config.input_shape, config.batch, config.size, nhwc)


def leaves_open(model: onnx.ModelProto) -> bool:
    """Whether an input has an axis without a size."""
    return bool(_Inputs(model).open_axes())


def make_static(model: onnx.ModelProto, wanted: Wanted) -> list[str]:
    """Fix every open axis of the inputs, in place, and state the shapes of the outputs as they are.

    Returns:
        What was done, one line each.

    Raises:
        UsageError: an axis stays open, sizes contradict the file or one another, or the network does not run with them.
    """
    notes = _weights_are_no_inputs(model)
    inputs = _Inputs(model)
    inputs.resolve(wanted)
    if missing := inputs.open_axes():
        raise _open_error(model, inputs, missing)
    if inputs.write(model):
        del model.graph.value_info[:]  # of other sizes
        notes.append(f"made static: {', '.join(f'{n}={_text(s)}' for n, s in inputs.shapes.items())}")
    return notes + _state_outputs(model)


def _weights_are_no_inputs(model: onnx.ModelProto) -> list[str]:
    """Files of IR version 3 list their weights as inputs that a caller may override; a deployment has constants."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    if len(kept) == len(model.graph.input):
        return []
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)
    return ["weights that the file also lists as inputs are constants"]


class _Inputs:
    """Shapes of the inputs while they are resolved; an axis of a name has one size wherever it is."""

    def __init__(self, model: onnx.ModelProto) -> None:
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

    def write(self, model: onnx.ModelProto) -> bool:
        """Put the sizes into the model; returns whether any was open."""
        changed = False
        for value in model.graph.input:
            shape = [int(e) for e in self.shapes[value.name] if e is not None]
            if shape != [d.dim_value for d in value.type.tensor_type.shape.dim]:
                _declare(value, shape)
                changed = True
        return changed

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
                    f"--input-shape {_text(shape)}: the network has {len(self.shapes)} inputs: {self._listed()}",
                    fix=f"write --input-shape {next(iter(self.shapes), 'NAME')}={_text(shape)}",
                )
            name = next(iter(self.shapes))
        if name not in self.shapes:
            raise UsageError(
                f"--input-shape {name}={_text(shape)}: no input has this name", fix=f"the inputs are {self._listed()}"
            )
        if not self._ranked[name]:
            self.shapes[name], self._ranked[name] = [None] * len(shape), True
        if len(shape) != len(self.shapes[name]):
            raise UsageError(
                f"--input-shape {name}={_text(shape)} has {len(shape)} axes, the file's has {len(self.shapes[name])}: "
                f"{self._listed()}",
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
                raise UsageError(
                    f"{flag}: axis {axis} of input '{name}' is {known}, not {extent}: {self._listed()}",
                    fix="give the sizes that the file leaves open, each once; others need another export",
                )
            return
        extents[axis] = extent
        if known is not None:
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


def _open_error(model: onnx.ModelProto, inputs: _Inputs, missing: dict[str, list[int]]) -> UsageError:
    """Say which axes are open, with a command that works, as far as a trial finds one."""
    name, axes = next(iter(missing.items()))
    if not axes:
        return UsageError(f"input '{name}' has no shape", fix=f"give one, such as --input-shape {name}=1x3x224x224")
    called = [f" '{e}'" if isinstance(e := inputs.shapes[name][a], str) else "" for a in axes]
    where = " and ".join(f"{axis}{symbol}" for axis, symbol in zip(axes, called, strict=True))
    shapes = next((s for s in _trials(model, inputs) if s), inputs.with_sides(*_SIDES[0]))
    flags = " ".join(f"--input-shape {n}={_text(shapes[n])}" for n in missing)
    return UsageError(
        f"input '{name}' has no fixed size on {'axes' if len(axes) > 1 else 'axis'} {where}", fix=f"give it: {flags}"
    )


def _trials(model: onnx.ModelProto, inputs: _Inputs) -> Iterator[dict[str, tuple[int, ...]] | None]:
    for sides in _SIDES:
        shapes = inputs.with_sides(*sides)
        trial = onnx.ModelProto()
        trial.CopyFrom(model)
        if max(math.prod(shape) for shape in shapes.values()) > _LARGE:
            continue
        try:
            make_static(trial, Wanted(shapes=shapes))
        except UsageError:
            yield None
        else:
            yield shapes


def _state_outputs(model: onnx.ModelProto) -> list[str]:
    """Give the outputs the shapes that inference finds, and make sure by running.

    Raises:
        UsageError: the network does not run, or the shape of an output depends on the values of the inputs.
    """
    declared = {value.name: _stated(value) for value in model.graph.output}
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = _inferred(model)
    answers = _answers(model)
    notes = []
    for value in model.graph.output:
        shapes = {answer[value.name].shape for answer in answers}
        found = inferred.get(value.name, ())
        if len(shapes) > 1 or not _fits(found, next(iter(shapes))):
            raise UsageError(
                f"output '{value.name}' has no fixed shape: {' and '.join(map(str, sorted(shapes)))} on two inputs",
                fix="end the network before the operator that makes as many results as it finds",
            )
        shape = shapes.pop()
        _declare(value, shape)
        stated = declared[value.name]
        if stated is not None and not _fits(stated, shape):
            listed = [extent or "?" for extent in stated]
            notes.append(f"output '{value.name}' is {list(shape)}; the file declares {listed}, which is corrected")
        elif found is None or None in found:
            notes.append(f"output '{value.name}' is {list(shape)} on two random inputs; inference does not tell")
    return notes


def _inferred(model: onnx.ModelProto) -> dict[str, Shape | None]:
    """Shapes of the outputs as ONNX infers them, else ONNX Runtime; the other shapes go into the model."""
    if weight_bytes(model) <= EXTERNAL_DATA_FROM:
        try:
            known = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:  # native code, on a file of somebody else
            raise UsageError(f"shapes cannot be inferred: {str(error).strip()[:200]}", fix=_DAMAGED) from None
        if not model.graph.value_info:
            model.graph.value_info.extend(known.graph.value_info)
        found = {value.name: _stated(value) for value in known.graph.output}
        if all(shape is not None and None not in shape for shape in found.values()):
            return found
    with _running(model) as runner:
        return {spec.name: spec.shape for spec in runner.output_specs}


def _answers(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    """What the network says to two random inputs."""
    with _running(model) as runner:
        for spec in runner.input_specs:
            if (taken := math.prod(spec.static_shape) * np.dtype(spec.dtype).itemsize) > _MOST_BYTES:
                size = f"input '{spec.name}' of {_text(spec.static_shape)} takes {taken >> 30} GiB"
                raise UsageError(
                    f"{size}, more than can be run here",
                    fix="give smaller sizes, or check the file",
                )
        return [runner.run(random_feeds(runner.input_specs, seed)) for seed in (0, 1)]


@contextmanager
def _running(model: onnx.ModelProto) -> Iterator[OnnxRuntimeRunner]:
    with tempfile.TemporaryDirectory() as scratch:
        source: Path | bytes = Path(scratch) / "network.onnx"
        if weight_bytes(model) > EXTERNAL_DATA_FROM:
            save_model(model, Path(scratch) / "network.onnx")
        else:
            source = model.SerializeToString()
        with OnnxRuntimeRunner(source, spin=False, name="the network") as runner:
            yield runner


def _fits(stated: Shape | None, shape: tuple[int, ...]) -> bool:
    """Whether a shape is a case of a stated one."""
    if stated is None:
        return True
    return len(stated) == len(shape) and all(a in (None, b) for a, b in zip(stated, shape, strict=True))


def _stated(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)


def _declare(value: onnx.ValueInfoProto, shape: tuple[int, ...] | list[int]) -> None:
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    dims.SetInParent()
    for extent in shape:
        dims.dim.add().dim_value = extent


def _text(shape: tuple[int, ...] | list[Extent]) -> str:
    return "x".join(map(str, shape))
