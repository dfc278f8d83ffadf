"""A cut graph, part after part, computes what the whole does; what crosses the cut without a name is refused."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from csa_models import registry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor

from csa_deploy.errors import UsageError
from csa_deploy.export.exporter import export_module
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.split import crossing, extract_part, plan_cut
from csa_deploy.network_parts import ENCODER
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.runners.chained_runner import ChainedRunner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

Build = Callable[..., onnx.ModelProto]

SKIP = """
    c = Conv<pads = [1, 1, 1, 1]>(x, w)
    r = Relu(c)
    d = Conv<pads = [1, 1, 1, 1]>(r, v)
    s = Add(r, d)
    a = Conv(s, u)
    ya = Relu(a)
    b = MaxPool<kernel_shape = [2, 2]>(s)
    yb = Sigmoid(b)
"""


@pytest.fixture(scope="module")
def skip(build: Build) -> onnx.ModelProto:
    """A residual block and two heads that read its sum."""
    weights = {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3), "u": (2, 4, 1, 1)}
    return build("(float[1,3,8,8] x) => (float[1,2,8,8] ya, float[1,4,7,7] yb)", SKIP, **weights)


def parts_of(model: onnx.ModelProto, tensors: list[str], *together: str) -> dict[str, onnx.ModelProto]:
    planned = plan_cut(model, tensors, dict.fromkeys(together, "fp16@gpu"))
    crosses = crossing(model, planned)
    return {part.name: extract_part(model, part, crosses) for part in planned}


def feeds_of(model: onnx.ModelProto, seed: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: draw.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def chained(model: onnx.ModelProto, parts: dict[str, onnx.ModelProto], feeds: dict[str, np.ndarray], *, exact: bool):
    outputs = [value.name for value in model.graph.output]
    runners = {n: OnnxRuntimeRunner(p.SerializeToString(), optimize=not exact, threads=1) for n, p in parts.items()}
    whole = OnnxRuntimeRunner(model.SerializeToString(), optimize=not exact, threads=1)
    with ChainedRunner(runners, outputs) as chain, whole:
        return chain.run(feeds), whole.run(feeds)


def assert_same(model: onnx.ModelProto, parts: dict[str, onnx.ModelProto], *, exact: bool = True) -> None:
    """The same bits without the optimizations of ONNX Runtime; with them, up to rounding."""
    for part in parts.values():
        onnx.checker.check_model(part, full_check=True)
    got, want = chained(model, parts, feeds_of(model), exact=exact)
    assert list(got) == list(want)
    for name, array in want.items():
        if exact:
            np.testing.assert_array_equal(got[name], array)
        else:
            np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5 * max(1.0, float(np.abs(array).max())))


def test_two_heads_share_the_encoders_map(skip: onnx.ModelProto) -> None:
    planned = plan_cut(skip, ["s"])
    assert [(p.name, p.inputs, p.outputs) for p in planned] == [
        (ENCODER, ("x",), ("s",)),
        ("ya", ("s",), ("ya",)),
        ("yb", ("s",), ("yb",)),
    ]
    assert_same(skip, parts_of(skip, ["s"]))


def test_heads_are_put_together_by_their_outputs(skip: onnx.ModelProto) -> None:
    parts = parts_of(skip, ["s"], "yb+ya")
    assert list(parts) == [ENCODER, "ya+yb"]
    assert_same(skip, parts)
    with pytest.raises(UsageError, match="no head makes 'yc'") as error:
        plan_cut(skip, ["s"], {"ya+yc": "int8@dla0"})
    assert "did you mean 'yb'" in str(error.value.fix)


def test_each_part_is_what_onnx_itself_cuts_out(skip: onnx.ModelProto) -> None:
    extractor = Extractor(onnx.shape_inference.infer_shapes(skip))
    feeds = feeds_of(skip)
    for part in plan_cut(skip, ["s"]):
        ours = extract_part(skip, part, {})
        theirs = extractor.extract_model(list(part.inputs), list(part.outputs))
        for node in theirs.graph.node:
            node.ClearField("domain")  # one writes the empty name, the other none
        assert list(ours.graph.node) == list(theirs.graph.node)
        assert {t.name for t in ours.graph.initializer} == {t.name for t in theirs.graph.initializer}
        given = feeds if part.name == ENCODER else {"s": np.ones((1, 4, 8, 8), "f4")}
        for a, b in zip(*(ReferenceEvaluator(m).run(None, given) for m in (ours, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("tensors", "message", "fix"),
    [
        (["d"], r"behind it 'r' is read as well", "--split d,r"),  # inside the residual block
        (["a", "b"], r"", ""),
        (["a"], r"'s' is read as well", "--split a,s"),
        (["x"], "nothing lies in front of 'x'", "inside the network"),
        (["ya"], r"'s' is read as well", "--split ya,s"),
        (["ya", "yb"], "nothing lies behind 'ya' and 'yb'", "inside the network"),
        (["s", "ya"], "nothing behind the cut reads 'ya'", "leave it out"),
        (["s", "c"], "nothing behind the cut reads 'c'", "leave it out"),
        (["w"], "'w' is a weight", "what a node computes"),
        (["rr"], "no tensor 'rr'", "did you mean 'r'"),
    ],
)
def test_where_a_cut_can_lie(skip: onnx.ModelProto, tensors: list[str], message: str, fix: str) -> None:
    if not message:
        assert_same(skip, parts_of(skip, tensors))
        return
    with pytest.raises(UsageError, match=message) as error:
        plan_cut(skip, tensors)
    assert fix in str(error.value.fix)


def test_a_tensor_named_twice_is_named_once(skip: onnx.ModelProto) -> None:
    assert plan_cut(skip, ["s", "s"]) == plan_cut(skip, ["s"])


def test_a_skip_connection_that_is_named_is_a_second_input(skip: onnx.ModelProto) -> None:
    parts = parts_of(skip, ["d", "r"])
    assert {v.name for v in parts["ya+yb"].graph.input} == {"d", "r"}
    assert_same(skip, parts)


def test_inputs_of_the_network_that_heads_read(build: Build) -> None:
    """One that a head alone reads is the head's; one that the encoder reads as well has to be named."""
    body = "a = Relu(x) y = Add(a, speed) z = Mul(a, x)"
    model = build("(float[1,4] x, float[1,4] speed) => (float[1,4] y, float[1,4] z)", body)
    with pytest.raises(UsageError, match="behind it 'x' is read as well"):
        plan_cut(model, ["a"])
    parts = parts_of(model, ["a", "x"])
    assert {name: [v.name for v in part.graph.input] for name, part in parts.items()} == {
        ENCODER: ["x"],
        "y": ["a", "speed"],
        "z": ["a", "x"],
    }
    assert_same(model, parts)


