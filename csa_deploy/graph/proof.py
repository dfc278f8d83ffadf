"""Evidence that a rewritten graph computes what the graph before it did: both run on the same random inputs.

ONNX Runtime executes with all of its own graph optimizations off, so that what is compared is what is written.
Custom operators, which it cannot run, are cut out; see :mod:`.cut`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from csa_deploy.graph.cut import runnable_part
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, save_model, weight_bytes

_SILENT = 4

Arrays = dict[str, np.ndarray]


class CannotRunError(Exception):
    """ONNX Runtime cannot load or run a graph; the message says why, in one line."""


class Prover:
    """Holds what a model answers to random inputs, to compare rewritten versions with it.

    Args:
        model: the reference.
        proofs: number of random inputs.
        seed: of the random inputs.

    Raises:
        CannotRunError: the reference itself does not run.
    """

    def __init__(self, model: onnx.ModelProto, *, proofs: int, seed: int = 0) -> None:
        graph = Session(model)
        generator = np.random.default_rng(seed)
        self._feeds = [
            {key: random_input(generator, shape, kind) for key, (shape, kind) in graph.inputs.items()}
            for _ in range(proofs)
        ]
        self._expected = [graph.run(feed) for feed in self._feeds]

    def error(self, model: onnx.ModelProto) -> float:
        """Largest absolute difference of any output relative to that output's range; infinite if not comparable.

        Raises:
            CannotRunError: the rewritten graph does not run.
        """
        graph = Session(model)
        pairs = zip(self._feeds, self._expected, strict=True)
        return max((relative_error(expected, graph.run(feed)) for feed, expected in pairs), default=0.0)


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
        self.inputs = {key: specs[name] for key, name in part.inputs.items()}

    def run(self, feed: Arrays) -> Arrays:
        """Outputs by key."""
        options = ort.RunOptions()
        options.log_severity_level = _SILENT
        named = {name: feed[key] for key, name in self._inputs.items()}
        try:
            results = self._session.run(list(self._outputs.values()), named, options)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise CannotRunError(_first_line(error)) from None
        return dict(zip(self._outputs, results, strict=True))


def random_input(generator: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """An input of ONNX Runtime type ``kind``: normal floats (a normalised image), full-range bytes, 0 or 1 otherwise.

    Integers that are not bytes are mostly indices, and 0 and 1 are valid ones in nearly every network.
    """
    element = kind.removeprefix("tensor(").removesuffix(")")
    if element in ("float", "double", "float16"):
        return generator.standard_normal(shape).astype({"float": "f4", "double": "f8", "float16": "f2"}[element])
    if element in ("uint8", "int8"):
        return generator.integers(*((0, 256) if element == "uint8" else (-128, 128)), size=shape).astype(element)
    if element in ("bool", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
        return generator.integers(0, 2, size=shape).astype(element)
    raise CannotRunError(f"no random values for an input of type {kind}")


def relative_error(expected: Arrays, got: Arrays) -> float:
    """Largest difference of any output, relative to the range of the expected one; same NaN and inf count as equal."""
    return max((_output_error(expected[name], got.get(name)) for name in expected), default=0.0)


def _output_error(expected: np.ndarray, got: np.ndarray | None) -> float:
    if got is None or expected.shape != got.shape or expected.dtype != got.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, got) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf")
    a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    if not a.size:
        return 0.0
    spread = float(a.max() - a.min()) or float(np.abs(a).max()) or 1.0
    return float(np.abs(a - b).max()) / spread


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
