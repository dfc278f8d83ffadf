"""What describes a network's tensors: name, shape and type of each, and what one sample of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """One network input or output.

    Attributes:
        name: tensor name in the graph.
        shape: extents; None marks a dynamic axis.
        dtype: NumPy name of the element type (``"float32"``).
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape with 1 for each dynamic axis."""
        return tuple(int(extent or 1) for extent in self.shape)


@dataclass(frozen=True)
class Sampling:
    """What one sample of a network is: a row of the batch axis that all its tensors share, or one whole inference.

    A recogniser with the time first, or six cameras that become one map, share no batch axis: there a sample is all
    that one inference takes and gives.

    Attributes:
        shared: whether all inputs and outputs have the batch as their first axis.
        batch: samples of one inference; None where the batch axis is dynamic.
        inputs: the network's own.
        shapes: by input the shape (n, ...) that data of ``n`` = :attr:`batch` samples have.
    """

    shared: bool
    batch: int | None
    inputs: tuple[TensorSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def network(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays (:attr:`batch`, ...) as data sets give them, in the network's own shapes."""
        if self.shared:
            return dict(feeds)
        own = {spec.name: spec.static_shape for spec in self.inputs}
        return {name: array.reshape(own[name]) for name, array in feeds.items()}

    def samples(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        """A network's outputs as arrays (:attr:`batch`, ...); what has no batch axis is one sample, of rank 2."""
        if self.shared:
            return dict(outputs)
        return {
            n: a if a.ndim and len(a) == 1 else a.reshape(1, len(a) if a.ndim else 1, -1) for n, a in outputs.items()
        }


def sampling_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Sampling:
    """How samples go through a network with these inputs and outputs."""
    extents = {spec.shape[0] if spec.shape else 0 for spec in (*inputs, *outputs)}
    shared = len(extents) == 1 and 0 not in extents
    sampled = inputs if shared else [_as_sample(spec) for spec in inputs]
    shapes = {spec.name: spec.static_shape for spec in sampled}
    return Sampling(shared, extents.pop() if shared else 1, tuple(inputs), shapes)


def _as_sample(spec: TensorSpec) -> TensorSpec:
    """A whole input as one sample, with an axis for it in front where it has none."""
    return spec if spec.shape and spec.shape[0] in (1, None) else replace(spec, shape=(1, *spec.shape))
