"""What describes a network's tensors: name, shape and type of each, and what one sample of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.network import Sample

SAMPLE_ENTRY = "csa_deploy.sample"
"""Entry of an ONNX file's metadata that states what one sample is."""

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
    """How samples go through a network.

    A recogniser with the time first, or six cameras that become one map, share no batch axis: there a sample is all
    that one inference takes and gives.

    Attributes:
        batch: samples of one inference; None where the batch axis is dynamic.
        inputs: the network's own.
        shapes: by input the shape (n, ...) that data of ``n`` = :attr:`batch` samples have.
    """

    kind: Sample
    batch: int | None
    inputs: tuple[TensorSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def words(self) -> str:
        """What one sample is, for people."""
        return "a row of the batch axis" if self.kind == "batched" else "all that one inference takes"

    def network(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays (:attr:`batch`, ...) as data sets give them, in the network's own shapes."""
        if self.kind == "batched":
            return dict(feeds)
        own = {spec.name: spec.static_shape for spec in self.inputs}
        return {name: array.reshape(own[name]) for name, array in feeds.items()}

    def typed(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays in the types of the network's inputs: floats are cast to the network's floats, nothing else is.

        Raises:
            UsageError: data of another type than an input.
        """
        found = dict(feeds)
        for spec in self.inputs:
            given, wanted = feeds[spec.name].dtype, np.dtype(spec.dtype)
            if given != wanted and not given.kind == wanted.kind == "f":
                raise UsageError(
                    f"the data do not fit the network: '{spec.name}' is {spec.dtype}, the data hold {given}",
                    fix="give arrays of the network's types",
                )
            found[spec.name] = feeds[spec.name].astype(wanted, copy=False)
        return found

    def samples(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        """A network's outputs as arrays (:attr:`batch`, ...).

        Of a whole inference the first axis becomes that of the one sample: where it is 1 it is that already, else one
        is put in front, and other axes of 1 are dropped.
        """
        if self.kind == "batched":
            return dict(outputs)
        return {n: a if a.ndim and len(a) == 1 else _alone(a) for n, a in outputs.items()}


def _alone(array: np.ndarray) -> np.ndarray:
    """As the only sample, of two axes at least: these are no classes, and a sequence (T, 1, C) is no map."""
    extents = [extent for extent in array.shape if extent != 1]
    return array.reshape(1, *extents, *[1] * (2 - len(extents)))


def sampling_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], kind: Sample | None = None) -> Sampling:
    """How samples go through a network with these inputs and outputs.

    Args:
        kind: what one sample is; None: batched where all share the extent of axis 0.

    Raises:
        UsageError: batched is asked for, and they share none.
    """
    extents = {spec.shape[0] if spec.shape else 0 for spec in (*inputs, *outputs)}
    shared = len(extents) == 1 and 0 not in extents
    if kind == "batched" and not shared:
        listed = ", ".join(f"{s.name} {[e or '?' for e in s.shape]}" for s in (*inputs, *outputs))
        raise UsageError(
            f"--sample batched: not all inputs and outputs have the batch as their first axis: {listed}",
            fix="drop it: a sample is then all that one inference takes",
        )
    kind = kind or ("batched" if shared else "whole")
    sampled = inputs if kind == "batched" else [_as_sample(spec) for spec in inputs]
    shapes = {spec.name: spec.static_shape for spec in sampled}
    return Sampling(kind, extents.pop() if kind == "batched" else 1, tuple(inputs), shapes)


def stated_sample(metadata: Mapping[str, str]) -> Sample | None:
    """What a graph's metadata say that one sample is; None: as its shapes say."""
    stated = metadata.get(SAMPLE_ENTRY)
    return cast(Sample, stated) if stated in get_args(Sample) else None


def _as_sample(spec: TensorSpec) -> TensorSpec:
    """A whole input as one sample, with an axis for it in front where it has none."""
    return spec if spec.shape and spec.shape[0] in (1, None) else replace(spec, shape=(1, *spec.shape))
