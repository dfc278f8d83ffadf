"""How a foreign ONNX file is read: names by a grammar, attributes by their type, sizes by bounds."""

from __future__ import annotations

import ast
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from pool import MOST_MEMORY, Reader

from csa_deploy.errors import UsageError
from csa_deploy.graph.attributes import attribute_values, ill_typed
from csa_deploy.graph.external import ExternalData, ExternalDataError, external_data, external_file, open_regular
from csa_deploy.graph.guard import guarded
from csa_deploy.graph.limits import MOST_NODES, require_bounded
from csa_deploy.graph.load import load_model
from csa_deploy.graph.scopes import innermost_module, parse_scopes
from csa_deploy.restricted import folding, reading
from csa_deploy.restricted.check import check
from csa_deploy.restricted.loading import load_graph
from csa_deploy.source import load_source

QUICK = 20.0
"""Seconds within which a hostile file is refused; without bounds these take minutes."""


def network(nodes: list[NodeProto], shape: object = (1, 4), opset: int = 18, constants: object = ()) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: list[str], outputs: list[str], *attributes: AttributeProto, domain: str = "") -> NodeProto:
    made = helper.make_node(op, inputs, outputs, name=op.lower(), domain=domain)
    made.attribute.extend(attributes)
    return made


def attribute(name: str, value: object) -> AttributeProto:
    return helper.make_attribute(name, value)


# names


@given(st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])), min_size=1, max_size=20))
def test_printed_lists_are_read_as_python_would(names: list[str]) -> None:
    text = str(names)
    if "\\x" not in text and "\\u" not in text:  # spaces that Python escapes: no name of a module has one
        assert parse_scopes(text) == ast.literal_eval(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "text", "'a'", "{1, 2}", "{'a': 'b'}", "['a' 'b']", "['a',, 'b']", "[['a'], 'b']", "[1, 2]", "[None]",
        "['a', b'c']", "[f'{1}']", "['a'] + ['b']", "-" * 100_000 + "1", "[" + "1," * 2_000_000 + "]", "[" * 100_000,
        "[" + "'a'," * 100_000 + "'b']", "['" + "\\" * 60_000 + "]", "1+2j" * 3000, "['a'", "['a']]", "['\\x41', 'b']",
    ],
    ids=str.__len__,
)  # fmt: skip
def test_whatever_else_stands_there_is_no_scope(text: str) -> None:
    start = time.process_time()
    assert parse_scopes(text) == []
    assert innermost_module(text) == ""
    assert time.process_time() - start < 1


def test_a_node_with_odd_metadata_is_judged_like_one_without() -> None:
    plain, odd = network([node("Relu", ["x"], ["y"])]), network([node("Relu", ["x"], ["y"])])
    odd.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="[" + "1," * 200_000 + "]")
    assert check(odd).to_json() == check(plain).to_json()


# attributes


TYPED = [3, 1.5, "a", [1, 2], [1.5], ["a", "b"], TensorProto(dims=[1], data_type=1, float_data=[2.0])]


@pytest.mark.parametrize("op", ["Conv", "Shape", "Scan", "Concat", "Constant", "ConstantOfShape", "Split", "Cast"])
@pytest.mark.shows("MEA-07")
def test_attributes_are_read_by_the_type_that_the_operator_declares(op: str) -> None:
    """Against onnx's own schema: what it would refuse is left out, what it takes is there."""
    schema = onnx.defs.get_schema(op, 17)
    for name, declared in schema.attributes.items():
        for value in TYPED:
            made = node(op, ["x"], ["y"], attribute(name, value))
            kind = AttributeProto.AttributeType.Name(made.attribute[0].type)
            expected = kind == declared.type.name or (op, kind) == ("Cast", "STRING")  # of opset 1 to 5
            assert (name in attribute_values(made)) == expected, (name, kind)
            assert (ill_typed(made) == name) != expected


def test_attributes_of_unknown_operators_keep_their_own_type() -> None:
    made = node("Mine", ["x"], ["y"], attribute("a", 1), attribute("b", "text"), domain="mine")
    assert attribute_values(made) == {"a": 1, "b": "text"}
    made.attribute.append(AttributeProto(name="c"))  # of no type
    assert ill_typed(made) == "c"


