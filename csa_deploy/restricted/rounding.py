"""Output size of a Resize by scales: three arithmetics are in use, and they must agree.

PyTorch multiplies in double precision with the scale it was given; ONNX Runtime's kernel and TensorRT multiply in
single precision; ONNX shape inference multiplies the single-precision scale in double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite

import numpy as np


@dataclass(frozen=True)
class ResizeSizes:
    """Output dimensions by each arithmetic.

    Attributes:
        float64: as PyTorch computes them.
        float32: as ONNX Runtime's kernel and TensorRT compute them.
        mixed: as ONNX shape inference computes them.
    """

    float64: list[int]
    float32: list[int]
    mixed: list[int]

    def agree(self, declared: Sequence[int | None]) -> bool:
        """Whether all three are the same and match the declared dimensions (None matches anything)."""
        same = self.float64 == self.float32 == self.mixed
        return same and all(dim in (None, size) for dim, size in zip(declared, self.float32, strict=True))


def resize_sizes(dims: Sequence[int], scales: Sequence[float], declared: Sequence[int | None]) -> ResizeSizes | None:
    """Output dimensions of a Resize of ``dims`` by float32 ``scales``.

    The double that PyTorch was given is not in the file. Where the scale is the rounded ratio of the declared and the
    input size, that ratio is taken; otherwise the scale itself.

    Returns:
        None when the scales do not fit the dimensions or are not finite and positive.
    """
    if not len(dims) == len(scales) == len(declared) or not all(isfinite(s) and s > 0 for s in scales):
        return None
    float64, float32, mixed = [], [], []
    for dim, scale, target in zip(dims, scales, declared, strict=True):
        single = np.float32(scale)
        exact = float(single)
        if target is not None and dim and np.float32(target / dim) == single:
            exact = target / dim
        float64.append(floor(dim * exact))
        float32.append(floor(float(np.float32(dim) * single)))
        mixed.append(floor(dim * float(single)))
    return ResizeSizes(float64, float32, mixed)
