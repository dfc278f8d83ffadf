"""Small graphs, written in ONNX's text form."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

Build = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def build() -> Build:
    """``build(signature, body, opset=18, **weights)``: a weight is an array, or a shape to fill with random numbers."""

    def make(signature: str, body: str, opset: int = 18, domains: str = "", **weights: object) -> onnx.ModelProto:
        header = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>'
        model = onnx.parser.parse_model(f"{header} net {signature} {{ {body} }}")
        generator = np.random.default_rng(7)
        for name, weight in weights.items():
            array = generator.uniform(0.5, 1.5, weight).astype("f4") if isinstance(weight, tuple) else weight
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"n{number}"
        return model

    return make
