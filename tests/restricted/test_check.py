import json
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from restricted_networks import MAP, constant, model, node, resize, single, value, weights

from csa_deploy.errors import UsageError
from csa_deploy.restricted.check import check
from csa_deploy.restricted.schema import scopes

DRIVE_6 = ["drive-os-6"]


def verdict(network, scope="drive-os-6"):
    return check(network, [scope]).scopes[0].verdict


def rules(network, scope="drive-os-6"):
    return {finding.rule for finding in check(network, [scope]).scopes[0].findings if finding.verdict != "note"}


def csa_like():
    """The constructs of the published network: depth-wise convolution, swish, both resizes, transposed maps."""
    nodes = [
        node("Conv", ["x", "dw"], ["v"], name="v", group=8, pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["v", "s", "b", "m", "r"], ["n"], name="norm"),
        node("Sigmoid", ["n"], ["g"], name="gate"),
        node("Mul", ["n", "g"], ["h"], name="swish"),
        node("Resize", ["h", "", "down"], ["u"], name="reduce", mode="linear"),
        node("Conv", ["u", "q"], ["p"], name="q"),
        node("Reshape", ["p", "flat"], ["f"], name="flat"),
        node("Transpose", ["f"], ["t"], name="turn", perm=[0, 2, 1]),
        node("Reshape", ["t", "square"], ["k"], name="square"),
        node("Mul", ["p", "k"], ["qk"], name="qk"),
        node("Resize", ["qk", "", "up"], ["a"], name="relation", mode="linear"),
        node("Conv", ["a", "mix"], ["mixed"], name="mix"),
        node("Add", ["mixed", "x"], ["sum"], name="output"),
        node("AveragePool", ["sum"], ["y"], name="pool", kernel_shape=[14, 14]),
    ]
    constants = [
        constant("dw", np.zeros((8, 1, 3, 3))),
        *(constant(name, np.ones(8)) for name in "sbmr"),
        constant("down", [1, 1, 0.5, 0.5]),
        constant("up", [1, 1, 2, 2]),
        constant("q", np.zeros((49, 8, 1, 1))),
        constant("mix", np.zeros((8, 49, 1, 1))),
        constant("flat", [1, 49, 49], np.int64),
        constant("square", [1, 49, 7, 7], np.int64),
    ]
    return model(nodes, constants=constants)


SCALE_BIAS = [constant("s", np.ones(8)), constant("b", np.ones(8))]


@pytest.mark.parametrize("scope", ["drive-os-6", "drive-os-6.0.9"])
def test_the_constructs_of_the_published_network_are_allowed_without_any_unknown(scope):
    report = check(csa_like(), [scope]).scopes[0]
    assert report.verdict == "allowed"
    assert [finding for finding in report.findings if finding.verdict != "note"] == []
    assert report.level == "static"


@pytest.mark.parametrize(
    ("network", "rule", "expected"),
    [
        (single("GlobalAveragePool"), "reduce", "denied"),
        (single("ReduceMean", axes=[2, 3]), "reduce", "denied"),
        (single("GlobalMaxPool"), "reduce", "denied"),
        (single("MatMul", [constant("w", np.zeros((14, 3)))]), "matrix-multiply", "unknown"),
        (single("Softmax"), "no-rule", "unknown"),
        (single("HardSigmoid"), "activation.hard", "unknown"),
        (single("Tanh"), "activation.other", "unknown"),
        (single("Identity"), "identity", "unknown"),
        (single("Mul", [constant("c", np.ones((1, 8, 1, 1)))]), "constant", "unknown"),
        (single("InstanceNormalization", SCALE_BIAS), "plugin.dynamic-ext", "denied"),
        (single("Conv", [weights(4, 8, 3, 3)], dilations=[2, 2]), "no-rule", "unknown"),
        (resize([1, 1, 2, 2], coordinate_transformation_mode="align_corners"), "no-rule", "unknown"),
        (resize([1, 1, 2, 2], mode="nearest"), "no-rule", "unknown"),
    ],
)  # fmt: skip
def test_what_drive_os_6_does_not_simply_allow(network, rule, expected):
    assert rule in rules(network)
    assert verdict(network) == expected