def loop(count: float) -> ModelProto:
    body = onnx.parser.parse_graph(
        "b (int64 i, bool c, float[1, 4] v) => (bool co, float[1, 4] vo) { co = Identity (c) vo = Relu (v) }"
    )
    constants = [numpy_helper.from_array(np.array(count, "f4"), "n"), numpy_helper.from_array(np.array(True), "k")]
    return network([node("Loop", ["n", "k", "x"], ["y"], attribute("body", body))], constants=constants)


def constant(name: str, value: object) -> ModelProto:
    return network([node("Constant", [], ["c"], attribute(name, value)), node("Add", ["x", "c"], ["y"])])


def shape_of(name: str, value: object) -> ModelProto:
    return network([node("Shape", ["x"], ["s"], attribute(name, value)), node("Reshape", ["x", "s"], ["y"])])


def filled(value: object) -> ModelProto:
    size = numpy_helper.from_array(np.array([4]), "s")
    nodes = [node("ConstantOfShape", ["s"], ["c"], attribute("value", value)), node("Add", ["x", "c"], ["y"])]
    return network(nodes, constants=[size])


ILL_TYPED = {
    "value_int text": constant("value_int", "a"),
    "value_ints not a number": constant("value_ints", [float("nan")]),
    "value_float list": constant("value_float", [1, 2]),
    "value a number": constant("value", 1.5),
    "start text": shape_of("start", "a"),
    "start list": shape_of("start", [1]),
    "end float": shape_of("end", 1.5),
    "fill list": filled([1, 2]),
    "fill text": filled("a"),
    "trip count infinite": loop(float("inf")),
    "trip count not a number": loop(float("nan")),
    "scan axes number": network([node("Scan", ["x"], ["y"], attribute("scan_input_axes", 1))]),
}


@pytest.mark.parametrize("name", ILL_TYPED)
@pytest.mark.shows("MEA-07", "ERR-05")
def test_an_attribute_of_another_type_is_never_allowed(name: str) -> None:
    for scope in check(ILL_TYPED[name]).scopes:
        assert scope.verdict != "allowed"


@pytest.mark.parametrize("name", [name for name in ILL_TYPED if "trip" not in name])
def test_the_finding_says_which_node(name: str) -> None:
    findings = check(ILL_TYPED[name], ["drive-os-7"]).scopes[0].findings
    assert any("another type than the operator declares" in finding.message for finding in findings)


def test_a_sparse_constant_whose_rank_is_wrong_is_judged() -> None:
    model = network([node("Add", ["x", "s"], ["y"])])
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(TensorProto(name="s", data_type=1, dims=[2], float_data=[1, 2]))
    sparse.indices.CopyFrom(TensorProto(data_type=7, dims=[2, 9, 9], int64_data=[0, 1]))
    sparse.dims.extend([4, 2**40, -1])
    assert check(model).verdict != "allowed"


# bounds


