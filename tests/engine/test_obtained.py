"""What a build obtained, beside what was asked: a share that is too small ends with 5, and names the layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import csa_deploy
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.engine.build import build as build_engine
from csa_deploy.engine.layer_nodes import plain_type
from csa_deploy.engine.obtained import obtained_precision
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import BuildFailedError, UsageError
from csa_deploy.options import flag_words
from csa_deploy.records.obtained import ObtainedPrecision, TypeShare
from csa_deploy.source import load_source
from csa_deploy.stages.build import preflight, share_failure
from csa_deploy.workspace import Workspace

Build = Callable[..., onnx.ModelProto]
RANDOM = np.random.default_rng(0)
WEIGHTS = {name: RANDOM.standard_normal((8, 8, 3, 3)).astype("f4") for name in ("a", "b")}
SIGNATURE = "(float[1,8,8,8] x) => (float[1,8,8,8] y)"
HALF = "h = Cast<to=10>(x) p = Conv<pads=[1,1,1,1]>(h, a) c = Cast<to=1>(p)"
ONE_OF_TWO = f"{HALF} y = Conv<pads=[1,1,1,1]>(c, b)"
NONE = "h = Cast<to=10>(x) r = Mul(h, k) c = Cast<to=1>(r) y = Conv<pads=[1,1,1,1]>(c, b)"
QUANTIZED = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"


def weights(*names: str, half: str = "") -> dict[str, np.ndarray]:
    return {name: WEIGHTS[name].astype("f2" if name in half else "f4") for name in names}


def made(model: onnx.ModelProto, **settings: Any) -> csa_deploy.Built:
    return csa_deploy.build(model, backend="tensorrt-rtx", compute_capability=["8.6"], **settings)


def test_one_of_two_layers_is_half_the_work(build: Build) -> None:
    model = build(SIGNATURE, ONE_OF_TWO, **weights("a", "b", half="a"))
    found = made(model, min_share={"fp16": 0.5}).report.obtained
    assert found.source == "network as parsed" and found.share == 0.5
    assert [(layer.name, layer.type) for layer in found.stayed] == [("n3", "fp32")]
    with pytest.raises(BuildFailedError, match=r"50\.0 % of the multiply.* asks for 51 %; wider: n3 \(fp32\)"):
        made(model, min_share={"fp16": 0.51})


def test_fp16_that_obtains_fp32_is_no_build(build: Build) -> None:
    """The graph has FP16 tensors, so it is taken for FP16; all that multiplies is FP32."""
    with pytest.raises(BuildFailedError, match=r"fp16: 0\.0 % of the .*wider: n3 \(fp32\)") as failed:
        made(build(SIGNATURE, NONE, **weights("b"), k=np.float16(2)))
    assert failed.value.exit_code == 5


@pytest.mark.parametrize("both", [True, False])
def test_int8_needs_both_operands_quantized(build: Build, both: bool) -> None:
    """With weights that no DequantizeLinear gives there is no INT8 convolution, whatever the graph is called."""
    scales = {"s": np.float32(0.05), "z": np.int8(0), "w": np.full(8, 0.02, "f4"), "zs": np.zeros(8, "i1")}
    stored = {"a": np.round(WEIGHTS["a"] / 0.02).clip(-127, 127).astype("i1")} if both else weights("a")
    body = (
        "k = DequantizeLinear<axis=0>(a, w, zs) y = Conv<pads=[1,1,1,1]>(d, k)"
        if both
        else ("y = Conv<pads=[1,1,1,1]>(d, a)")
    )
    used = scales if both else {name: scales[name] for name in "sz"}
    model = build(SIGNATURE, f"{QUANTIZED} {body}", **stored, **used)
    if both:
        assert made(model, min_share={"int8": 1.0}).report.obtained.share == 1.0
        return
    with pytest.raises(BuildFailedError, match=r"int8: 0\.0 %.*wider: n2 \(fp32\)"):
        made(model)


@pytest.fixture(scope="module")
def parsed(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, BuildResult]:
    folder = tmp_path_factory.mktemp("parsed")
    model = build(SIGNATURE, ONE_OF_TWO, **weights("a", "b", half="a"))
    onnx.save(model, folder / "m.onnx")
    plan = BuildPlan(backend="tensorrt-rtx", precision="fp16", compute_capabilities=("8.6",))
    return model, build_engine(folder / "m.onnx", folder / "m.engine", plan)


def layer(name: str, source: str, into: str, node: str = "", kind: str = "CaskConvolution") -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "i", "Format/Datatype": source}],
        "Outputs": [{"Name": "o", "Format/Datatype": into}],
        "Metadata": f"[ONNX Layer: {node}]" if node else "",
    }


REGION = "{ForeignNode[n0...n3]}"
ENGINES = {
    "first input, in TensorRT 8's words": (
        [
            layer("n1", "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32", "n1"),
            layer("n3", "Row major linear FP32", "Row major linear FP32", "n3"),
        ],
        True,
        {"fp16": 0.5, "fp32": 0.5},
    ),
    "a weakly typed build that took FP32": (
        [layer("n1", "Float", "Float", "n1"), layer("n3", "Float", "Float", "n3")],
        False,
        {"fp32": 1.0},
    ),
    "reformats do no work": (
        [
            layer("Reformatting CopyNode for Input Tensor 0 to n1", "Float", "Half", kind="Reformat"),
            layer("n1", "Half", "Half", "n1"),
            layer("n3", "Half", "Float", "n3"),
        ],
        False,
        {"fp16": 1.0},
    ),
    "INT8 that was fused": ([layer("n1 + n3", "Int8", "Half", "n1\x1e[ONNX Layer: n3]")], False, {"unknown": 1.0}),
    "a region of a strongly typed build": (
        [layer(REGION, "Float", "Float", kind="Myelin")],
        True,
        {"fp16": 0.5, "fp32": 0.5},
    ),
    "a region that changes the type, weakly typed": (
        [layer(REGION, "Half", "Float", kind="Myelin")],
        False,
        {"unknown": 1.0},
    ),
}


@pytest.mark.parametrize("case", ENGINES)
def test_layers_of_an_engine(parsed: tuple[onnx.ModelProto, BuildResult], tmp_path: Path, case: str) -> None:
    model, result = parsed
    layers, typed, shares = ENGINES[case]
    (tmp_path / "layers.json").write_text(json.dumps({"Layers": layers}))
    told = replace(result, inspection=tmp_path / "layers.json", layers=result.layers if typed else ())
    found = obtained_precision(told, model)
    assert found.source == "layers of the engine"
    total = sum(item.macs for item in found.types)
    assert {item.type: item.macs / total for item in found.types if item.macs} == shares


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Row major linear FP16 format", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("BF16", "bf16"),
        ("FP8", "fp8"),
    ],
)
def test_words_of_the_inspector(words: str, kind: str) -> None:
    assert plain_type(words) == kind


def test_names_alone_tell_nothing(parsed: tuple[onnx.ModelProto, BuildResult], tmp_path: Path) -> None:
    """As trtexec writes them without detailed profiling."""
    model, result = parsed
    (tmp_path / "layers.json").write_text(json.dumps({"Layers": ["n1", "n3"]}))
    found = obtained_precision(replace(result, inspection=tmp_path / "layers.json", layers=()), model)
    assert found.share is None and "not measured" in found.statement
    assert share_failure(found, None, "net") is None
    assert "--min-share asks for 90 %" in str(share_failure(found, 0.9, "net"))


@pytest.mark.parametrize(
    ("types", "least", "fails"),
    [
        ([("fp16", 95), ("fp32", 5)], 0.95, False),
        ([("fp16", 94), ("fp32", 6)], 0.95, True),
        ([("int8", 95), ("fp32", 5)], 0.95, False),  # narrower fulfils it
        ([("unknown", 100)], None, False),  # may be in it
        ([("unknown", 100)], 0.5, True),  # is not shown to be
        ([("fp32", 100)], None, True),
    ],
)
def test_both_sides_of_the_gate(types: list[tuple[str, int]], least: float | None, fails: bool) -> None:
    found = ObtainedPrecision("fp16", "network as parsed", tuple(TypeShare(kind, 1, macs) for kind, macs in types))
    assert (share_failure(found, least, "net") is not None) == fails


def test_the_setting() -> None:
    assert make_config({"min_share": ["fp16=0.95,int8=.5"]}).min_share == {"fp16": 0.95, "int8": 0.5}
    assert flag_words("min_share", {"fp16": 0.95}) == ["--min-share", "fp16=0.95"]
    assert flag_words("max_fallback", {"nodes": 3}) == ["--max-fallback", "nodes=3"]
    for wrong in ("fp16", "fp16=", "fp16=2", "fp8=0.5", "fp32=1"):
        with pytest.raises(UsageError):
            make_config({"min_share": [wrong]})


@pytest.mark.parametrize(("share", "refused"), [("int8=0.5", True), ("fp16=0.5,int8=0", True), ("fp16=0.5", False)])
def test_a_share_of_what_is_not_built_is_refused(share: str, refused: bool, build: Build, tmp_path: Path) -> None:
    """It would be held against nothing, and the build would pass."""
    onnx.save(build(SIGNATURE, ONE_OF_TWO, **weights("a", "b", half="a")), tmp_path / "m.onnx")
    config = make_config({"min_share": [share], "precision": ["fp16"], "backend": "tensorrt-rtx"})
    context = Context(config, load_source(str(tmp_path / "m.onnx")), Workspace(tmp_path / "deploy"))
    with pytest.raises(UsageError, match="share of int8, which is not built") if refused else nullcontext():
        preflight(context)
