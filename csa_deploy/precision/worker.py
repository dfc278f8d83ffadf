"""One of the forward passes that run side by side: buffers, and the reduction of what was written into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from csa_deploy.errors import UsageError
from csa_deploy.precision.histogram import Histogram, Scratch
from csa_deploy.runners.base import filled
from csa_deploy.spec import Sampling


@dataclass(frozen=True)
class Observed:
    """What is observed in a graph.

    Attributes:
        sampling: how samples go through the graph, all of whose shapes are static.
        histograms: tensors to take histograms of.
        ranges: tensors to take the largest absolute value of.
        shapes: shape of every one of them.
        makers: name of the node that makes a tensor, in the graph's order.
    """

    sampling: Sampling
    histograms: Sequence[str]
    ranges: Sequence[str]
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
        """Tensors that the graph has to give out; inputs are at hand already."""
        return (name for name in (*self.histograms, *self.ranges) if name not in self.inputs)


class Lane:
    """Buffers that ONNX Runtime writes observed tensors into, bound once: a pass allocates nothing per image.

    Attributes:
        histograms: of the images seen so far, by tensor.
        ranges: largest absolute values of the images seen so far, by tensor.
    """

    def __init__(self, session: ort.InferenceSession, observed: Observed) -> None:
        self.histograms = {name: Histogram() for name in observed.histograms}
        self.ranges = dict.fromkeys(observed.ranges, 0.0)
        self._session, self._observed, self._scratch = session, observed, Scratch()
        self._feeds = {name: np.empty(shape, np.float32) for name, shape in observed.inputs.items()}
        self._buffers = {name: np.empty(observed.shapes[name], np.float32) for name in observed.outputs}
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
        for name, histogram in self.histograms.items():
            if not histogram.add(self._of(name, count), self._scratch):
                raise self._not_finite(ids)
        for name in self.ranges:
            values = self._of(name, count)
            largest = max(float(values.max()), -float(values.min()))
            if not math.isfinite(largest):
                raise self._not_finite(ids)
            self.ranges[name] = max(self.ranges[name], largest)

    def _of(self, name: str, count: int) -> np.ndarray:
        array = self._buffers[name] if name in self._buffers else self._feeds[name]
        batch = self._observed.batch
        return array[:count] if count < batch and array.shape[0] == batch else array

    def _not_finite(self, ids: tuple[str, ...]) -> UsageError:
        """Name the first tensor in the graph's order that is not finite, and the image."""
        makers = self._observed.makers
        for name in [n for n in (*self._feeds, *makers) if n in self._buffers or n in self._feeds]:
            values = self._of(name, len(ids))
            if np.isfinite(values).all():
                continue
            bad = 0
            if values.shape[0] == len(ids):
                bad = int(np.flatnonzero(~np.isfinite(values.reshape(len(ids), -1)).all(axis=1))[0])
            maker = f"made by node {makers[name]}" if name in makers else "a network input"
            return UsageError(
                f"activation '{name}', {maker}, is NaN or infinite on image {ids[bad]}",
                fix="remove that image, or look at the network's weights there",
            )
        raise AssertionError("all activations are finite")

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