def functions(depth: int, calls: int = 2) -> ModelProto:
    """Each function calls the next one some times; the last one is a Relu."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("l", 1)]
    model = network([node(f"F{depth}", ["x"], ["y"], domain="l")])
    for level in range(depth + 1):
        names = ["a", *(f"t{number}" for number in range(calls - 1)), "b"]
        pairs = pairwise(names)
        body = [helper.make_node(f"F{level - 1}", [a], [b], domain="l") for a, b in pairs]
        body = body if level else [helper.make_node("Relu", ["a"], ["b"])]
        model.functions.append(helper.make_function("l", f"F{level}", ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("l", 1))
    return model


@pytest.mark.parametrize("depth", [15, 40, 900])
def test_functions_that_grow_beyond_bounds_are_refused_at_once(depth: int, tmp_path: Path) -> None:
    model = functions(depth)
    onnx.save(model, tmp_path / "bomb.onnx")
    start = time.process_time()
    for read in (
        lambda: check(model),
        lambda: check(tmp_path / "bomb.onnx"),
        lambda: load_model(tmp_path / "bomb.onnx"),
    ):
        with pytest.raises(UsageError, match=r"local functions"):
            read()
    assert time.process_time() - start < QUICK


def test_functions_within_bounds_are_written_out() -> None:
    assert check(functions(6), ["drive-os-7"]).scopes[0].nodes == 2**6


def test_a_large_body_called_often_is_refused_by_its_bytes() -> None:
    model = functions(10)
    model.functions[0].node.add().CopyFrom(
        node("Constant", [], ["w"], attribute("value", numpy_helper.from_array(np.zeros(2**17, "f4"))))
    )
    with pytest.raises(UsageError, match="would grow by more than 256 MiB"):
        require_bounded(model, "net")


def test_the_number_of_nodes_is_bounded_on_both_sides() -> None:
    chain = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"]) for n in range(MOST_NODES)]
    require_bounded(network(chain), "net")
    with pytest.raises(UsageError, match=r"net has more than 25,000 nodes: 25,001"):
        require_bounded(network([*chain, helper.make_node("Relu", ["x"], ["y"])]), "net")


@pytest.mark.parametrize("op", ["Add", "Mul", "Cast", "Squeeze", "Concat"])
@pytest.mark.parametrize("elements", [2**24, 2**40, 2**62])
def test_a_vector_of_any_stated_length_is_never_written_out(op: str, elements: int, tmp_path: Path) -> None:
    extra = {"Cast": [attribute("to", 1)], "Concat": [attribute("axis", 0)]}.get(op, [])
    inputs = ["x"] if op in ("Cast", "Squeeze") else ["x", "x"]
    path = tmp_path / "vector.onnx"
    path.write_bytes(network([node(op, inputs, ["y"], *extra)], [elements]).SerializeToString())
    with Reader() as reader:
        outcome = reader.read("check", path)
    assert not outcome.failure, outcome
    assert outcome.seconds < QUICK
    assert outcome.peak < MOST_MEMORY / 4


def test_dimensions_grow_no_further_than_any_reader_follows(tmp_path: Path) -> None:
    """Each node adds a dimension: time and memory would grow with the square."""
    names = ["x", *(f"t{number}" for number in range(2999)), "y"]
    nodes = [node("Unsqueeze", [a], [b], attribute("axes", [0])) for a, b in pairwise(names)]
    path = tmp_path / "chain.onnx"
    path.write_bytes(network(nodes, opset=11).SerializeToString())
    with Reader() as reader:
        outcome = reader.read("check", path)
    assert not outcome.failure and outcome.seconds < QUICK, outcome


def test_folding_computes_nothing_larger_than_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    column, row = np.zeros((4096, 1), "f4"), np.zeros((1, 4096), "f4")
    monkeypatch.setattr(folding, "_computed", lambda *_: np.zeros(1))  # would be kept

    def evaluate(op: str, *inputs: np.ndarray, declared: int | None = None) -> np.ndarray | None:
        return folding.evaluate(node(op, ["a", "b"], ["y"]), {}, inputs, 18, declared)

    for op in ("Add", "Mul", "Where", "Max"):
        assert evaluate(op, column, row, declared=1) is None  # what is declared is a lie
    assert evaluate("Gather", np.zeros(4096, "f4"), np.zeros((64, 64), "i8")) is None
    assert evaluate("Expand", column, np.array([1, 4096])) is None
    assert evaluate("Concat", *[np.zeros(2048, "f4")] * 3) is None
    assert evaluate("Concat", *[np.zeros(2048, "f4")] * 2) is not None


def test_all_folded_values_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a constant is one whose values are not known: what hangs on them is not allowed."""
    sizes = numpy_helper.from_array(np.array([2, 2]), "half")
    nodes = [node("Add", ["half", "half"], ["twice"]), helper.make_node("Sub", ["twice", "half"], ["again"])]
    model = network([*nodes, node("Reshape", ["x", "again"], ["y"])], constants=[sizes])
    assert load_graph(model).outputs[0].shape == (2, 2)
    monkeypatch.setattr(folding, "MAX_BYTES", 31)  # the first sum has 16 bytes, the second 32 with it
    graph = load_graph(model)
    assert [value.data is None for made in graph.constants for value in made.outputs] == [False, True]


def test_messages_nested_deeper_than_protobuf_reads_are_refused(tmp_path: Path) -> None:
    data = b"\x00" * reading.KEEP_BYTES
    for number in range(600):
        field = [0x0A, 0x2A, 0x32][number % 3]  # node, attribute, graph
        length, prefix = len(data), bytearray([field])
        while length > 0x7F:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        data = bytes(prefix) + bytes([length]) + data
    (tmp_path / "deep.onnx").write_bytes(data)
    for read in (check, load_model):
        with pytest.raises(UsageError, match="not an ONNX"):
            read(tmp_path / "deep.onnx")


