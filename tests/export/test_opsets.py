"""Conversion of a file to another opset. The oracle of "equal" is ONNX Runtime, each file as it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from csa_deploy.config import make_config
from csa_deploy.errors import UsageError
from csa_deploy.export.opsets import Wish, convert, exported_opset, opset_of, wish_for

Build = Callable[..., onnx.ModelProto]
DOUBLE = np.asarray([1, 1, 2, 2], "f4")
HALF_MORE = np.asarray([1, 1, 1.5, 1.5], "f4")


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    result = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]
    return np.asarray(result)


@pytest.mark.parametrize(
    ("opset", "body", "constants"),
    [
        # Resize of opset 10 and Upsample map pixels asymmetrically; since opset 11 the default is another.
        (10, 'y = Resize<mode="linear">(x, s)', {"s": DOUBLE}),
        (10, 'y = Resize<mode="linear">(x, s)', {"s": HALF_MORE}),
        (10, 'y = Resize<mode="nearest">(x, s)', {"s": HALF_MORE}),
        (9, 'y = Upsample<mode="linear">(x, s)', {"s": DOUBLE}),
        (9, 'y = Upsample<mode="nearest">(x, s)', {"s": DOUBLE}),
        (
            11,
            'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, e, s)',
            {"s": DOUBLE, "e": np.zeros(0, "f4")},
        ),
        (12, "y = Softmax<axis=1>(x)", {}),  # flattens until opset 12
        (12, "y = ReduceMean<axes=[1], keepdims=0>(x)", {}),
        (9, "y = Clip<min=-0.5, max=0.5>(x)", {}),
        (10, 'y = Pad<pads=[0,0,1,1,0,0,1,1], mode="reflect">(x)', {}),
        (9, "y = Slice<starts=[1], ends=[-1], axes=[2]>(x)", {}),
        (12, "y = Squeeze<axes=[0]>(x)", {}),
    ],
)
@pytest.mark.parametrize("to", [13, 17, 18])
def test_the_converted_file_computes_the_same(
    build: Build, opset: int, body: str, constants: dict[str, Any], to: int
) -> None:
    model = build("(float[1,3,4,5] x) => (float y)", body, opset=opset, **constants)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.metadata_props.add(key="author", value="someone")
    converted, said = convert(model, Wish(to, "a test"), 0)
    assert opset_of(converted) == to and f"opset {opset} converted to {to} (a test)" in said
    assert [p.value for p in converted.metadata_props] == ["someone"]
    x = np.random.default_rng(4).standard_normal((1, 3, 4, 5)).astype("f4")
    np.testing.assert_allclose(answer(converted, x), answer(model, x), rtol=0, atol=1e-6)


@pytest.mark.shows("MEA-10", "ERR-08")
def test_a_conversion_that_computes_something_else_is_refused(build: Build) -> None:
    """onnx 1.23 moves Hardmax to opset 13 without its change of meaning."""
    model = build("(float[2,3,4] x) => (float[2,3,4] y)", "y = Hardmax<axis=1>(x)", opset=12)
    with pytest.raises(UsageError, match=r"opset 12 converted to 13 \(a test\): 'y' differs by") as error:
        convert(model, Wish(13, "a test"), 0)
    assert "\n" not in str(error.value)


def test_a_conversion_that_onnx_does_not_have_is_refused(build: Build) -> None:
    model = build("(float[2,3] x) => (float[2,3] y)", "y = Gelu(x)", opset=20)
    with pytest.raises(UsageError, match="onnx cannot: No Previous Version of Gelu exists"):
        convert(model, Wish(17, "a test"), 0)


@pytest.mark.parametrize(
    ("opset", "settings", "to"),
    [
        (9, {}, None),
        (9, {"precision": "int8"}, 18),
        (12, {"precision": "int8"}, 18),
        (13, {"precision": "int8"}, None),
        (12, {"precision": "int8", "tensorrt": "8.6"}, 17),
        (9, {"calib": "images"}, 18),  # FP16 takes ranges from it
        (18, {"tensorrt": "8.6"}, 17),
        (17, {"tensorrt": "8.6"}, None),
        (20, {}, None),
        (11, {"opset": 16}, 16),
        (16, {"opset": 16}, None),
    ],
)
def test_when_a_file_is_converted(opset: int, settings: dict[str, Any], to: int | None) -> None:
    wish = wish_for(opset, make_config(settings))
    assert (wish.opset if wish else None) == to


@pytest.mark.shows("MEA-10")
def test_equal_answers_that_show_nothing_are_no_evidence(build: Build) -> None:
    model = build("(float[2,3] x) => (float[2,3] y)", "n = Relu(x) y = Clip<max=0.0>(n)", opset=9)
    with pytest.raises(UsageError, match=r"opset 9 converted to 13 \(a test\): \S+"):
        convert(model, Wish(13, "a test"), 0)


@pytest.mark.parametrize(("stated", "opset"), [("8.6.12", 17), ("8.6", 17), ("10.10.10", 18), ("11.3.1", 18)])
def test_the_target_decides_the_opset(stated: str, opset: int, tmp_path: Path) -> None:
    target = tmp_path / "target.yaml"
    target.write_text(f'host: nowhere.invalid\ntensorrt: "{stated}"\n')
    assert exported_opset(make_config({"target": str(target)})) == opset
    assert exported_opset(make_config({"target": str(target), "opset": 15})) == 15
    wish = wish_for(19, make_config({"target": str(target)}))
    assert (wish.opset if wish else None) == (17 if opset == 17 else None)


def test_a_target_that_states_no_version_decides_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target.yaml"
    target.write_text("host: nowhere.invalid\n")
    assert exported_opset(make_config({"target": str(target), "tensorrt": "8.6"})) == 17
    assert exported_opset(make_config({"target": str(target)})) == 18
