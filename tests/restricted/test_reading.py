import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from restricted_networks import FLOAT, MAP, constant, model, node, value, weights

from csa_deploy.errors import UsageError
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.reading import KEEP_BYTES, read_model, strip_model


def big_model() -> onnx.ModelProto:
    """16 MB of weights, half of them in a Constant node."""
    nodes = [
        node("Constant", [], ["w2"], value=constant("", np.ones((1024, 1024, 1, 1)))),
        node("Conv", ["x", "w"], ["a"], name="first"),
        node("Conv", ["a", "w2"], ["b"], name="second"),
        node("Reshape", ["b", "shape"], ["y"]),
    ]
    constants = [weights(1024, 1024, 1, 1), constant("shape", [1, -1], np.int64)]
    return model(nodes, [value("x", [1, 1024, 2, 2])], constants=constants)


@pytest.mark.parametrize("how", ["file", "memory"])
def test_weights_are_neither_kept_nor_copied(tmp_path, how):
    full = big_model()
    path = tmp_path / "big.onnx"
    path.write_bytes(full.SerializeToString())
    tracemalloc.start()
    stripped = read_model(path) if how == "file" else strip_model(full)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stripped.ByteSize() < 10 * KEEP_BYTES
    assert peak < 1_000_000
    assert [list(tensor.dims) for tensor in stripped.graph.initializer] == [[1024, 1024, 1, 1], [2]]
    assert [tensor.data_type for tensor in stripped.graph.initializer] == [FLOAT, TensorProto.INT64]
    graph = load_graph(path if how == "file" else full)
    assert [entry.name for entry in graph.nodes] == ["first", "second", "reshape_node"]
    assert graph.outputs[0].shape == (1, 4096)
    assert all(entry.inputs[1].const for entry in graph.nodes[:2])


def test_the_model_in_memory_is_not_changed():
    full = big_model()
    before = full.SerializeToString(deterministic=True)
    load_graph(full)
    assert full.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"not an onnx file at all", b"\x08", b"\xff" * 64, b"{}", b"\x3a\xff\xff\xff\xff\x0f", b"\x00" * 100],
    ids=["empty", "text", "one byte", "ff", "json", "overlong", "zeros"],
)
def test_a_file_that_is_no_model_is_one_clear_line(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.onnx"):
        read_model(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99, 0.9999])
def test_a_truncated_file_is_refused_or_judged_incomplete(tmp_path, share):
    data = big_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UsageError, match=r"cut\.onnx"):
        read_model(path)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read_model(path)


def test_shape_arithmetic_is_folded_away():
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], name="g"),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = [
        constant("zero", 0, np.int64),
        constant("axes", [0], np.int64),
        constant("rest", [-1, 14], np.int64),
    ]
    graph = load_graph(model(nodes, constants=constants))
    assert [entry.op for entry in graph.nodes] == ["Reshape"]
    assert graph.nodes[0].inputs[1].data.tolist() == [1, -1, 14]
    assert graph.outputs[0].shape == (1, 112, 14)


def test_module_paths_come_from_the_exporter_metadata():
    relu = node("Relu", ["x"], ["y"])
    relu.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'stages.0', 'stages.0.1', 'relu']")
    broken = node("Relu", ["y"], ["z"], name="broken")
    broken.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="[not python")
    graph = load_graph(model([relu, broken], outputs=[value("z", MAP)]))
    assert [entry.module for entry in graph.nodes] == ["stages.0.1", ""]


def test_small_external_constants_are_read_and_large_ones_are_not(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Resize", ["a", "", "scales"], ["y"], mode="linear")]
    full = model(nodes, constants=[weights(8, 8, 3, 3), constant("scales", [1, 1, 2, 2])])
    onnx.save(full, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    graph = load_graph(tmp_path / "m.onnx")
    assert graph.problems == ()
    assert graph.outputs[0].shape == (1, 8, 24, 24)
    (tmp_path / "m.data").unlink()
    assert {problem.reason for problem in load_graph(tmp_path / "m.onnx").problems} == {"missing-data"}


def test_two_gigabytes_of_external_data_are_never_opened(tmp_path):
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[8, 8, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", "huge.data"), ("offset", "0"), ("length", str(8 * 8 * 9 * 4))):
        tensor.external_data.add(key=key, value=text)
    with (tmp_path / "huge.data").open("wb") as file:
        file.truncate(2 * 1024**3)  # sparse: takes no space
    onnx.save(model([node("Conv", ["x", "w"], ["y"])], constants=[tensor]), tmp_path / "m.onnx")
    assert load_graph(tmp_path / "m.onnx").problems == ()


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", ""])
def test_external_data_outside_the_folder_are_a_finding(location):
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[8, 8, 3, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    graph = load_graph(model([node("Conv", ["x", "w"], ["y"])], constants=[tensor]))
    assert [problem.reason for problem in graph.problems] == ["invalid"]


def test_functions_of_the_model_are_inlined():
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    full = model([helper.make_node("F", ["x"], ["y"], domain="local")], domains=["local"])
    full.functions.append(function)
    graph = load_graph(full)
    assert [entry.op for entry in graph.nodes] == ["Relu"]
    assert graph.local_functions == 1


@pytest.mark.parametrize("axis", [-1, 3])
def test_constants_that_are_described_twice_keep_their_shape(axis):
    """What the optimizer writes describes its initializers; a Slice by such was inferred as empty."""
    constants = [constant("back", [axis], np.int64), constant("end", [-(2**31)], np.int64)]
    constants += [constant("step", [-1], np.int64), constant("start", [-1], np.int64)]
    flipped = model(
        [node("Slice", ["x", "start", "end", "back", "step"], ["y"])], [value("x", [1, 1, 6, 6])], constants=constants
    )
    flipped.graph.value_info.extend(value(entry.name, [1], TensorProto.INT64) for entry in constants)
    assert load_graph(flipped).nodes[0].outputs[0].shape == (1, 1, 6, 6)