def test_outputs_that_the_encoder_makes_are_its_own(build: Build) -> None:
    model = build("(float[1,4] x) => (float[1,4] a, float[1,4] y, float[1,4] b)", "a = Relu(x) b = Neg(a) y = Exp(b)")
    parts = parts_of(model, ["b"])
    assert [v.name for v in parts[ENCODER].graph.output] == ["b", "a"]
    assert_same(model, parts)


def test_an_output_that_heads_read_as_well_has_two_types_in_fp16(build: Build) -> None:
    """The network gives it in FP32; what crosses is the FP16 tensor in front of that Cast."""
    model = build("(float[1,4] x) => (float[1,4] a, float[1,4] y)", "a = Relu(x) y = Exp(a)")
    half = to_fp16(model).model
    planned = plan_cut(model, ["a"])
    assert crossing(half, planned) == {"a": "a_fp16"}
    parts = {part.name: keep_rounding(extract_part(half, part, {"a": "a_fp16"})) for part in planned}
    kinds = {v.name: v.type.tensor_type.elem_type for v in parts[ENCODER].graph.output}
    assert kinds == {"a": onnx.TensorProto.FLOAT, "a_fp16": onnx.TensorProto.FLOAT16}
    assert_same(keep_rounding(half), parts)


def test_what_reads_constants_alone_belongs_to_each_part(build: Build) -> None:
    body = "k = Neg(w) a = Mul(x, k) y = Mul(a, k) z = Add(a, k)"
    model = build("(float[1,4] x) => (float[1,4] y, float[1,4] z)", body, w=(1, 4))
    parts = parts_of(model, ["a"])
    assert list(parts) == [ENCODER, "y", "z"]
    assert all([n.op_type for n in part.graph.node].count("Neg") == 1 for part in parts.values())
    assert_same(model, parts)
    with pytest.raises(UsageError, match="'k' is a weight"):
        plan_cut(model, ["k"])


def test_what_a_body_reads_crosses_the_cut_as_well(build: Build) -> None:
    body = """
        a = Relu(x) b = Exp(a) t = Constant<value = bool {1}>()
        c = If(t)<
            then_branch = g () => (float[1,4] p) { p = Neg(a) }, else_branch = h () => (float[1,4] q) { q = Abs(a) }
        >
        y = Add(b, c)
    """
    model = build("(float[1,4] x) => (float[1,4] y)", body)
    with pytest.raises(UsageError, match="behind it 'a' is read as well"):
        plan_cut(model, ["b"])
    assert_same(model, parts_of(model, ["b", "a"]))


