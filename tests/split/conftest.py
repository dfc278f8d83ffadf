"""A network with two heads, and samples for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

BODY = """
    c = Conv<pads = [1, 1, 1, 1]>(x, first)
    r = Relu(c)
    d = Conv<pads = [1, 1, 1, 1]>(r, second)
    f = Relu(d)
    a = Conv<pads = [1, 1, 1, 1]>(f, left)
    ar = Relu(a)
    boxes = Conv(ar, boxed)
    b = Conv<pads = [1, 1, 1, 1]>(f, right)
    br = Relu(b)
    scores = Conv(br, scored)
"""


@pytest.fixture(scope="session")
def two_heads(build: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """``two_heads(opset=18)``: an encoder of two convolutions that makes ``f``, and two heads of two each."""

    def make(opset: int = 18) -> onnx.ModelProto:
        draw = np.random.default_rng(0)
        shapes = {"first": (16, 3, 3, 3), "second": (32, 16, 3, 3), "left": (16, 32, 3, 3), "right": (16, 32, 3, 3)}
        shapes |= {"boxed": (4, 16, 1, 1), "scored": (2, 16, 1, 1)}
        weights = {name: (draw.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype("f4") for name, s in shapes.items()}
        head = "(float[1,3,16,16] x) => (float[1,4,16,16] boxes, float[1,2,16,16] scores)"
        return build(head, BODY, opset=opset, **weights)

    return make


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((8, 3, 16, 16)).astype("f4")
