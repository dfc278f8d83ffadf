"""Both sides of what crosses a cut, for targets and versions, and the commands that a stand-in of trtexec takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import csa_deploy as csa
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.precision.trt_cache import cache_text, read_cache
from csa_deploy.records.split import SplitFinding, SplitPart
from csa_deploy.split.building import Builds, place_parts, plan_builds
from csa_deploy.trtexec.settings import parse_options
from csa_deploy.trtexec.versions import parse_version

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"
NVIDIA = {"encoder": "fp16@gpu", "boxes": "int8@dla0", "scores": "int8@dla1"}
"""The arrangement of NVIDIA's multi-task example."""

Made = tuple[csa.SplitNetwork, Path]


@pytest.fixture(scope="module")
def made(
    two_heads: Callable[..., onnx.ModelProto], samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Made]:
    """``made(opset, part)``: the network in parts, and the folder of its files; each made once."""
    known: dict[str, Made] = {}

    def make(opset: int = 18, part: dict[str, str] = NVIDIA, **settings: object) -> Made:
        key = repr((opset, part, settings))
        if key not in known:
            given = {"calib": samples, "search": False, "techniques": "none", **settings}
            found = csa.split(two_heads(opset), "f", part=part, **given)
            known[key] = found, found.save(tmp_path_factory.mktemp("parts"))
        return known[key]

    return make


def planned(made: Made, version: str, *options: str) -> Builds:
    return plan_builds(made[0].parts, made[1], parse_version(version), parse_options(options))


def kinds(findings: tuple[SplitFinding, ...]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where) for finding in findings]


def said(builds: Builds) -> tuple[str, list[str]]:
    """The two sides of the one tensor that crosses, without their scales."""
    (tensor,) = builds.crossing
    words = [f"{side.kind}:{side.layout}" for side in (tensor.producer, *tensor.consumers) if side]
    return words[0], words[1:]


def test_tensorrt_10_hands_int8_on(made: Callable[..., Made]) -> None:
    """The typed encoder quantizes; DLA takes the FP32 graph and a cache, whose scale is the encoder's to the bit."""
    builds = planned(made(), "10.3")
    assert said(builds) == ("int8:chw32", ["int8:chw32", "int8:chw32"]) and builds.findings == ()
    (tensor,) = builds.crossing
    assert tensor.bytes == 32 * 16 * 16
    scale = tensor.producer.scale if tensor.producer else None
    network, folder = made()
    cached = {part.name: read_cache(folder / part.cache)[1]["f"] for part in network.parts if part.cache}
    assert cached == {"boxes": scale, "scores": scale} and scale is not None
    encoder, boxes, scores = (build.command for build in builds.builds)
    assert "--outputIOFormats=int8:chw32" in encoder and "--stronglyTyped" in encoder
    assert {"--useDLACore=0", "--inputIOFormats=int8:chw32", "--outputIOFormats=fp16:dla_linear"} <= {*boxes}
    assert {"--int8", "--fp16", "--useDLACore=1", "--calib=calibration/net.scores.cache"} <= {*scores}
    assert "--onnx=onnx/net.scores.onnx" in scores and "--onnx=onnx/net.encoder.fp16.onnx" in encoder


def test_tensorrt_8_leaves_it_to_the_application(made: Callable[..., Made]) -> None:
    """As in NVIDIA's multi-task example: fp16:chw32 leaves, int8:chw32 enters, and a kernel quantizes between them."""
    builds = planned(made(17), "8.6.12")
    assert said(builds) == ("fp16:chw32", ["int8:chw32", "int8:chw32"])
    assert kinds(builds.findings) == [("converts", "f")]
    (finding,) = builds.findings
    scale = builds.crossing[0].consumers[0].scale
    assert "leaves encoder fp16:chw32" in finding.message and "boxes and scores int8:chw32" in finding.message
    assert scale is not None and f"round(x / {scale:.9g})" in finding.fix
    assert all(build.command for build in builds.builds)


def test_fp16_on_dla_has_its_own_format(made: Callable[..., Made]) -> None:
    builds = planned(made(part={"heads": "fp16@dla0"}), "10.3")
    assert said(builds) == ("fp16:chw16", ["fp16:chw16", "fp16:chw16"]) and builds.findings == ()
    assert "--outputIOFormats=fp16:chw16" in builds.builds[0].command


def test_heads_of_two_precisions_read_what_both_can(made: Callable[..., Made]) -> None:
    """One tensor cannot be INT8 for one head and FP16 for another: it crosses in FP16."""
    builds = planned(made(part={"boxes": "int8@dla0", "scores": "fp16@dla1"}), "10.3")
    assert said(builds) == ("fp16:chw16", ["fp16:chw16", "fp16:chw16"])
    assert kinds(builds.findings) == [("note", "boxes")]