QDQ = """
    f = Relu(x)
    q = QuantizeLinear(f, s, z)
    d = DequantizeLinear(q, s, z)
    ya = Neg(d)
    yb = Exp(d)
"""


@pytest.mark.parametrize("named", ["f", "q"])
def test_int8_crosses_a_cut_at_quantize_and_dequantize(build: Build, named: str) -> None:
    model = build("(float[1,4] x) => (float[1,4] ya, float[1,4] yb)", QDQ, s=np.float32(0.1), z=np.int8(0))
    parts = parts_of(model, [named])
    assert list(parts) == [ENCODER, "ya", "yb"]
    (out,) = parts[ENCODER].graph.output
    assert (out.name, out.type.tensor_type.elem_type) == (named, onnx.TensorProto.INT8)
    assert all(p.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT8 for p in list(parts.values())[1:])
    assert_same(model, parts)


def test_float_crosses_where_one_head_wants_it(build: Build) -> None:
    body = QDQ.replace("Exp(d)", "Exp(f)")
    model = build("(float[1,4] x) => (float[1,4] ya, float[1,4] yb)", body, s=np.float32(0.1), z=np.int8(0))
    parts = parts_of(model, ["f"])
    assert parts[ENCODER].graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [n.op_type for n in parts["ya"].graph.node] == ["QuantizeLinear", "DequantizeLinear", "Neg"]
    assert_same(model, parts)


@pytest.fixture(scope="module", params=["csa_digits", "csa_segmentation", "csa_detection"])
def boxed(request: pytest.FixtureRequest) -> onnx.ModelProto:
    """A network of the box, optimized."""
    entry = getattr(registry, request.param)
    image = torch.zeros(1, len(entry.preprocessing.mean), *entry.preprocessing.size)
    module = entry.factory().eval()
    with torch.no_grad():
        found = module(image)
    names = (
        list(found)
        if isinstance(found, dict)
        else [f"out{n}" for n in range(len(found) if isinstance(found, (tuple, list)) else 1)]
    )
    return optimize(export_module(module, {"input": image}, names).model).model


def completed(model: onnx.ModelProto, tensors: list[str]) -> list[str]:
    """The cut that the refusals of an incomplete one ask for."""
    for _ in range(9):
        try:
            plan_cut(model, tensors)
            return tensors
        except UsageError as error:
            said = re.fullmatch(r"name \w+ too: --split (.+)", str(error.fix))
            if said:
                tensors = said[1].split(",")
                continue
            unread = re.match(r"nothing behind the cut reads (.+)", error.message)
            assert unread, error
            tensors = [name for name in tensors if f"'{name}'" not in unread[1]]
    raise AssertionError(f"the fixes lead nowhere: {tensors}")


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_cuts_of_the_networks_in_the_box(boxed: onnx.ModelProto, data: st.DataObject) -> None:
    ends = {value.name for value in boxed.graph.output}
    inner = [o for node in boxed.graph.node for o in node.output if o not in ends]
    tensors = completed(boxed, data.draw(st.lists(st.sampled_from(inner), min_size=1, max_size=3, unique=True)))
    parts = parts_of(boxed, tensors)
    nodes = [node.output[0] for part in parts.values() for node in part.graph.node]
    assert sorted(nodes) == sorted(node.output[0] for node in boxed.graph.node)  # each once, in one part
    crossing_names = set(itertools.chain(*([v.name for v in p.graph.input] for p in list(parts.values())[1:])))
    assert crossing_names == set(tensors)
    assert_same(boxed, parts)
    assert_same(boxed, parts, exact=False)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_cuts_of_typed_graphs(boxed: onnx.ModelProto, data: st.DataObject) -> None:
    """The plan is of the FP32 graph, the parts are of the FP16 one, with some of it in FP32: the same bits."""
    kept = data.draw(st.lists(st.sampled_from([node.name for node in boxed.graph.node]), max_size=5, unique=True))
    half = to_fp16(boxed, keep_fp32=kept).model
    inner = [o for node in boxed.graph.node for o in node.output]
    planned = plan_cut(boxed, completed(boxed, data.draw(st.lists(st.sampled_from(inner), min_size=1, max_size=2))))
    crosses = crossing(half, planned)
    parts = {part.name: keep_rounding(extract_part(half, part, crosses)) for part in planned}
    assert_same(keep_rounding(half), parts)
