"""Sample inputs with expected outputs, as raw files for trtexec and as bounds that a shell can compare."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.results import Stored
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.spec import Arrays

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context

# Largest deviation on arrival, as a share of the largest expected value. A test that the right engine arrived and works
# on this GPU; accuracy is what `csa-deploy verify` measures.
_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1e-1}
_DIGITS = 12  # significant digits of the largest expected value that survive the scaling to whole numbers
_SAFE = re.compile(r"[A-Za-z0-9_.:/@+-]+")


@dataclass(frozen=True)
class SampleOutput:
    """An output, and the file of its bounds in each sample's folder."""

    name: str
    file: str


@dataclass(frozen=True)
class StatedSamples(Stored):
    """What the index of a bundle states of its samples: their number, and the share that outputs may deviate by."""

    samples: int
    tolerance: float
    outputs: tuple[SampleOutput, ...]
    tolerance_is: str = "share of the largest absolute expected value of the sample's output"


@dataclass(frozen=True)
class Samples:
    """Files and what the script of the bundle has to know of them.

    Attributes:
        files: path in the bundle -> content.
        inputs: per sample trtexec's ``--loadInputs``.
        outputs: name and file of bounds of each output.
        listed: lines that name every file, for programs that read neither JSON nor trtexec's options.
        scale: bounds are whole numbers of ``10**-scale``.
        tolerance: share of the largest expected value.
    """

    files: Mapping[str, bytes]
    inputs: tuple[str, ...]
    outputs: tuple[SampleOutput, ...]
    scale: int
    tolerance: float
    listed: tuple[str, ...] = ()

    @property
    def stated(self) -> StatedSamples:
        """Without the content."""
        return StatedSamples(len(self.inputs), self.tolerance, self.outputs)


def sample_feeds(context: Context, samples: int) -> list[Arrays]:
    """Sample inputs: of the network's data where it has any, else random."""
    how = context.sampling
    batch = how.batch or 1
    dataset = context.dataset(context.preprocessing, samples * batch)
    if dataset is None:
        return [random_feeds(how.inputs, context.config.seed + index) for index in range(samples)]
    frames = context.with_states(dataset).batches(batch)
    whole = [how.network(found.feed(how.shapes)) for found in frames if len(found) == batch]
    return whole[:samples]


def make_samples(graph: Path, reference: Path, feeds: Sequence[Mapping[str, np.ndarray]], precision: str) -> Samples:
    """Run the reference on the inputs.

    Args:
        graph: the graph that was built; its inputs' types are those that the engine takes.
        reference: the FP32 graph that the outputs are expected of.
        feeds: inputs in FP32, one mapping per sample.
        precision: decides the tolerance.

    Raises:
        UsageError: tensor names that cannot stand in a shell script.
    """
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    with OnnxRuntimeRunner(graph, threads=1, spin=False) as built:
        types = {spec.name: spec.dtype for spec in built.input_specs}
    with OnnxRuntimeRunner(reference, threads=1, spin=False) as runner:
        names = [spec.name for spec in runner.output_specs]
        expected = [runner.run(feed) for feed in feeds]
    for name in (*types, *names):
        if not _SAFE.fullmatch(name):
            raise UsageError(f"tensor {name!r} cannot be named in a script", fix="export it under a plain name")
    largest = max(float(np.max(np.abs(out[name]))) for out in expected for name in names)
    scale = _DIGITS - math.ceil(math.log10(largest)) if largest > 0 else _DIGITS
    files: dict[str, bytes] = {}
    inputs, listed = [], [f"tolerance {_TOLERANCE[precision]:g}"]
    for index, (feed, out) in enumerate(zip(feeds, expected, strict=True)):
        loaded = []
        listed.append(f"sample {index}")
        for k, (name, array) in enumerate(sorted(feed.items())):
            path = f"samples/{index}/input.{k}.raw"
            files[path] = np.ascontiguousarray(array.astype(types[name])).tobytes()
            loaded.append(f"'{name}':{path}")
            listed.append(f"input {name} {path}")
        for k, name in enumerate(names):
            files[f"samples/{index}/output.{k}.raw"] = np.ascontiguousarray(out[name]).tobytes()
            listed.append(f"output {name} samples/{index}/output.{k}.raw")
            files[f"samples/{index}/output.{k}.bounds"] = _bounds(out[name], _TOLERANCE[precision], scale)
        inputs.append(",".join(loaded))
    outputs = tuple(SampleOutput(name, f"output.{k}.bounds") for k, name in enumerate(names))
    return Samples(files, tuple(inputs), outputs, scale, _TOLERANCE[precision], tuple(listed))


def _bounds(values: np.ndarray, tolerance: float, scale: int) -> bytes:
    flat = [float(value) for value in values.ravel()]
    slack = tolerance * max(abs(value) for value in flat)
    factor = 10.0**scale
    lines = (f"{math.floor((value - slack) * factor)} {math.ceil((value + slack) * factor)}" for value in flat)
    return ("\n".join(lines) + "\n").encode()
