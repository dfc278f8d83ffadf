"""Build on a target over a real sshd, with a stand-in for trtexec of each version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_graphs import lrn_graph, save_graph
from onnx import TensorProto, helper

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import BuildFailedError, EnvironmentLacksError, OperationRejectedError, UsageError
from csa_deploy.precision.dla_placement import place_for_dla
from csa_deploy.precision.int8 import to_int8
from csa_deploy.records.device import LayerAverage
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.spec import TensorSpec
from csa_deploy.trtexec.builder import trtexec_build
from csa_deploy.trtexec.command import TimingRequest
from csa_deploy.trtexec.machine import open_machine
from csa_deploy.trtexec.runner import TrtexecRunner
from csa_deploy.trtexec.settings import TrtexecOptions

VERSIONS = ("8.6.13", "10.3.0", "11.1.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_build_over_ssh(sshd, trtexec: Callable[[str], Path], graph: Path, tmp_path: Path, version: str) -> None:
    config = sshd.config(
        workdir=str(tmp_path / "there"), trtexec=str(trtexec(version)), tensorrt=version, platform="drive-orin"
    )
    sent: list[tuple[int, int]] = []
    with open_machine(config) as machine:
        out = tmp_path / "here" / "net.engine"
        result = trtexec_build(
            machine,
            graph,
            out,
            BuildPlan(backend="trtexec", restricted=True),
            progress=lambda d, t: sent.append((d, t)),
        )
    assert out.read_bytes()[:4] == b"ftrt"
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "net.engine",
        "net.engine.layers.json",
        "net.engine.log",
    ]
    assert json.loads(result.inspection.read_text())["Layers"][0]["Metadata"] == "[ONNX Layer: /net/fc]"
    assert (result.version, result.build_seconds) == (version, 1.25)
    assert (result.compute_capabilities, result.machine["gpu"]) == (("8.7",), "Orin")  # as trtexec itself says
    assert sent[-1] == (graph.stat().st_size, graph.stat().st_size)
    assert list((tmp_path / "there").iterdir()) == []  # the target is left clean
    level = None if version.startswith("11") else "restricted-build"
    assert (result.restricted.level, result.restricted.accepted) == (level, level is not None)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_run_and_measure_over_ssh(
    sshd, trtexec: Callable[[str], Path], graph: Path, tmp_path: Path, version: str
) -> None:
    """The engine's outputs on the target are those of the graph here, to the last bit, for many samples in one job."""
    config = sshd.config(workdir=str(tmp_path / "there"), trtexec=str(trtexec(version)))
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(2)]
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    with open_machine(config) as machine:
        out = tmp_path / "net.engine"
        trtexec_build(machine, graph, out, BuildPlan(backend="trtexec"))
        with TrtexecRunner(out, nullcontext(machine), *specs) as runner:
            there = runner.run_all(samples)
            measured = runner.measure(samples[0], TimingRequest(iterations=7))
    with OnnxRuntimeRunner(graph, threads=1) as here:
        for sample, got in zip(samples, there, strict=True):
            assert np.array_equal(here.run(sample)["y"], got["y"])
    assert len(measured.samples_ms) == len(measured.compute_ms) == 7
    assert measured.layers == (LayerAverage("all", 1.0, 100.0),)
    assert measured.notes == ("clocks: not measured: the target does not show them",)
    assert measured.conditions["transfers"] is True
    assert list((tmp_path / "there").iterdir()) == []


