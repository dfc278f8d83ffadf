"""A ConvTranspose that states its output_shape, with its padding written out: against a loop over all products."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from csa_deploy.graph.repair import repair

KERNEL = np.random.default_rng(1).standard_normal((2, 3, 3, 2)).astype("f4")
SIZE = (4, 5)


def model(strides: Any, dilations: Any, extra: Any, wanted: Any, auto_pad: str) -> onnx.ModelProto:
    attributes = {"strides": strides, "dilations": dilations, "output_padding": extra, "output_shape": wanted}
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad=auto_pad, **attributes)
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, *SIZE]), ("y", [1, 3, *wanted]))
    )
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(KERNEL, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def by_loops(x: np.ndarray, strides: Any, dilations: Any, extra: Any, wanted: Any, auto_pad: str) -> np.ndarray:
    """Every product written to where it belongs on the unpadded map, of which ONNX's definition cuts the result."""
    reach = [
        s * (n - 1) + e + (k - 1) * d + 1 for s, n, e, k, d in zip(strides, SIZE, extra, (3, 2), dilations, strict=True)
    ]
    whole = np.zeros((1, 3, *reach))
    for c, i, j, o, p, q in itertools.product(range(2), *map(range, SIZE), range(3), range(3), range(2)):
        place = i * strides[0] + p * dilations[0], j * strides[1] + q * dilations[1]
        whole[0, o, place[0], place[1]] += float(x[0, c, i, j]) * float(KERNEL[c, o, p, q])
    cut = [r - w for r, w in zip(reach, wanted, strict=True)]
    first = [c // 2 if auto_pad == "SAME_UPPER" else c - c // 2 for c in cut]
    return whole[:, :, first[0] : first[0] + wanted[0], first[1] : first[1] + wanted[1]]


def run(graph: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("strides", "dilations", "extra", "cut"),
    [((2, 2), (1, 1), (0, 0), (1, 3)), ((2, 3), (1, 2), (1, 0), (2, 1)), ((1, 2), (2, 1), (0, 1), (0, 0))],
)
def test_padding_is_what_onnx_says(auto_pad: str, strides: Any, dilations: Any, extra: Any, cut: Any) -> None:
    reach = [
        s * (n - 1) + e + (k - 1) * d + 1 for s, n, e, k, d in zip(strides, SIZE, extra, (3, 2), dilations, strict=True)
    ]
    wanted = [r - c for r, c in zip(reach, cut, strict=True)]
    found = repair(model(strides, dilations, extra, wanted, auto_pad), ["transpose_pads"])
    (node,) = found.model.graph.node
    names = {attribute.name for attribute in node.attribute}
    assert "pads" in names and not names & {"output_shape", "auto_pad"}
    x = np.random.default_rng(0).standard_normal((1, 2, *SIZE)).astype("f4")
    expected = by_loops(x, strides, dilations, extra, wanted, auto_pad)
    assert np.allclose(run(found.model, x), expected, atol=1e-5)


def test_more_than_the_kernel_reaches_is_left_alone() -> None:
    found = repair(model((2, 2), (1, 1), (0, 0), (11, 10), "NOTSET"), ["transpose_pads"])
    assert any(a.name == "output_shape" for a in found.model.graph.node[0].attribute)


def test_stated_padding_is_left_alone() -> None:
    plain = model((2, 2), (1, 1), (0, 0), (9, 10), "NOTSET")
    attributes = plain.graph.node[0].attribute
    attributes.remove(next(a for a in attributes if a.name == "output_shape"))
    assert not [step for step in repair(plain, ["transpose_pads"]).steps if step.rule == "transpose_pads" and step.kept]
