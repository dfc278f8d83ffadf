"""Fixes the sizes that an ONNX file leaves open, and finds the shapes that its outputs then have."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from csa_deploy.errors import UsageError
from csa_deploy.export.input_shapes import Extent, InputShapes, Wanted, declare, text_of
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, save_model, weight_bytes
from csa_deploy.metrics.distance import exactly
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    from csa_deploy.config import Config

Shape = tuple[int | None, ...]

_SIDES = ((480, 640), (224, 224), (48, 320), (64, 256), (32, 32))  # tried for a message that names a size that works
_DAMAGED = "check the file with `csa-deploy check`, or export it again"
_ALIKE = 1e-4  # of an output's range: ONNX Runtime may choose other kernels where sizes are known
_MOST_BYTES = 2**31  # of an input: more is no image
_LARGE = 2**22  # elements of an input; larger ones are not tried for a message


def wanted_by(config: Config) -> Wanted:
    """What the settings ask for."""
    nhwc = {"nhwc": True, "nchw": False}.get(config.layout or "")
    return Wanted(config.input_shape, config.batch, config.size, nhwc)


def leaves_open(model: onnx.ModelProto) -> bool:
    """Whether an input has an axis without a size."""
    return bool(InputShapes(model).open_axes())


def make_static(model: onnx.ModelProto, wanted: Wanted) -> list[str]:
    """Fix every open axis of the inputs, in place, and state the shapes of the outputs as they are.

    Where a size was open, the copy is compared with the file as it was, on two random inputs in ONNX Runtime.

    Returns:
        What was done, one line each.

    Raises:
        UsageError: an axis stays open, sizes contradict the file or one another, or the network does not run with them.
    """
    notes = _weights_are_no_inputs(model)
    inputs = InputShapes(model)
    inputs.resolve(wanted)
    if missing := inputs.open_axes():
        raise _open_error(model, inputs, missing)
    if not inputs.leaves_open(model):
        return notes + _state_outputs(model, _answers(model))
    sizes = ", ".join(f"{n}={text_of(s)}" for n, s in inputs.shapes.items())
    named = ", ".join(f"{symbol} {given.extent}" for symbol, given in inputs.symbols.items())
    notes.append(f"made static: {sizes}{f' (its {named})' if named else ''}")
    before, reason = _tried(model, inputs.shapes)
    inputs.write(model)
    del model.graph.value_info[:]  # of other sizes
    try:
        answers = _answers(model)
    except UsageError as error:
        raise UsageError(
            f"the network does not run with {sizes}: {error.message}",
            fix="give the sizes that it was exported for, or export it again: a constant in it may be of another size",
        ) from None
    said = _agreement(before, answers) if before else f"the static copy was not compared with the file: {reason}"
    return [*notes, *_state_outputs(model, answers), said]


def _tried(model: onnx.ModelProto, shapes: Mapping[str, Sequence[Extent]]) -> tuple[list[Arrays], str]:
    """What the file as it is says at these sizes, or why nothing."""
    try:
        return _answers(model, shapes), ""
    except UsageError as error:
        return [], error.message


def _agreement(wanted: list[Arrays], answers: list[Arrays]) -> str:
    """Whether the copy computes what the file computes at these sizes, in words; raises UsageError where not."""
    worst = 0.0
    for want, got in zip(wanted, answers, strict=True):
        for name, array in want.items():
            if array.shape == got[name].shape and not np.array_equal(
                array, got[name], equal_nan=array.dtype.kind == "f"
            ):
                worst = max(worst, _relative(array, got[name]))
    if worst > _ALIKE:
        raise UsageError(f"the static copy differs from the file by {worst:.1e} of an output's range", fix=_DAMAGED)
    told = f"to {worst:.1e} of an output's range" if worst else "to the bit"
    return f"the static copy computes what the file does at these sizes, {told}, on two random inputs"


def _relative(want: np.ndarray, got: np.ndarray) -> float:
    first, second = exactly(want), exactly(got)
    error = float(np.abs(first - second).max())
    return error / (float(np.ptp(first)) or 1.0) if math.isfinite(error) else math.inf


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


def _open_error(model: onnx.ModelProto, inputs: InputShapes, missing: dict[str, list[int]]) -> UsageError:
    """Say which axes are open, with a command that works, as far as a trial finds one."""
    name, axes = next(iter(missing.items()))
    if not axes:
        return UsageError(f"input '{name}' has no shape", fix=f"give one, such as --input-shape {name}=1x3x224x224")
    called = [f" '{e}'" if isinstance(e := inputs.shapes[name][a], str) else "" for a in axes]
    where = " and ".join(f"{axis}{symbol}" for axis, symbol in zip(axes, called, strict=True))
    shapes = next((s for s in _trials(model, inputs) if s), inputs.with_sides(*_SIDES[0]))
    flags = " ".join(f"--input-shape {n}={text_of(shapes[n])}" for n in missing)
    return UsageError(
        f"input '{name}' has no fixed size on {'axes' if len(axes) > 1 else 'axis'} {where}", fix=f"give it: {flags}"
    )


def _trials(model: onnx.ModelProto, inputs: InputShapes) -> Iterator[dict[str, tuple[int, ...]] | None]:
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


def _state_outputs(model: onnx.ModelProto, answers: list[Arrays]) -> list[str]:
    """Give the outputs the shapes that inference finds, and make sure by what came of running.

    Raises:
        UsageError: the network does not run, or the shape of an output depends on the values of the inputs.
    """
    declared = {value.name: _stated(value) for value in model.graph.output}
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = _inferred(model)
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
        declare(value, shape)
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
    with running(model) as runner:
        return {spec.name: spec.shape for spec in runner.output_specs}


def _answers(model: onnx.ModelProto, shapes: Mapping[str, Sequence[Extent]] | None = None) -> list[Arrays]:
    """What the network says to two random inputs, of these shapes where it leaves them open."""
    with running(model) as runner:
        specs = [_at(spec, shapes[spec.name]) if shapes else spec for spec in runner.input_specs]
        for spec in specs:
            if (taken := math.prod(spec.static_shape) * np.dtype(spec.dtype).itemsize) > _MOST_BYTES:
                size = f"input '{spec.name}' of {text_of(spec.static_shape)} takes {taken >> 30} GiB"
                raise UsageError(
                    f"{size}, more than can be run here",
                    fix="give smaller sizes, or check the file",
                )
        return [runner.run(random_feeds(specs, seed)) for seed in (0, 1)]


def _at(spec: TensorSpec, shape: Sequence[Extent]) -> TensorSpec:
    return replace(spec, shape=tuple(int(extent or 0) for extent in shape))


@contextmanager
def running(model: onnx.ModelProto) -> Iterator[OnnxRuntimeRunner]:
    """A model in ONNX Runtime, entered."""
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