@pytest.fixture
def here(trtexec: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """This machine with a trtexec of a version on its PATH."""

    def get(version: str) -> Any:
        monkeypatch.setenv("PATH", f"{trtexec(version).parent}:{os.environ['PATH']}")
        return open_machine(None)

    return get


def test_an_engine_of_another_version(here: Callable[[str], Any], graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.engine"
    with here("10.3.0") as machine:
        trtexec_build(machine, graph, out, BuildPlan(backend="trtexec"))
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    known = TrtexecRunner(out, here("10.10.0"), *specs, version="10.3.0")
    with pytest.raises(EnvironmentLacksError, match=r"built by TensorRT 10\.3\.0, this machine has 10\.10\.0"):
        known.__enter__()
    with TrtexecRunner(out, here("10.10.0"), *specs) as unknown, pytest.raises(EnvironmentLacksError) as caught:
        unknown.run({"x": np.zeros((1, 4), np.float32)})
    assert "built by another TensorRT version" in caught.value.message


@pytest.mark.shows("MEA-25", "ERR-20")
def test_a_truncated_engine(here: Callable[[str], Any], graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.engine"
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    with here("10.3.0") as machine:
        trtexec_build(machine, graph, out, BuildPlan(backend="trtexec"))
        out.write_bytes(out.read_bytes()[:-5])
        with TrtexecRunner(out, nullcontext(machine), *specs) as runner, pytest.raises(UsageError, match="cut short"):
            runner.run({"x": np.zeros((1, 4), np.float32)})


def test_a_failing_build_leaves_the_earlier_engine_and_the_log(
    here: Callable[[str], Any], graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.engine"
    out.write_bytes(b"earlier")
    monkeypatch.setenv("STANDIN_SAY", "Error[2]: OutOfMemory (no further information)")
    with here("10.3.0") as machine, pytest.raises(BuildFailedError, match="ran out of memory"):
        trtexec_build(machine, graph, out, BuildPlan(backend="trtexec"))
    assert out.read_bytes() == b"earlier"
    assert "OutOfMemory" in (tmp_path / "net.engine.log").read_text()


def test_a_layer_that_restricted_mode_refuses(here: Callable[[str], Any], tmp_path: Path) -> None:
    graph = lrn_graph(tmp_path / "lrn.onnx")
    with here("10.3.0") as machine, pytest.raises(OperationRejectedError, match="/net/lrn"):
        trtexec_build(machine, graph, tmp_path / "e", BuildPlan(backend="trtexec", restricted=True))


def test_the_graph_must_hold_the_precision(
    here: Callable[[str], Any], graph: Path, graph_fp16: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    with here("10.3.0") as machine:
        for path, precision in ((graph, "fp16"), (graph, "int8"), (graph_fp16, "fp32")):
            with pytest.raises(UsageError, match=f"is no {precision} graph"):
                trtexec_build(machine, path, out, BuildPlan(backend="trtexec", precision=precision))
        assert (
            trtexec_build(machine, graph_fp16, out, BuildPlan(backend="trtexec", precision="fp16")).inputs[0].dtype
            == "HALF"
        )
    with here("8.6.13") as machine:  # TensorRT 8 makes FP16 itself, of the FP32 graph
        result = trtexec_build(machine, graph, out, BuildPlan(backend="trtexec", precision="fp16"))
        assert "--fp16" in result.command
        assert not result.restricted.acts  # and checks the safety scope in its builds for DRIVE only


MISSING = "Missing scale and zero-point for tensor (Unnamed) y, expect fall back to non-int8 implementation"


def test_calibration_cache_and_timing_cache_travel(
    here: Callable[[str], Any], graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration, timings = tmp_path / "c.cache", tmp_path / "t.cache"
    calibration.write_text("TRT-8613-EntropyCalibration2\nx: 3c010a14\n")
    plan = BuildPlan(backend="trtexec", precision="int8", timing_cache=timings)
    with here("8.6.13") as machine:
        options = TrtexecOptions(calibration_cache=calibration)
        result = trtexec_build(machine, graph, tmp_path / "e", plan, options)
        assert timings.read_bytes() == b"timing cache of the stand-in"
        assert {"--calib=calibration.cache", "--timingCacheFile=timing.cache"} <= set(result.command)
        monkeypatch.setenv("STANDIN_WARN", f"[TRT] {MISSING}")
        result = trtexec_build(machine, graph, tmp_path / "e", plan, options)
        assert "INT8 of 1 tensors: not done: the calibration cache has no range for (Unnamed) y" in result.not_done
        with pytest.raises(UsageError, match="no such calibration cache"):
            trtexec_build(machine, graph, tmp_path / "e", plan, TrtexecOptions(calibration_cache=tmp_path / "missing"))


def test_weights_in_a_file_of_their_own_travel(
    sshd, trtexec: Callable[[str], Path], graph: Path, tmp_path: Path
) -> None:
    """A graph beyond 2 GB holds no weights itself."""
    model, apart = onnx.load(graph), tmp_path / "apart.onnx"
    onnx.save(model, apart, save_as_external_data=True, location="apart.onnx.data", size_threshold=0)
    assert apart.with_name("apart.onnx.data").stat().st_size == 4 * 3 * 4
    config = sshd.config(workdir=str(tmp_path / "there"), trtexec=str(trtexec("10.3.0")))
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    feeds = {"x": np.ones((1, 4), np.float32)}
    with open_machine(config) as machine:
        trtexec_build(machine, apart, tmp_path / "e", BuildPlan(backend="trtexec"))
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs) as runner:
            there = runner.run(feeds)
    with OnnxRuntimeRunner(graph, threads=1) as here:
        assert np.array_equal(here.run(feeds)["y"], there["y"])


def test_weights_that_would_lie_elsewhere_are_refused(here: Callable[[str], Any], graph: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(graph), apart, save_as_external_data=True, location="sub/w", size_threshold=0)
    with here("10.3.0") as machine, pytest.raises(UsageError, match="'sub/w' cannot be sent under that name"):
        trtexec_build(machine, apart, tmp_path / "e", BuildPlan(backend="trtexec"))


def test_a_graph_that_is_too_new_for_the_parser_is_refused(
    here: Callable[[str], Any], graph: Path, tmp_path: Path
) -> None:
    newer = onnx.load(graph)
    newer.opset_import[0].version = 18
    onnx.save(newer, tmp_path / "newer.onnx")
    with here("8.6.13") as machine, pytest.raises(UsageError) as caught:
        trtexec_build(machine, tmp_path / "newer.onnx", tmp_path / "e", BuildPlan(backend="trtexec"))
    assert "is of opset 18, TensorRT 8.6.13 takes up to 17" in caught.value.message
    with here("10.3.0") as machine:
        trtexec_build(machine, tmp_path / "newer.onnx", tmp_path / "e", BuildPlan(backend="trtexec"))


def test_dla_and_safety_builds_pass_what_they_are_asked_for(
    here: Callable[[str], Any], graph: Path, tmp_path: Path
) -> None:
    """Of the build; and of the run, which has to say again where it happens."""
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    plan = BuildPlan(backend="trtexec", precision="fp16", restricted=True)
    formats = {"input_formats": "fp16:chw16", "output_formats": "fp16:chw16"}
    with here("8.6.13") as machine:
        options = TrtexecOptions(dla_core=1, gpu_fallback=True, memory_pools={"dlaSRAM": 1})
        result = trtexec_build(machine, graph, tmp_path / "e", plan, options)
        assert {"--useDLACore=1", "--allowGPUFallback", "--memPoolSize=dlaSRAM:1", "--fp16"} <= set(result.command)
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs, options=options) as runner:
            assert runner.run({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 3)
            assert "--useDLACore=1" in runner._command("engine.plan", {}, None)
        loadable = TrtexecOptions(dla_core=0, dla_standalone=True, **formats)
        built = trtexec_build(machine, graph, tmp_path / "l", plan, loadable)
        assert {"--buildDLAStandalone", "--inputIOFormats=fp16:chw16"} <= set(built.command)
        assert (built.inputs[0].dtype, built.outputs[0].dtype) == ("HALF", "HALF")  # of the formats, not of the graph
        safe = trtexec_build(machine, graph, tmp_path / "s", plan, TrtexecOptions(safe=True))
        assert "--safe" in safe.command
        assert safe.restricted.evidence == "safety-build"
    with here("11.1.0") as machine, pytest.raises(UsageError, match="builds for no DLA"):
        trtexec_build(machine, graph, tmp_path / "e", BuildPlan(backend="trtexec"), options)


@pytest.mark.parametrize("version", ["8.6.13", "10.7.0"])
def test_dla_is_built_of_the_fp32_graph(
    here: Callable[[str], Any], graph: Path, graph_fp16: Path, tmp_path: Path, version: str
) -> None:
    plan, options = BuildPlan(backend="trtexec", precision="fp16"), TrtexecOptions(dla_core=0)
    with here(version) as machine:
        result = trtexec_build(machine, graph, tmp_path / "e", plan, options)
        assert "--fp16" in result.command and "--stronglyTyped" not in result.command
        assert any(f"TensorRT {version} builds this weakly typed" in said for said in result.not_done)
    if version.startswith("10"):
        with here(version) as machine, pytest.raises(UsageError, match="makes the precision itself"):
            trtexec_build(machine, graph_fp16, tmp_path / "e", plan, options)


def test_dla_of_11_4_1_takes_the_graph_as_it_is_typed(here: Callable[[str], Any], tmp_path: Path) -> None:
    """Q/DQ and FP16 of the graph, no precision flag, and formats without types; before 11.4.1 there is no DLA."""
    weight = {"w": np.ones((16, 16, 1, 1), np.float32)}
    shape = (TensorProto.FLOAT, [1, 16, 4, 4])
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    floating = onnx.load(save_graph(tmp_path / "f.onnx", [node], {"x": shape}, {"y": shape}, weight))
    placement, dla = place_for_dla(floating, half_io=True)
    model = tmp_path / "q.onnx"
    onnx.save(to_int8(floating, placement, dict.fromkeys(placement.tensors, 1.0), io=dla.io).model, model)
    plan = BuildPlan(backend="trtexec", precision="int8")
    with here("11.4.1") as machine:
        built = trtexec_build(machine, model, tmp_path / "e", plan, TrtexecOptions(dla_core=0, gpu_fallback=True))
        assert {"--useDLACore=0", "--allowGPUFallback"} <= set(built.command)
        assert not {"--fp16", "--int8", "--stronglyTyped"} & set(built.command)
        assert (built.inputs[0].dtype, built.outputs[0].dtype) == ("HALF", "HALF")
        formats = {"input_formats": "dla_linear", "output_formats": "chw16"}
        loadable = TrtexecOptions(dla_core=0, dla_standalone=True, **formats)
        built = trtexec_build(machine, model, tmp_path / "l", plan, loadable)
        assert {"--buildDLAStandalone", "--inputIOFormats=dla_linear", "--outputIOFormats=chw16"} <= set(built.command)
        other = TrtexecOptions(dla_core=0, dla_standalone=True, **{**formats, "output_formats": "chw32"})
        with pytest.raises(UsageError, match="a DLA loadable has no 'chw32' for 'y'"):
            trtexec_build(machine, model, tmp_path / "o", plan, other)
    with here("11.3.1") as machine, pytest.raises(UsageError, match="builds for no DLA"):
        trtexec_build(machine, model, tmp_path / "n", plan, TrtexecOptions(dla_core=0))


def test_a_safe_engine_is_timed_without_layers_and_a_loadable_not_at_all(
    here: Callable[[str], Any], graph: Path, tmp_path: Path
) -> None:
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    safe = TrtexecOptions(safe=True)
    with here("10.3.0") as machine:
        result = trtexec_build(machine, graph, tmp_path / "s", BuildPlan(backend="trtexec"), safe)
        assert result.inspection is None
        assert any("tells none of a safe engine" in said for said in result.not_done)
        with TrtexecRunner(tmp_path / "s", nullcontext(machine), *specs, options=safe) as runner:
            measured = runner.measure({"x": np.zeros((1, 4), np.float32)}, TimingRequest(iterations=3))
        assert (len(measured.samples_ms), measured.layers) == (3, ())
        formats = {"input_formats": "fp16:chw16", "output_formats": "fp16:chw16"}
        loadable = TrtexecOptions(dla_core=0, dla_standalone=True, **formats)
        with pytest.raises(EnvironmentLacksError, match="s is a DLA loadable"):
            TrtexecRunner(tmp_path / "s", nullcontext(machine), *specs, options=loadable)


def _two_outputs(path: Path, first: str, second: str) -> Path:
    nodes = [helper.make_node("Relu", ["x"], [first], name="/a"), helper.make_node("Neg", ["x"], [second], name="/b")]
    spec = (TensorProto.FLOAT, [1, 4])
    return save_graph(path, nodes, {"x": spec}, {first: spec, second: spec}, opset=17)


LONG = "features/" + "block/" * 20
NAMES = [("größe/é", "y"), (f"{LONG}1", f"{LONG}2"), *((("a" * n), "b" * n) for n in (119, 124, 130))]


@pytest.mark.parametrize("version", ["8.6.13", "10.12.0", "10.13.0", "11.1.0"])
@pytest.mark.parametrize(("first", "second"), NAMES)
def test_outputs_are_found_under_the_names_that_trtexec_makes(
    here: Callable[[str], Any], tmp_path: Path, version: str, first: str, second: str
) -> None:
    model = _two_outputs(tmp_path / "m.onnx", first, second)
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec(name, (1, 4), "float32") for name in (first, second)]
    x = np.array([[-1, 2, -3, 4]], np.float32)
    with here(version) as machine:
        trtexec_build(machine, model, tmp_path / "e", BuildPlan(backend="trtexec"))
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs) as runner:
            found = runner.run({"x": x})
    assert np.array_equal(found[first], np.maximum(x, 0)) and np.array_equal(found[second], -x)


def test_outputs_that_cutting_makes_alike_are_refused(here: Callable[[str], Any], tmp_path: Path) -> None:
    names = ["block/" * 15 + middle + "/block" * 15 for middle in "12"]
    model = _two_outputs(tmp_path / "m.onnx", *names)
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec(name, (1, 4), "float32") for name in names]
    feeds = {"x": np.zeros((1, 4), np.float32)}
    for version in ("10.12.0", "10.13.0"):
        with here(version) as machine:
            trtexec_build(machine, model, tmp_path / "e", BuildPlan(backend="trtexec"))
            with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs) as runner:
                if version == "10.12.0":
                    assert set(runner.run(feeds)) == set(names)
                else:
                    with pytest.raises(UsageError, match="two outputs to one file"):
                        runner.run(feeds)


@pytest.mark.parametrize(("version", "right", "wrong"), [("10.16.1", "fp32:chw", "chw"), ("11.0.0", "chw", "fp32:chw")])
def test_formats_in_the_grammar_of_the_version(
    here: Callable[[str], Any], graph: Path, tmp_path: Path, version: str, right: str, wrong: str
) -> None:
    with here(version) as machine:
        options = TrtexecOptions(input_formats=right, output_formats=right)
        result = trtexec_build(machine, graph, tmp_path / "e", BuildPlan(backend="trtexec"), options)
        assert f"--inputIOFormats={right}" in result.command
        with pytest.raises(UsageError, match="formats"):
            trtexec_build(
                machine, graph, tmp_path / "e", BuildPlan(backend="trtexec"), TrtexecOptions(input_formats=wrong)
            )


def test_a_version_compatible_engine_is_loaded_with_its_runtime(
    here: Callable[[str], Any], graph: Path, tmp_path: Path
) -> None:
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    options, feeds = TrtexecOptions(version_compatible=True), {"x": np.zeros((1, 4), np.float32)}
    with here("10.3.0") as machine:
        trtexec_build(machine, graph, tmp_path / "e", BuildPlan(backend="trtexec"), options)
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs, options=options) as runner:
            assert runner.run(feeds)["y"].shape == (1, 3)
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs) as without, pytest.raises(UsageError):
            without.run(feeds)


def test_clocks_that_change_are_told(
    here: Callable[[str], Any], graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(
        '#!/bin/sh\ncase $1 in *clocks*) n=$(cat "$0.n" 2>/dev/null || echo 1300); echo $((n + 10)) > "$0.n"; '
        'echo "$n MHz, 405 MHz" ;; *driver*) echo "550.1, Orin, 8.7" ;; esac\n'
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    specs = [TensorSpec("x", (1, 4), "float32")], [TensorSpec("y", (1, 3), "float32")]
    with here("10.3.0") as machine:
        result = trtexec_build(machine, graph, tmp_path / "e", BuildPlan(backend="trtexec"))
        assert (result.compute_capabilities, result.machine["driver"]) == (("8.7",), "550.1")
        with TrtexecRunner(tmp_path / "e", nullcontext(machine), *specs) as runner:
            notes = runner.measure({"x": np.zeros((1, 4), np.float32)}, TimingRequest()).notes
    assert "clock_sm changed during the measurement, from 1310 MHz, 405 MHz to 1320 MHz, 405 MHz" in notes[0]