def test_on_the_gpu_nothing_is_stated(made: Callable[..., Made]) -> None:
    builds = planned(made(part={}), "10.3")
    assert said(builds) == ("fp16:chw", ["fp16:chw", "fp16:chw"]) and builds.findings == ()
    assert not any("IOFormats" in word for build in builds.builds for word in build.command)


def test_an_fp32_encoder_of_a_dla_head_is_converted(made: Callable[..., Made]) -> None:
    builds = planned(made(part={"encoder": "fp32", "heads": "fp16@dla0"}), "10.3")
    assert said(builds) == ("fp32:chw", ["fp16:chw16", "fp16:chw16"])
    assert kinds(builds.findings) == [("converts", "f")] and "--part" in builds.findings[0].fix


@pytest.mark.parametrize("version", ["10.8", "11.1"])
def test_a_version_without_dla_builds_the_encoder_alone(made: Callable[..., Made], version: str) -> None:
    builds = planned(made(), version)
    assert [bool(build.command) for build in builds.builds] == [True, False, False]
    assert kinds(builds.findings) == [("not built", "boxes"), ("not built", "scores")]
    assert "builds for no DLA" in builds.findings[0].message


@pytest.mark.shows("MEA-26", "ERR-21")
def test_another_scale_in_one_head_is_found(made: Callable[..., Made], tmp_path: Path) -> None:
    """Both numbers are named; the head whose scale is right is not."""
    network, folder = made()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    cache = tmp_path / str(next(part.cache for part in network.parts if part.name == "boxes"))
    version, scales = read_cache(cache)
    next_scale = float(np.nextafter(np.float32(scales["f"]), np.float32(1)))
    cache.write_text(cache_text({**scales, "f": next_scale}, version=version))
    (finding,) = plan_builds(network.parts, tmp_path, parse_version("10.3")).findings
    assert (finding.kind, finding.where) == ("mismatch", "f") and "not one scale" in finding.message
    assert f"{scales['f']:.9g}" in finding.message and f"{next_scale:.9g}" in finding.message
    assert "boxes" in finding.message and "scores" not in finding.message


@pytest.mark.shows("MEA-26", "ERR-21")
def test_another_scale_in_a_typed_head_is_found(made: Callable[..., Made], tmp_path: Path) -> None:
    network, folder = made(part={"heads": "int8@gpu"})
    assert planned(made(part={"heads": "int8@gpu"}), "10.3").findings == ()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / next(part.graph for part in network.parts if part.name == "scores")
    model = load_model(path)
    (name,) = {n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == "f"}
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), name))
    save_model(model, path)
    (finding,) = plan_builds(network.parts, tmp_path, parse_version("10.3")).findings
    assert finding.kind == "mismatch" and "scores" in finding.message


def test_what_would_fall_back_is_named(made: Callable[..., Made], tmp_path: Path) -> None:
    """A Sigmoid runs on DLA, a Softplus does not; with --max-fallback it may."""
    network, folder = made()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    placements, findings = place_parts(network.parts, tmp_path, ["dla-orin"], {})
    assert [(p.part, p.verdict, p.fallbacks) for p in placements] == [
        ("boxes", "allowed", ()),
        ("scores", "allowed", ()),
    ]
    assert findings == []
    part: SplitPart = next(part for part in network.parts if part.name == "scores")
    model = load_model(tmp_path / part.floating)
    model.graph.node.append(helper.make_node("Softplus", ["scores"], ["more"], name="softplus"))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, (1, 2, 16, 16)))
    save_model(model, tmp_path / part.floating)
    placements, findings = place_parts([part], tmp_path, ["dla-orin"], {})
    assert [(f.kind, f.where) for f in findings] == [("falls back", "scores")] and "softplus" in findings[0].message
    assert place_parts([part], tmp_path, ["dla-orin"], {"nodes": 1})[1] == []
    assert place_parts([replace(part, setting=replace(part.setting, target="gpu"))], tmp_path, ["dla-orin"], {}) == (
        [],
        [],
    )


@pytest.mark.parametrize(("opset", "version"), [(17, "8.6.12"), (18, "10.3.0")])
def test_a_stand_in_of_trtexec_takes_the_commands(
    made: Callable[..., Made], opset: int, version: str, tmp_path: Path
) -> None:
    """With the options of that version; it knows nothing of formats in memory."""
    shutil.copytree(made(opset)[1], tmp_path, dirs_exist_ok=True)
    for build in planned(made(opset), version).builds:
        done = subprocess.run(
            [sys.executable, STANDIN, version, *build.command], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (engine,) = (word.partition("=")[2] for word in build.command if word.startswith("--saveEngine="))
        assert (tmp_path / engine).stat().st_size > 0
