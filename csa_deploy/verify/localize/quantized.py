"""What quantization does to a tensor's values: the share that its range clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Range:
    """Values that a QuantizeLinear node can represent.

    Attributes:
        tensor: what is quantized.
        low: smallest value that is not clipped; a scalar or one value per channel, shaped to broadcast.
        high: largest such value.
    """

    tensor: str
    low: np.ndarray
    high: np.ndarray


@dataclass
class Clipping:
    """Clipped values of one tensor over the samples so far.

    Attributes:
        clipped: values beyond the range.
        total: all values.
        largest: largest absolute value seen.
        limit: largest absolute value that the range holds.
    """

    clipped: int = 0
    total: int = 0
    largest: float = 0.0
    limit: float = 0.0

    @property
    def share(self) -> float:
        """Share of the values that are clipped."""
        return self.clipped / self.total if self.total else 0.0

    def add(self, values: np.ndarray, given: Range) -> None:
        """Add one batch of right values."""
        self.clipped += int(((values < given.low) | (values > given.high)).sum())
        self.total += values.size
        self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
        self.limit = float(np.abs(np.stack([given.low, given.high])).max())


def ranges(model: onnx.ModelProto, tensors: Iterable[str]) -> dict[str, Range]:
    """Ranges of the QuantizeLinear nodes on the given tensors, by tensor; half a step beyond is no clipping."""
    wanted = set(tensors)
    weights = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in wanted or node.input[1] not in weights:
            continue
        scale = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
        zero = np.zeros((), np.uint8)
        if len(node.input) > 2 and node.input[2] in weights:
            zero = numpy_helper.to_array(weights[node.input[2]])
        if zero.dtype.kind in "iu":
            limits = np.iinfo(zero.dtype)
            low, high = ((limit - zero.astype(np.float64)) * scale for limit in (limits.min - 0.5, limits.max + 0.5))
            found[node.input[0]] = Range(node.input[0], low, high)
    return {name: r for name, r in found.items() if r.low.ndim == 0 or r.low.size == 1}