def test_names_are_bounded() -> None:
    with pytest.raises(UsageError, match="a name of 100,000 characters"):
        check(network([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["n" * 100_000])]))


# external data


def outside(**entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_external_data_as_every_exporter_states_it() -> None:
    tensor = outside(location="w.bin", offset="16", length="32", checksum="ab")
    assert external_data(tensor) == ExternalData("w.bin", 16, 32)
    assert external_data(outside(location="sub/w.bin")) == ExternalData("sub/w.bin", 0, None)


BAD_NUMBERS = ["abc", "1e3", "0x10", "²", "\u0661", "1_0", " 1", "-1", "+1", "1.0", "9" * 20, "9" * 5000]
BAD_PLACES = ["", "/etc/passwd", "../w.bin", "a/../../w.bin", "a\0b", "n" * 5000]


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("number", BAD_NUMBERS, ids=range(len(BAD_NUMBERS)))
def test_what_is_no_number_of_bytes_is_refused_by_every_reader(key: str, number: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    entries = {"offset": "0", "length": "16", key: number}
    _refused_by_every_reader(outside(location="w.bin", **entries), tmp_path, f"has the {key}")


@pytest.mark.parametrize("place", BAD_PLACES, ids=range(len(BAD_PLACES)))
def test_places_outside_are_refused_by_every_reader(place: str, tmp_path: Path) -> None:
    _refused_by_every_reader(outside(location=place, length="16"), tmp_path, "outside the model's folder")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "missing", "name too long"])
def test_only_plain_files_are_opened_and_nothing_waits(kind: str, tmp_path: Path) -> None:
    name = "n" * 400 if kind == "name too long" else "w.bin"
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "link":
        (tmp_path / "real.bin").write_bytes(bytes(16))
        (tmp_path / name).symlink_to("real.bin")
    words = {"pipe": "no plain file", "folder": "no plain file", "link": "outside"}.get(kind, "is missing")
    _refused_by_every_reader(outside(location=name, length="16"), tmp_path, words)
    with pytest.raises(ExternalDataError, match=words):
        external_file(name, tmp_path)


def _refused_by_every_reader(tensor: TensorProto, folder: Path, words: str) -> None:
    path = folder / "net.onnx"
    path.write_bytes(network([node("Add", ["x", "w"], ["y"])], constants=[tensor]).SerializeToString())
    with pytest.raises(UsageError, match=words) as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)
    report = check(path, ["drive-os-7"]).scopes[0]
    assert report.verdict != "allowed"
    assert any(words in finding.message for finding in report.findings)
    assert load_source(str(path)).fingerprint()


def test_a_pipe_instead_of_a_model_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.onnx")
    for read in (check, load_model, lambda path: load_source(str(path))):
        with pytest.raises(UsageError):
            read(tmp_path / "net.onnx")
    with pytest.raises(OSError, match="no plain file"):
        open_regular(tmp_path / "net.onnx")


# the child process


def test_the_child_returns_what_it_read() -> None:
    assert guarded(lambda: {"a": [1, 2]}, "reading") == {"a": [1, 2]}


def test_a_refusal_arrives_with_its_cure() -> None:
    def refuse() -> None:
        raise UsageError("no", fix="yes")

    with pytest.raises(UsageError) as caught:
        guarded(refuse, "reading")
    assert (caught.value.message, caught.value.fix) == ("no", "yes")


def _spin() -> None:
    while True:
        pass


ENDS = {
    "crashes .SIGABRT.": os.abort,
    "takes more than 1 s": _spin,
    "takes more than 256 MiB": lambda: bytes(2**30),
    "fails: ZeroDivisionError: .* by zero": lambda: 1 // 0,
    "crashes .no answer.": lambda: os._exit(0),
}


@pytest.mark.parametrize("words", ENDS)
def test_whatever_happens_in_the_child_is_one_line(words: str) -> None:
    with pytest.raises(UsageError, match=f"reading net.onnx {words}"):
        guarded(ENDS[words], "reading net.onnx", seconds=1, memory=1 << 28)
