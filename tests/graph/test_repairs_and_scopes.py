"""Repairs against the scopes that they are for, and against each other's scopes."""

import base64

import numpy as np
import onnx
import pytest

from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.repair import REPAIRS, repair
from csa_deploy.graph.repairs.pooling import Limits, factors
from csa_deploy.restricted.check import check
from csa_deploy.restricted.inspection import inspect
from csa_deploy.restricted.repairing import repair_for_scopes
from csa_deploy.restricted.validator import ValidatorSession, interpret, validator_status
from tools.probe.run import WORKER

SCOPES = ["drive-os-6", "drive-os-6.0.9", "drive-os-7", "dla-orin", "dla-orin-8.6.12", "dla-xavier"]


def attributes(model, name: str) -> list[list[int]]:
    return [list(a.ints) for node in model.graph.node for a in node.attribute if a.name == name]


@pytest.mark.parametrize("size", range(1, 129))
def test_factors_of_every_size_against_brute_force(size):
    """Any number without a prime factor above 6, times at most one factor up to 8, has a chain; no other has."""
    found = factors(size, Limits())
    rest = [size // last for last in range(1, 9) if size % last == 0]
    smooth = [
        number for number in rest if all(number % p for p in range(7, number + 1) if all(p % q for q in range(2, p)))
    ]
    assert (found is not None) == bool(smooth)
    if found is not None:
        assert np.prod(found) == size and found[-1] <= 8 and all(factor <= 6 for factor in found[:-1])


def around(build, shape: tuple[int, ...], pooling: str):
    """A pooling between convolutions, which every scope allows."""
    dims, channels = ",".join(map(str, shape)), shape[1]
    return build(
        f"(float[{dims}] x) => (float[1,{channels},1,1] y)",
        f"a = Conv(x, w) b = {pooling} y = Conv(b, w)",
        opset=17,
        w=(channels, channels, 1, 1),
    )


@pytest.mark.parametrize("shape", [(1, 16, 120, 160), (1, 16, 12, 96), (1, 16, 7, 7), (1, 16, 14, 14)])
def test_global_pooling_becomes_what_every_scope_allows(build, shape):
    """RapidOCR's maps: windows of 120 x 120 and strides above 6 took these networks out of drive-os-7."""
    result = repair(around(build, shape, "GlobalAveragePool(a)"), ["global_pool_to_pool", "pool_to_chain"])
    assert "GlobalAveragePool" not in result.after.ops and not result.reverted
    assert max(map(max, attributes(result.model, "strides"))) <= 6
    assert {scope.scope: scope.verdict for scope in check(result.model, SCOPES).scopes} == dict.fromkeys(
        SCOPES, "allowed"
    )


def test_a_map_without_factors_is_left_whole_or_declined(build):
    whole = repair(around(build, (1, 16, 13, 13), "GlobalAveragePool(a)"))
    assert [13, 13] in attributes(whole.model, "kernel_shape")
    large = repair(around(build, (1, 16, 23, 23), "GlobalAveragePool(a)"), ["global_pool_to_pool"])
    assert "GlobalAveragePool" in large.after.ops
    assert [note.reason for note in large.declined] == ["23 has no factors for windows up to 8, strides 6"]
    asked = repair(around(build, (1, 16, 23, 23), "GlobalAveragePool(a)"), limits=Limits(whole=23))
    assert [23, 23] in attributes(asked.model, "kernel_shape")


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_a_stride_that_takes_no_second_step_becomes_one(build, kind):
    model = around(build, (1, 16, 8, 8), f"{kind}<kernel_shape=[8,8], strides=[8,8]>(a)")
    (before,), (after,) = (
        check(m, ["drive-os-7"]).scopes for m in (model, repair(model, ["pool_stride_to_one"]).model)
    )
    assert (before.verdict, after.verdict) == ("denied", "allowed")
    assert {name for finding in before.repairs for name in finding.split(", ")} >= {"pool_stride_to_one"}


def test_a_stride_stays_where_a_second_step_would_appear(build):
    model = build("(float[1,2,9,8] x) => (float[1,2,1,1] y)", "y = MaxPool<kernel_shape=[8,8], strides=[8,8]>(x)")
    result = repair(model, ["pool_stride_to_one"])
    assert not result.steps and "does not cover" in result.declined[0].reason


@pytest.mark.parametrize(
    "text",
    ["Clip(a, l, h)", "Clip(a, m, h)", "HardSigmoid(a)", "HardSwish(a)"],
)
def test_bounded_activations_become_what_every_scope_allows(build, text):
    image = "float[1,4,8,8]"
    model = build(
        f"({image} x) => ({image} y)", f"a = Conv(x, w) b = {text} y = Conv(b, w)", opset=17,
        w=(4, 4, 1, 1), l=np.float32(0), m=np.float32(-1), h=np.float32(6),
    )  # fmt: skip
    result = repair(model, ["hard_activation_to_relu"])
    verdicts = {scope.scope: scope.verdict for scope in check(result.model, SCOPES).scopes}
    wanted = dict.fromkeys(SCOPES, "allowed")
    if text == "HardSwish(a)":  # a product of two activations, which no repair removes
        verdicts, wanted = {}, {}
    assert not result.reverted and verdicts == wanted


HEADS = {
    "DepthToSpace": ("DepthToSpace<blocksize=2>(a)", {}),
    "DepthToSpace, columns first": ('DepthToSpace<blocksize=2, mode="CRD">(a)', {}),
    "SpaceToDepth": ("SpaceToDepth<blocksize=4>(a)", {}),
    "Neg": ("Neg(r)", {}),
    "Where with a constant": ("Where(c, a, v)", {"c": np.eye(4, dtype=bool)[1].reshape(4, 1, 1), "v": np.float32(3)}),
    "Where of two maps": ("Where(c, a, r)", {"c": np.eye(4, dtype=bool)[1].reshape(4, 1, 1)}),
    "Gather of channels": ("Gather<axis=1>(a, i)", {"i": np.array([2, -1])}),
    "Gather of rows": ("Gather<axis=2>(a, i)", {"i": np.array([2, 0])}),
    "Gather of a column": ("Gather<axis=-1>(a, i)", {"i": np.array([2])}),
    "reflecting Pad": ('Pad<mode="reflect">(a, p)', {"p": np.array([0, 0, 2, 1, 0, 0, 0, 3])}),
    "repeating Pad": ('Pad<mode="edge">(a, p)', {"p": np.array([0, 0, 2, 1, 0, 0, 0, 3])}),
    "mean over channels": ("ReduceMean<axes=[1]>(a)", {}),
    "mean over rows": ("ReduceMean<axes=[2]>(a)", {}),
    "mean over channels and columns": ("ReduceMean<axes=[1, 3]>(a)", {}),
    "sum over channels and map": ("ReduceSum(a, k)", {"k": np.array([1, 2, 3])}),
    "maximum over channels": ("ReduceMax<axes=[1]>(a)", {}),
    "maximum over columns": ("ReduceMax<axes=[3]>(a)", {}),
    "maximum over a map": ("GlobalMaxPool(a)", {}),
    "Resize by fractions": ('Resize<mode="linear">(a, , , z)', {"z": np.array([1, 4, 20, 63])}),
    "Resize by large factors": ('Resize<mode="linear">(a, , s)', {"s": np.array([1, 1, 8, 0.125], "f4")}),
}  # fmt: skip


def head(build, name: str):
    """A head between two layers that every scope allows."""
    text, weights = HEADS[name]
    return build(
        "(float[1,4,8,8] x) => (float[a,b,c,d] y)", f"a = Conv(x, w) r = Relu(a) b = {text} y = Relu(b)", opset=17,
        w=(4, 4, 1, 1), **weights,
    )  # fmt: skip


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["together", "alone"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_become_what_every_scope_allows(build, name, alone, tmp_path, monkeypatch):
    """Alone and together with the others: no scope's repair takes another scope away. The rules decide."""
    monkeypatch.setenv("CSA_DEPLOY_VALIDATOR", str(tmp_path / "none"))
    path = tmp_path / "net.onnx"
    onnx.save(head(build, name), path)
    before = {scope.scope: scope.verdict for scope in check(path, SCOPES).scopes}
    refused = [scope for scope, verdict in before.items() if verdict != "allowed"]
    assert {"dla-orin", "dla-xavier"} <= set(refused) and before["drive-os-7"] == "allowed"
    for scopes in [[scope] for scope in refused] if alone else [SCOPES]:
        repaired = repair_for_scopes(path, scopes, before=inspect(path, scopes, parsed=False))
        assert not repaired.left and repaired.model is not None
        assert {scope.verdict for scope in check(repaired.model, scopes).scopes} == {"allowed"}


@pytest.mark.slow
@pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")
def test_nvidia_accepts_every_repaired_head(build):
    """What the rules of drive-os-7 allow, its validator does: both forms where a repair has two."""
    with ValidatorSession(child=WORKER) as session:
        for name in HEADS:
            for left_out in ("pad_to_slices", "pad_to_conv"):
                repaired = repair(head(build, name), REPAIRS.keys() - {left_out}).model
                data = base64.b64encode(repaired.SerializeToString()).decode()
                found = interpret(session.exchange({"onnx": data, "values": {}}))
                assert found["answer"] == "accepted", (name, found)
                if "Pad" not in name:
                    break


@pytest.mark.parametrize("size", [113, 257, 365, 700])
def test_nudged_scales_are_kept_on_large_maps(build, size):
    """Positions move by more than rounding there; the bound is what that may do to values."""
    scale = np.float32(14 / size)
    model = build(
        f"(float[1,8,{size},{size}] x) => (float[1,8,14,14] y)", 'y = Resize<mode="linear">(x, , s)', opset=17,
        s=np.array([1, 1, scale, scale], "f4"),
    )  # fmt: skip
    result = repair(model, ["resize_nudge_scales"])
    assert [step.kept for step in result.steps] == [True] and result.error < 2e-4


def test_padding_of_the_older_exporter_is_folded(build):
    """``F.pad`` by shape arithmetic with ConstantOfShape; weights that a ConstantOfShape makes."""
    model = build(
        "(float[1,3,8,8] x) => (float[1,8,8,8] y)",
        "z = ConstantOfShape<value = int64[1] {0}>(four) c = Concat<axis=0>(given, z) r = Reshape(c, pairs)"
        " f = Slice(r, m1, low, ax, m1) t = Transpose<perm=[1,0]>(f) p = Reshape(t, m1) q = Cast<to=7>(p)"
        " h = Pad(x, q) w = ConstantOfShape<value = float[1] {0.5}>(dims) a = Conv(h, w)"
        " y = BatchNormalization(a, g, o, m, v)",
        opset=13, given=np.array([1, 1, 1, 1]), four=np.array([4]), pairs=np.array([-1, 2]), m1=np.array([-1]),
        low=np.array([-9223372036854775807]), ax=np.array([0]), dims=np.array([8, 3, 3, 3]),
        g=(8,), o=(8,), m=(8,), v=(8,),
    )  # fmt: skip
    result = optimize(model)
    assert result.after.ops == {"Conv": 1} and not result.reverted
    assert result.before.macs == result.after.macs == 8 * 64 * 27
