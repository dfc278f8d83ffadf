"""Graphs that ONNX Runtime runs as they are written: sessions, what they answer, and how far noise moves them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from csa_deploy.graph.compare import Deviation, deviation
from csa_deploy.graph.cut import runnable_part
from csa_deploy.graph.inputs import Arrays, Specs, feed, nudged, one_ulp
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, save_model, weight_bytes

_SILENT = 4

_NOISES = 2


class CannotRunError(Exception):
    """ONNX Runtime cannot load or run a graph; the message says why, in one line."""


class CannotFollowError(CannotRunError):
    """The second graph does not run on inputs on which the first does."""


class Runs:
    """A graph, what it answers, and how far one unit of noise moves it."""

    def __init__(self, model: onnx.ModelProto, keep: bool) -> None:
        self._model, self._session = model, Session(model)
        self._noisy: Session | None = None
        self._keep, self._answers, self._noises = keep, dict[str, Arrays](), dict[str, list[Arrays]]()
        self.inputs = self._session.inputs

    def answer(self, family: str, feeds: Arrays) -> Arrays:
        """The outputs; remembered for a whole network, which is asked again at each step."""
        if family in self._answers:
            return self._answers[family]
        answer = self._session.run(feeds)
        if self._keep:
            self._answers[family] = answer
        return answer

    def noise(self, family: str, feeds: Arrays, expected: Arrays) -> dict[str, Deviation]:
        """Largest change of each output when weights and inputs move by one unit in the last place."""
        if family not in self._noises:
            noisy = self._noisy = self._noisy or Session(_one_unit_off(self._model))
            self._noises[family] = [noisy.run(nudged(feeds, seed)) for seed in range(_NOISES)]
        return {
            name: _widest([deviation(expected[name], noisy[name]) for noisy in self._noises[family]])
            for name in expected
        }

    def forget(self, family: str) -> None:
        """Drop what is remembered of inputs that do not come again."""
        self._answers.pop(family, None)
        self._noises.pop(family, None)


def _widest(found: list[Deviation]) -> Deviation:
    usable = [one for one in found if not one.reason]
    if len(usable) < len(found):
        return found[0] if found[0].reason else next(one for one in found if one.reason)
    return replace(usable[0], channels=np.max([one.channels for one in usable], axis=0))


class Session:
    """A graph, cut at custom operators, in a session; inputs and outputs go by keys that survive rewriting."""

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            part = runnable_part(model)
        except ValueError as error:
            raise CannotRunError(str(error)) from None
        self._session = _session(part.model)
        self._inputs, self._outputs = part.inputs, part.outputs
        specs = {value.name: (tuple(value.shape), value.type) for value in self._session.get_inputs()}
        self.inputs: Specs = {key: (specs[name][0], _element(specs[name][1])) for key, name in part.inputs.items()}

    def run(self, feeds: Arrays) -> Arrays:
        """Outputs by key."""
        options = ort.RunOptions()
        options.log_severity_level = _SILENT
        named = {name: feeds[key] for key, name in self._inputs.items()}
        try:
            results = self._session.run(list(self._outputs.values()), named, options)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise CannotRunError(_first_line(error)) from None
        return dict(zip(self._outputs, results, strict=True))


def _element(kind: str) -> str:
    """NumPy's name of ONNX Runtime's name of a type."""
    element = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(element, element)


def drawn(family: str, specs: Specs, seed: int = 0) -> Arrays:
    """Inputs of a family; raises CannotRunError where no numbers are known for the type of one."""
    try:
        return feed(family, specs, seed=seed)
    except (ValueError, TypeError) as error:
        raise CannotRunError(str(error)) from None


_NUMBERS_THAT_SHAPE = ("Resize", "Upsample", "Pow", "Range")


def _one_unit_off(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every floating-point weight moved by one unit in its last place; sizes and exponents stay."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    fixed = {name for node in model.graph.node if node.op_type in _NUMBERS_THAT_SHAPE for name in node.input}
    generator = np.random.default_rng(1)
    for tensor in moved.graph.initializer:
        if tensor.name not in fixed and tensor.data_type in _FLOATS and len(tensor.dims):
            array = one_ulp(generator, numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return moved


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _SILENT
    try:
        if weight_bytes(model) <= EXTERNAL_DATA_FROM:
            return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            save_model(model, path)
            return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise CannotRunError(_first_line(error)) from None


_UNKNOWN = re.compile(
    r"No Op registered for (\S+) with domain_version|Fatal error: (\S+?)\(-?\d+\) is not a registered"
)


def _first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its codes."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if found := _UNKNOWN.search(said):
        return f"it knows no operator {found[1] or found[2].replace(':', '::')}"
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", said)[:300]
