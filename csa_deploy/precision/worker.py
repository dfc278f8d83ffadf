"""One of the forward passes that run side by side: buffers, and the reduction of what was written into them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from csa_deploy.errors import UsageError
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.histogram import Histogram, Scratch
from csa_deploy.runners.base import filled
from csa_deploy.spec import Sampling

REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")
"""What the largest absolute value follows from: in ONNX Runtime a maximum may pass over a NaN, a sum does not."""


@dataclass(frozen=True)
class Observed:
    """What is observed in a graph.

    Attributes:
        sampling: how samples go through the graph, all of whose shapes are static.
        histograms: tensors to take histograms of.
        ranges: tensors to take the largest absolute value of.
        reduced: by each of ``ranges`` that is no input, the output that each of :data:`REDUCTIONS` is to have: the
            graph gives out these numbers, not the tensor.
        shapes: shape of every one of them.
        makers: name of the node that makes a tensor, in the graph's order.
    """

    sampling: Sampling
    histograms: Sequence[str]
    ranges: Sequence[str]
    reduced: Mapping[str, Mapping[str, str]]
    shapes: Mapping[str, tuple[int, ...]]
    makers: Mapping[str, str]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape by network input."""
        return {spec.name: spec.static_shape for spec in self.sampling.inputs}

    @property
    def batch(self) -> int:
        """Samples of one inference."""
        return self.sampling.batch or 1

    @property
    def outputs(self) -> Iterable[str]:
        """Tensors that the graph has to give out whole; inputs are at hand already."""
        return (name for name in self.histograms if name not in self.inputs)


def _largest(values: np.ndarray) -> float:
    return max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))  # a tensor may hold no value


class Lane:
    """Buffers that ONNX Runtime writes observed tensors into, bound once: a pass allocates nothing per image.

    Attributes:
        histograms: of the images seen so far, by tensor.
        ranges: largest absolute values of the images seen so far, by tensor.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        observed: Observed,
        every_value: Callable[[Feeds], Mapping[str, np.ndarray]],
    ) -> None:
        self.histograms = {name: Histogram() for name in observed.histograms}
        self.ranges = dict.fromkeys(observed.ranges, 0.0)
        self._session, self._observed, self._every_value = session, observed, every_value
        self._scratch = Scratch()
        self._feeds = {name: np.empty(shape, np.float32) for name, shape in observed.inputs.items()}
        reductions = (output for reduced in observed.reduced.values() for output in reduced.values())
        self._buffers = {name: np.empty(observed.shapes[name], np.float32) for name in observed.outputs}
        self._buffers |= {name: np.empty((), np.float32) for name in reductions}
        self._binding = self._bind()

    def run(self, feeds: Mapping[str, np.ndarray], ids: tuple[str, ...]) -> None:
        """Observe up to ``batch`` samples: arrays (n, ...) by input name, and their identities.

        Raises:
            UsageError: a value is NaN or infinite; names the tensor, the node and the image.
        """
        count = len(ids)
        # A static batch is filled up; what comes of it is not counted.
        for name, array in self._observed.sampling.network(filled(feeds, self._observed.batch)).items():
            self._feeds[name][...] = array
        self._session.run_with_iobinding(self._binding)
        sizes = {name: self._size(name) for name in self.ranges}
        counted = all(
            histogram.add(self._of(name, count), self._scratch) for name, histogram in self.histograms.items()
        )
        if not counted or not all(map(math.isfinite, sizes.values())):
            sizes = self._sizes_if_finite(ids)
        self.ranges = {name: max(size, sizes[name]) for name, size in self.ranges.items()}

    def _size(self, name: str) -> float:
        """Largest absolute value of a tensor, or a number that is not finite: then some value may not be either."""
        if name in self._feeds:
            return _largest(self._feeds[name])
        if 0 in self._observed.shapes[name]:
            return 0.0  # its reductions are those of nothing
        largest, smallest, total = (float(self._buffers[self._observed.reduced[name][kind]]) for kind in REDUCTIONS)
        return max(largest, -smallest) if math.isfinite(total) else total

    def _of(self, name: str, count: int) -> np.ndarray:
        array = self._buffers[name] if name in self._buffers else self._feeds[name]
        batch = self._observed.batch
        return array[:count] if count < batch and array.shape[0] == batch else array

    def _sizes_if_finite(self, ids: tuple[str, ...]) -> dict[str, float]:
        """Largest absolute values by tensor to take them of.

        Raises:
            UsageError: names the first tensor in the graph's order that is not finite, and the image.
        """
        values = {**self._every_value(self._feeds), **self._buffers}
        makers = self._observed.makers
        for name in [name for name in (*self._feeds, *makers) if name in values]:
            rows = values[name].reshape(len(values[name]) if values[name].ndim else 1, -1)
            finite = np.isfinite(rows).all(axis=1)
            if finite.all():
                continue
            bad = min(int(np.argmin(finite)), len(ids) - 1) if len(finite) == self._observed.batch else 0
            maker = f"made by node {makers[name]}" if name in makers else "a network input"
            raise UsageError(
                f"activation '{name}', {maker}, is NaN or infinite on image {ids[bad]}",
                fix="remove that image, or look at the network's weights there",
            )
        return {name: _largest(values[name]) for name in self.ranges}

    def _bind(self) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in self._feeds.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in self._buffers.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for output in self._session.get_outputs():
            if output.name not in self._buffers:
                binding.bind_output(output.name, "cpu")
        return binding
