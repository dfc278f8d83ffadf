"""Sizes that an ONNX file leaves open: how they are fixed, what contradicts, and what the outputs then are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import csa_deploy
from csa_deploy.config import make_config, read_yaml
from csa_deploy.errors import UsageError
from csa_deploy.export.input_shapes import Wanted
from csa_deploy.export.static import make_static, wanted_by

Build = Callable[..., onnx.ModelProto]
POOLED = "p = GlobalAveragePool(x) f = Flatten(p) y = MatMul(f, w)"


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    values = (*model.graph.input, *model.graph.output)
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


@pytest.mark.parametrize(
    ("signature", "settings", "want"),
    [
        ("N,3,H,W", {"input_shape": "1x3x8x12"}, [1, 3, 8, 12]),
        ("N,3,H,W", {"input_shape": "x=2x3x8x12"}, [2, 3, 8, 12]),
        ("N,3,H,W", {"input_shape": {"x": [2, 3, 8, 12]}}, [2, 3, 8, 12]),
        ("N,3,H,W", {"size": "8x12"}, [1, 3, 8, 12]),  # the batch is 1 where nothing is said
        ("N,3,H,W", {"size": "8x12", "batch": 4}, [4, 3, 8, 12]),
        ("N,3,8,12", {}, [1, 3, 8, 12]),
        ("N,3,8,12", {"batch": 5}, [5, 3, 8, 12]),
        ("N,3,8,W", {"size": "8x12"}, [1, 3, 8, 12]),
        ("N,3,S,S", {"size": "8"}, [1, 3, 8, 8]),
        ("1,3,8,12", {"batch": 1, "size": "8x12", "input_shape": "1x3x8x12"}, [1, 3, 8, 12]),  # as the file has it
    ],
)
def test_open_axes_are_fixed(build: Build, signature: str, settings: dict[str, Any], want: list[int]) -> None:
    model = build(f"(float[{signature}] x) => (float[B,4] y)", POOLED, w=(3, 4))
    before = onnx.ModelProto()
    before.CopyFrom(model)
    make_static(model, wanted_by(make_config(settings)))
    assert shapes_of(model) == {"x": want, "y": [want[0], 4]}
    onnx.checker.check_model(model, full_check=True)
    feed = {"x": np.random.default_rng(1).standard_normal(want).astype("f4")}
    np.testing.assert_array_equal(outputs(model, feed)[0], outputs(before, feed)[0])


def test_channels_last_tell_the_sides(build: Build) -> None:
    body = "t = Transpose<perm=[0,3,1,2]>(x) p = GlobalAveragePool(t) f = Flatten(p) y = MatMul(f, w)"
    model = build("(float[N,H,W,3] x) => (float[N,4] y)", body, w=(3, 4))
    make_static(model, Wanted(size=(8, 12)))
    assert shapes_of(model)["x"] == [1, 8, 12, 3]


def test_axes_of_one_name_are_equal_and_nameless_ones_are_not(build: Build) -> None:
    model = build("(float[N,T] a, float[N,T] b) => (float[N,T] y)", "y = Add(a, b)")
    make_static(model, Wanted(shapes={"a": (2, 7)}))
    assert shapes_of(model) == {"a": [2, 7], "b": [2, 7], "y": [2, 7]}
    model = build("(float[N,3,H,W] x) => (float[N,4] y)", POOLED, w=(3, 4))
    for axis, written in ((0, "-1"), (2, "?"), (3, "?")):  # as PaddlePaddle writes them
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = written
    make_static(model, Wanted(shapes={"": (1, 3, 8, 12)}))
    assert shapes_of(model)["x"] == [1, 3, 8, 12]


@pytest.mark.parametrize(
    ("signature", "settings", "said"),
    [
        ("N,3,H,W", {"input_shape": "z=1x3x8x8"}, "--input-shape z=1x3x8x8: no input has this name"),
        ("N,3,H,W", {"input_shape": "3x8x8"}, "x=3x8x8 has 3 axes, the file's has 4: x [N, 3, H, W]"),
        ("N,3,H,W", {"input_shape": "1x1x8x8"}, "--input-shape: axis 1 of input 'x' is 3, not 1"),
        ("N,3,H,W", {"input_shape": "1x3x8x8", "batch": 2}, "--batch: axis 0 of input 'x' is 1, not 2"),
        ("N,3,H,W", {"input_shape": "1x3x8x8", "size": 9}, "--size: axis 2 of input 'x' is 8, not 9"),
        ("1,3,8,8", {"size": "16"}, "--size: axis 2 of input 'x' is 8, not 16"),
        ("1,3,8,8", {"batch": 2}, "--batch: axis 0 of input 'x' is 1, not 2"),
        ("N,3,S,S", {"input_shape": "1x3x8x9"}, "--input-shape: axis 3 of input 'x' is 8, not 9"),
    ],
)
def test_contradictions_are_named_in_one_line(
    build: Build, signature: str, settings: dict[str, Any], said: str
) -> None:
    model = build(f"(float[{signature}] x) => (float[B,4] y)", POOLED, w=(3, 4))
    with pytest.raises(UsageError) as error:
        make_static(model, wanted_by(make_config(settings)))
    assert said in error.value.message and "\n" not in str(error.value) and error.value.fix


def test_several_inputs_need_names(build: Build) -> None:
    model = build("(float[1,3] a, float[1,3] b) => (float[1,3] y)", "y = Add(a, b)")
    with pytest.raises(UsageError, match="the network has 2 inputs"):
        make_static(model, Wanted(shapes={"": (1, 3)}))
    with pytest.raises(UsageError, match="--size: no input is an image"):
        make_static(model, Wanted(size=(8, 8)))


@pytest.mark.parametrize(
    ("signature", "body", "axes"),
    [
        ("(float[N,3,H,W] x) => (float[N,4] y)", POOLED, "axes 2 'H' and 3 'W'"),
        ("(float[1,3,32,W] x) => (float[1,4] y)", POOLED, "axis 3 'W'"),
        # Only maps of 48 rows go through: found by trying.
        (
            "(float[1,3,H,W] x) => (float[A,B] y)",
            "p = AveragePool<kernel_shape=[48,1]>(x) s = Squeeze(p, two) y = ReduceMean<keepdims=0>(s, one)",
            "axes 2 'H' and 3 'W'",
        ),
    ],
)
def test_an_open_axis_is_answered_with_a_command_that_works(build: Build, signature: str, body: str, axes: str) -> None:
    arrays: dict[str, Any] = {"w": (3, 4)} if body == POOLED else {"two": np.asarray([2]), "one": np.asarray([1])}
    model = build(signature, body, **arrays)
    with pytest.raises(UsageError, match=f"input 'x' has no fixed size on {axes}") as error:
        make_static(model, Wanted())
    flags = re.findall(r"--input-shape (\S+)", str(error.value.fix))
    assert flags
    make_static(model, wanted_by(make_config({"input_shape": flags})))


def test_sizes_with_which_it_does_not_run_are_refused(build: Build) -> None:
    model = build(
        "(float[1,3,H,W] x) => (float[1,4] y)", "r = Reshape(x, s) y = MatMul(r, w)", s=np.array([1, 27]), w=(27, 4)
    )
    make_static(model, Wanted(size=(3, 3)))
    model = build(
        "(float[1,3,H,W] x) => (float[1,4] y)", "r = Reshape(x, s) y = MatMul(r, w)", s=np.array([1, 27]), w=(27, 4)
    )
    with pytest.raises(UsageError, match="ONNX Runtime"):
        make_static(model, Wanted(size=(4, 3)))


def test_an_output_that_the_file_declares_wrongly_is_corrected(build: Build) -> None:
    model = build("(float[1,3,8,8] x) => (float[1,seqlen] y)", "y = Transpose<perm=[2,0,1,3]>(x)")
    notes = make_static(model, Wanted())
    assert shapes_of(model)["y"] == [8, 1, 3, 8]
    assert notes == ["output 'y' is [8, 1, 3, 8]; the file declares [1, '?'], which is corrected"]
    model = build("(float[1,3,8,8] x) => (float[B,3,8,8] y)", "y = Relu(x)")
    assert make_static(model, Wanted()) == []  # an open axis is not wrong


def test_an_output_whose_shape_depends_on_values_is_refused(build: Build) -> None:
    model = build("(float[1,30] x) => (int64[2,n] y)", "r = Relu(x) y = NonZero(r)")
    with pytest.raises(UsageError, match="output 'y' has no fixed shape"):
        make_static(model, Wanted())


def test_an_inner_shape_of_another_size_is_forgotten(build: Build) -> None:
    model = build("(float[N,3,H,W] x) => (float[N,3,H,W] y)", "r = Relu(x) y = Neg(r)")
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 99, 99]))
    make_static(model, Wanted(size=(8, 9)))
    known = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    assert known["r"] == [1, 3, 8, 9]


def test_weights_listed_as_inputs_are_constants(build: Build) -> None:
    model = build("(float[1,3] x) => (float[1,4] y)", "y = MatMul(x, w)")
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), "f4"), "w"))
    assert make_static(model, Wanted()) == ["weights that the file also lists as inputs are constants"]
    assert [v.name for v in model.graph.input] == ["x"]
    np.testing.assert_array_equal(outputs(model, {"x": np.ones((1, 3), "f4")})[0], np.full((1, 4), 3.0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("x=1x3x0x8", "no shape of positive extents"),
        ("x=", "no shape of positive extents"),
        (["x=1x3", "x=1x4"], "input 'x' is given twice"),
    ],
)
def test_shapes_are_read_strictly(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_config({"input_shape": given})


@pytest.mark.parametrize("size", [2**20, 2**62])
def test_an_input_larger_than_memory_is_refused_before_it_is_made(build: Build, size: int) -> None:
    model = build(f"(float[1,3,{size},{size}] x) => (float[1,3,{size},{size}] y)", "y = Relu(x)")
    with pytest.raises(UsageError, match="GiB, more than can be run here"):
        make_static(model, Wanted())


BEV = "c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(images, k) r = Relu(c) "
BEV += "f = ReduceMean<keepdims=1>(r, first) map = Conv<kernel_shape=[1,1]>(f, k2)"


@pytest.fixture()
def cameras(build: Build, tmp_path: Path) -> Path:
    """Any number of cameras of any size become one map."""
    model = build(
        "(float[cams,3,H,W] images) => (float[1,4,h,w] map)", BEV, k=(8, 3, 3, 3), k2=(4, 8, 1, 1), first=np.array([0])
    )
    model.metadata_props.add(key="stride", value="32")
    onnx.save(model, tmp_path / "bev.onnx")
    return tmp_path / "bev.onnx"


@pytest.mark.shows("MEA-10")
def test_a_static_copy_is_the_symbolic_network_at_that_shape(cameras: Path) -> None:
    """ONNX Runtime on the file itself, with the symbols open, is the oracle."""
    exported = csa_deploy.export(str(cameras), input_shape={"images": (6, 3, 32, 64)})
    copy, before = exported.graph, onnx.load(cameras)
    assert shapes_of(copy) == {"images": [6, 3, 32, 64], "map": [1, 4, 16, 32]}
    assert exported.report is not None
    notes = " | ".join(exported.report.notes)
    assert "made static: images=6x3x32x64 (its cams 6, H 32, W 64)" in notes
    assert "the static copy computes what the file does at these sizes, to the bit, on two random inputs" in notes
    feed = {"images": np.random.default_rng(3).standard_normal((6, 3, 32, 64)).astype("f4")}
    np.testing.assert_array_equal(outputs(copy, feed)[0], outputs(before, feed)[0])
    for mine, theirs in zip(copy.graph.initializer, before.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(mine), numpy_helper.to_array(theirs))
    assert {p.key: p.value for p in copy.metadata_props}["stride"] == "32"


def test_check_verify_and_a_yaml_take_the_shape(cameras: Path, csa: Any) -> None:
    shape = ("--input-shape", "images=6x3x32x64")
    checked = csa(cameras.parent, "check", cameras.name, *shape, "--scope", "drive-os-6")
    assert checked.returncode == 4 and "AVG over axes [0] of [6, 8, 16, 32]" in checked.stderr, checked.stderr
    (cameras.parent / "run.yaml").write_text("network: bev.onnx\ninput_shape: {images: 6x3x32x64}\nprecision: fp32\n")
    np.savez(cameras.parent / "x.npz", images=np.zeros((2, 6, 3, 32, 64), "f4"))
    ran = csa(cameras.parent, "verify", "bev.onnx", *shape, "--data", "x.npz", "--fp32", "--json")
    assert ran.returncode == 0, ran.stderr
    settings = read_yaml(cameras.parent / "run.yaml")
    assert make_config(settings).input_shape == {"images": (6, 3, 32, 64)}


def test_a_symbol_of_two_inputs_has_one_size(build: Build) -> None:
    """On both sides of the rule: equal sizes are taken, others name the symbol and the input that gave it."""
    model = build("(float[batch,3] a, float[batch,4] b) => (float[batch,7] y)", "y = Concat<axis=1>(a, b)")
    with pytest.raises(UsageError, match=r"axis 0 of input 'b' is 'batch', which input 'a' made 2, not 3") as error:
        make_static(model, wanted_by(make_config({"input_shape": "a=2x3,b=3x4"})))
    assert error.value.fix == "give 'batch' one size wherever it stands"
    notes = make_static(model, wanted_by(make_config({"input_shape": ["a=2x3", "b=2x4"]})))
    assert notes[0] == "made static: a=2x3, b=2x4 (its batch 2)" and shapes_of(model)["y"] == [2, 7]


def test_an_unknown_input_is_answered_with_the_nearest(build: Build) -> None:
    model = build("(float[N,3,H,W] images) => (float[N,3,H,W] y)", "y = Relu(images)")
    with pytest.raises(UsageError, match="image=1x3x8x8: no input has this name, did you mean 'images'"):
        make_static(model, wanted_by(make_config({"input_shape": "image=1x3x8x8"})))


def test_a_constant_of_another_size_is_one_line(build: Build) -> None:
    signature, body = "(float[N,3,H,W] x) => (float[N,3,H,W] y)", "y = Add(x, position)"
    make_static(build(signature, body, position=(1, 3, 8, 8)), Wanted(shapes={"": (2, 3, 8, 8)}))
    with pytest.raises(UsageError, match=r"does not run with x=1x3x16x16: .*Incompatible dimensions") as error:
        make_static(build(signature, body, position=(1, 3, 8, 8)), Wanted(shapes={"": (1, 3, 16, 16)}))
    assert "a constant in it may be of another size" in str(error.value.fix)