def test_resize_by_sizes_is_denied_with_its_repair():
    sizes = [constant("sizes", [1, 8, 7, 7], np.int64)]
    network = model([node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")], constants=sizes)
    found = next(entry for entry in check(network, DRIVE_6).scopes[0].findings if entry.rule == "resize.sizes")
    assert (found.verdict, found.repair) == ("denied", "resize_sizes_to_scales")


def test_a_finding_says_everything_the_reader_needs():
    made = node("ReduceMean", ["x"], ["y"], name="pool", axes=[2, 3])
    made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'head', 'mean']")
    found = check(model([made]), DRIVE_6).scopes[0].findings[0]
    assert (found.node, found.op, found.layer, found.module) == ("pool", "ReduceMean", "REDUCE", "head")
    assert "AVG" in found.message
    assert "[2, 3]" in found.message
    assert found.source
    assert found.instead
    assert found.repair == "global_pool_to_pool, reduce_to_layers"


def test_dynamic_dimensions_are_denied_by_name():
    network = single("Relu", shape=["batch", 8, 14, 14])
    for scope in ("drive-os-6", "drive-os-7", "trt-11"):
        found = [entry for entry in check(network, [scope]).scopes[0].findings if entry.verdict == "denied"]
        assert any("x" in entry.message for entry in found), scope


@pytest.mark.shows("MEA-01")
def test_no_scope_of_trt_11_is_ever_allowed():
    report = check(csa_like(), ["trt-11"]).scopes[0]
    assert report.verdict == "unknown"
    assert "trt-11.build-decides" in {finding.rule for finding in report.findings}


@pytest.mark.shows("MEA-01")
def test_strict_counts_unknown_as_denied():
    assert not check(single("Softmax"), DRIVE_6).rejected
    assert check(single("Softmax"), DRIVE_6, strict=True).rejected
    assert check(single("GlobalAveragePool"), DRIVE_6).rejected
    assert not check(csa_like(), DRIVE_6, strict=True).rejected


def test_every_scope_is_judged_by_default_and_progress_is_reported():
    seen = []
    report = check(single("Relu"), progress=lambda done, total: seen.append((done, total)))
    assert [scope.scope for scope in report.scopes] == scopes()
    assert seen == [(number, len(scopes())) for number in range(1, len(scopes()) + 1)]
    assert any("validator" in line for line in report.not_done)


def test_an_unknown_scope_is_refused():
    with pytest.raises(UsageError, match="drive-os-9"):
        check(single("Relu"), ["drive-os-9"])


def test_the_same_model_gives_the_same_report():
    first, second = (json.dumps(check(csa_like()).to_json()) for _ in range(2))
    assert first == second


def test_verdict_and_counts_follow_from_the_findings():
    report = check(single("GlobalAveragePool"), DRIVE_6).scopes[0]
    data = report.to_json()
    assert data["verdict"] == "denied"
    assert data["counts"]["denied"] == sum(finding["verdict"] == "denied" for finding in data["findings"]) == 1
    assert report.repairs == ("global_pool_to_pool", "reduce_to_layers")


@pytest.mark.shows("MEA-01")
def test_operator_sets_newer_than_the_onnx_package_are_never_allowed():
    for scope in scopes():
        assert verdict(single("Relu", opset=99), scope) != "allowed"


FLOAT16 = TensorProto.FLOAT16


def test_half_precision_is_allowed_and_bfloat16_is_not():
    for kind, expected in ((FLOAT16, "allowed"), (TensorProto.BFLOAT16, "denied")):
        network = model([node("Relu", ["x"], ["y"])], [value("x", MAP, kind)], [value("y", MAP, kind)])
        assert verdict(network) == expected


@pytest.mark.slow
def test_a_model_of_110_megabytes_takes_under_a_second_and_little_memory(tmp_path):
    path = tmp_path / "big.onnx"
    made, constants, last = [], [], "x"
    for index in range(60):
        constants.append(constant(f"w{index}", np.zeros((680, 680, 1, 1))))
        made.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], name=f"c{index}"))
        made.append(helper.make_node("Sigmoid", [f"c{index}"], [f"s{index}"], name=f"s{index}"))
        last = f"s{index}"
    network = model(made, [value("x", [1, 680, 7, 7])], [value(last, [1, 680, 7, 7])], constants)
    onnx.save(network, path)
    assert path.stat().st_size > 110_000_000
    script = f"""
        import time
        from pathlib import Path
        import onnx.shape_inference, onnx.inliner
        from csa_deploy.restricted.check import check
        from csa_deploy.memory import peak_memory
        before, start = peak_memory(), time.process_time()
        report = check(Path({str(path)!r}))
        print(time.process_time() - start, peak_memory() - before, report.scopes[0].nodes)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    seconds, grown, nodes = run.stdout.split()
    assert float(seconds) < 1
    assert int(grown) < 2 * path.stat().st_size
    assert nodes == "120"


def test_a_decomposed_layer_normalization_is_explained():
    nodes = [
        node("ReduceMean", ["x"], ["mean"], name="mean", axes=[1]),
        node("Sub", ["x", "mean"], ["difference"], name="difference"),
        node("Pow", ["difference", "two"], ["square"], name="square"),
        node("ReduceMean", ["square"], ["y"], name="variance", axes=[1]),
    ]
    for scope in ("drive-os-6", "dla-orin"):
        report = check(model(nodes, constants=[constant("two", 2.0)]), [scope]).scopes[0]
        found = [finding for finding in report.findings if finding.rule.endswith("layer-norm.decomposed")]
        assert len(found) == 1 and "[difference]" in found[0].message
    plain = check(model([node("ReduceMean", ["x"], ["y"], axes=[1])]), ["drive-os-6"]).scopes[0]
    assert [finding.rule for finding in plain.findings] == ["reduce.axes"]
    assert plain.repairs == ("reduce_to_layers",)
