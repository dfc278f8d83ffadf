"""Builds with the real TensorRT-RTX, in its real child process."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import conv_graph, lrn_graph, save_graph
from onnx import TensorProto, helper

from csa_deploy.engine import build as building
from csa_deploy.engine.backends import choose_backend
from csa_deploy.engine.build import build
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import BuildFailedError, EnvironmentLacksError, OperationRejectedError, UsageError
from csa_deploy.records.obtained import ObtainedPrecision
from csa_deploy.restricted.validator_install import validator_status

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed"),
]
RTX = BuildPlan(backend="tensorrt-rtx", restricted=True)


@pytest.fixture(scope="module")
def built(conv_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildResult, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    out = tmp_path_factory.mktemp("built") / "new" / "net.engine"
    return build(conv_fp32, out, RTX, lambda done, total: seen.append((done, total))), seen


def test_engine_and_its_evidence(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    result, _ = built
    engine = result.engine.read_bytes()
    assert (len(engine), hashlib.sha256(engine).hexdigest()) == (result.engine_bytes, result.engine_sha256)
    assert result.backend == "tensorrt-rtx"
    assert "8.6" in result.compute_capabilities
    assert [(t.name, t.dtype, t.shape) for t in (*result.inputs, *result.outputs)] == [
        ("x", "FLOAT", (1, 3, 8, 8)),
        ("y", "FLOAT", (1, 4, 8, 8)),
    ]
    assert [(layer.type, layer.onnx_node) for layer in result.layers if layer.onnx_node] == [
        ("CONVOLUTION", "/net/conv"),
        ("ACTIVATION", "/net/relu"),
        ("CAST", "/net/out"),
    ]
    assert result.layers[0].outputs[0].shape == (1, 4, 8, 8)
    assert result.peak_memory_bytes > 10**7
    assert result.build_seconds > 0
    assert sorted(path.name for path in result.engine.parent.iterdir()) == ["net.engine", "net.engine.log"]


def test_names_of_nodes_and_files_come_through_as_they_are(tmp_path: Path) -> None:
    spec = (TensorProto.FLOAT, [1, 3])
    names = ["/blocks[0]/act[1]", "名前 ]["]
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name=names[0]),
        helper.make_node("Neg", ["h"], ["y"], name=names[1]),
    ]
    folder = tmp_path / "a folder, ünï"
    folder.mkdir()
    result = build(save_graph(folder / "my net.onnx", nodes, {"x": spec}, {"y": spec}), folder / "my net.engine", RTX)
    assert [layer.onnx_node for layer in result.layers if layer.onnx_node] == names


def test_tf32_is_off(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    assert built[0].flags == ("SAFETY_SCOPE",)
    assert "TF32" not in built[0].log.read_text().split("Flags", 1)[1].splitlines()[0]


@pytest.mark.shows("MEA-06", "ERR-04", needs="TensorRT-RTX")
def test_an_ignored_flag_adds_no_evidence(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    restricted = built[0].restricted
    if restricted.acts:
        pytest.skip("this TensorRT-RTX checks the safety scope")
    assert restricted.accepted
    assert restricted.level is None
    assert "ignores it" in restricted.statement


def test_what_needs_a_device_is_said_not_done(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    if cuda_state().devices:
        pytest.skip("this machine has a CUDA device")
    assert built[0].inspection is None
    assert "not measured: no CUDA device" in built[0].not_done[0]


def test_progress_grows_to_its_end(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    seen = built[1]
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == (1000, 1000)


def test_json_holds_no_folder_of_this_machine(built: tuple[BuildResult, list[tuple[int, int]]]) -> None:
    text = json.dumps(built[0].stated((), ObtainedPrecision("fp32"), reproducible=True).to_json())
    assert str(built[0].engine.parent) not in text
    assert json.loads(text)["layer_counts"]["CONVOLUTION"] == 1


def test_same_graph_and_plan_give_the_same_bytes(
    built: tuple[BuildResult, list[tuple[int, int]]], conv_fp32: Path, tmp_path: Path
) -> None:
    """From another folder, under another name and over an older file."""
    copy = tmp_path / "renamed.onnx"
    copy.write_bytes(conv_fp32.read_bytes())
    out = tmp_path / "other.engine"
    out.write_bytes(b"older engine")
    assert build(copy, out, RTX).engine_sha256 == built[0].engine_sha256
    assert out.read_bytes() == built[0].engine.read_bytes()


def test_options_reach_the_builder(conv_fp16: Path, tmp_path: Path) -> None:
    plan = BuildPlan(
        backend="tensorrt-rtx",
        precision="fp16",
        compute_capabilities=("8.9", "8.6"),
        workspace_mib=512,
        optimization_level=1,
        timing_cache=tmp_path / "timing.cache",
    )
    result = build(conv_fp16, tmp_path / "net.engine", plan)
    log = result.log.read_text()
    assert result.compute_capabilities == ("8.9", "8.6")
    assert "WORKSPACE: 512.00 MiB" in log
    assert result.flags == ()
    assert result.dtype_counts["HALF"] >= 3
    assert any(note.startswith("timing cache: not used") for note in result.not_done)
    assert "not requested" in result.restricted.statement


def test_int8_needs_int8_tensors_in_the_graph(conv_fp32: Path, tmp_path: Path) -> None:
    spec = (TensorProto.FLOAT, [1, 4, 8, 8])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="/q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="/dq"),
    ]
    scales = {"s": np.float32(0.1), "z": np.int8(0)}
    graph = save_graph(
        tmp_path / "q.onnx", nodes, {"x": spec}, {"y": spec}, {name: np.asarray(v) for name, v in scales.items()}
    )
    plan = replace(RTX, precision="int8")
    assert build(graph, tmp_path / "q.engine", plan).dtype_counts["INT8"] >= 1
    with pytest.raises(UsageError, match="is no int8 graph: its tensors are FLOAT"):
        build(conv_fp32, tmp_path / "net.engine", plan)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.shows("MEA-23", "ERR-19")
def test_a_graph_of_another_precision_is_refused(
    conv_fp32: Path, conv_fp16: Path, tmp_path: Path, precision: str
) -> None:
    other = conv_fp32 if precision == "fp16" else conv_fp16
    with pytest.raises(UsageError, match=f"is no {precision} graph"):
        build(other, tmp_path / "net.engine", replace(RTX, precision=precision))


def test_unknown_compute_capability_lists_the_known(conv_fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"does not build for compute capability 8\.7 \| fix: use .*8\.6, 8\.9"
    ) as caught:
        build(conv_fp32, tmp_path / "net.engine", replace(RTX, compute_capabilities=("8.7",)))
    assert "current" in str(caught.value)


def test_current_capability_needs_a_device(conv_fp32: Path, tmp_path: Path) -> None:
    if cuda_state().devices:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EnvironmentLacksError, match="'current': no CUDA device"):
        build(conv_fp32, tmp_path / "net.engine", replace(RTX, compute_capabilities=("current",)))


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_what_is_no_onnx_is_a_usage_error(conv_fp32: Path, tmp_path: Path, content: bytes | None) -> None:
    model = tmp_path / "bad.onnx"
    model.write_bytes(conv_fp32.read_bytes()[:-30] if content is None else content)
    with pytest.raises(UsageError, match=r"bad\.onnx"):
        build(model, tmp_path / "net.engine", RTX)
    assert not (tmp_path / "net.engine").exists()


def test_missing_file_and_dynamic_axis(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        build(tmp_path / "missing.onnx", tmp_path / "net.engine", RTX)
    with pytest.raises(UsageError, match="axis 0 of input 'x' is dynamic"):
        build(conv_graph(tmp_path / "dynamic.onnx", batch="N"), tmp_path / "net.engine", RTX)


def test_the_failing_node_is_named(tmp_path: Path) -> None:
    spec = (TensorProto.FLOAT, [1, 3, 8, 8])
    node = helper.make_node("Foo", ["x"], ["y"], name="/net/foo", domain="my.ops")
    model = save_graph(tmp_path / "custom.onnx", [node], {"x": spec}, {"y": spec})
    with pytest.raises(BuildFailedError, match=r"custom\.onnx: Foo '/net/foo': .*Plugin not found") as caught:
        build(model, tmp_path / "net.engine", RTX)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["custom.onnx", "net.engine.log"]


@pytest.mark.shows("MEA-44", needs="TensorRT-RTX")
def test_a_failed_build_keeps_the_engine_that_was_there(tmp_path: Path) -> None:
    out = tmp_path / "net.engine"
    out.write_bytes(b"earlier")
    with pytest.raises(UsageError):
        build(conv_graph(tmp_path / "dynamic.onnx", batch="N"), out, RTX)
    assert out.read_bytes() == b"earlier"


def test_an_interrupt_ends_the_child_and_leaves_nothing(conv_fp32: Path, tmp_path: Path) -> None:
    children: list[int] = []
    others = child_ids()

    def interrupt(done: int, total: int) -> None:
        children.extend(child_ids() - others)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(conv_fp32, tmp_path / "net.engine", RTX, interrupt)
    assert len(children) == 1
    assert not Path(f"/proc/{children[0]}").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["net.engine.log"]


@pytest.mark.shows("MEA-44", needs="TensorRT-RTX")
def test_a_crash_of_the_builder_is_a_failed_build(conv_fp32: Path, tmp_path: Path) -> None:
    others = child_ids()

    def crash(done: int, total: int) -> None:
        for child in child_ids() - others:
            os.kill(child, signal.SIGSEGV)

    with pytest.raises(BuildFailedError, match="its process ended with SIGSEGV"):
        build(conv_fp32, tmp_path / "net.engine", RTX, crash)


def test_time_limit(conv_fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"within 0\.01 s"):
        build(conv_fp32, tmp_path / "net.engine", replace(RTX, time_limit_s=0.01))


def test_killing_the_parent_ends_the_child(conv_fp32: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from csa_deploy.engine.build import build
        from csa_deploy.engine.plan import BuildPlan
        def die(done, total):
            children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text()
            os.kill(int(children), signal.SIGSTOP)
            print(children, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        build(Path({str(conv_fp32)!r}), Path("net.engine").resolve(), BuildPlan(backend="tensorrt-rtx"), die)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    child = Path(f"/proc/{int(done.stdout)}")
    for _ in range(100):
        if not child.exists() or "Z" in child.joinpath("stat").read_text().split()[2]:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the build process outlived its parent")
    assert not (tmp_path / "net.engine").exists()
    assert build(conv_fp32, tmp_path / "net.engine", RTX).engine.is_file()
    assert not (tmp_path / ".net.engine.partial").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(conv_fp32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(EnvironmentLacksError, match="cannot write"):
        build(conv_fp32, folder / "net.engine", RTX)


def test_a_full_disk_is_one_line_and_leaves_no_engine(conv_fp32: Path, tmp_path: Path) -> None:
    """A limit on file sizes, which the build process inherits, stops the write of the engine half-way."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import resource
        from pathlib import Path
        from csa_deploy.engine.build import build
        from csa_deploy.engine.plan import BuildPlan
        from csa_deploy.errors import EnvironmentLacksError
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            build(Path({str(conv_fp32)!r}), Path("out/net.engine"), BuildPlan(backend="tensorrt-rtx"))
        except EnvironmentLacksError as error:
            print(error)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot write the engine into" in done.stdout
    assert "File too large" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net.engine.log"]


def test_an_output_that_cannot_be_written(conv_fp32: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError, match="cannot write"):
        build(conv_fp32, tmp_path / "file" / "net.engine", RTX)


def test_modules_in_the_working_directory_are_not_imported(
    conv_fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polygraphy.py").write_text("raise SystemExit('the wrong polygraphy')")
    monkeypatch.chdir(tmp_path)
    assert build(conv_fp32, Path("net.engine"), RTX).engine_bytes > 0


def test_auto_without_device_takes_rtx() -> None:
    if cuda_state().devices:
        pytest.skip("this machine has a CUDA device")
    assert choose_backend("auto").name == "tensorrt-rtx"
    with pytest.raises(EnvironmentLacksError, match=r"TensorRT: not installed.*pip install 'csa-deploy\[tensorrt\]'"):
        choose_backend("tensorrt")


def test_tensorrt_is_taken_where_a_device_is(
    conv_fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_driver: Callable[..., Path]
) -> None:
    """The whole TensorRT path against TensorRT-RTX's bindings under TensorRT's name, and a stand-in driver.

    It shows the choice, the options and the evidence; that TensorRT itself builds is shown only on a machine with one.
    """
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "tensorrt.py").write_text("from tensorrt_rtx import *\n__version__ = '10.3.0'\n")
    monkeypatch.syspath_prepend(str(shim))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(make_driver().parent))
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import json
        from pathlib import Path
        from csa_deploy.engine.build import build
        from csa_deploy.engine.plan import BuildPlan
        from csa_deploy.errors import UsageError
        from csa_deploy.records.obtained import ObtainedPrecision
        plan = BuildPlan(restricted=True, timing_cache=Path("t.cache"), compute_capabilities=("8.7",))
        made = build(Path({str(conv_fp32)!r}), Path("net.engine"), plan)
        print(json.dumps(made.stated((), ObtainedPrecision("fp32"), reproducible=True).to_json()))
        try:
            build(Path({str(conv_fp32)!r}), Path("net.engine"), BuildPlan(compute_capabilities=("8.6",)))
        except UsageError as error:
            print(error)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    result = json.loads(first)
    assert (result["backend"], result["version"], result["compute_capabilities"]) == ("tensorrt", "10.3.0", ["8.7"])
    assert result["flags"] == ["SAFETY_SCOPE"]
    assert result["restricted"]["level"] == "restricted-build"
    assert "TensorRT cannot load this engine on Orin" in result["not_done"][0]
    assert (tmp_path / "t.cache").is_file()
    assert "compute capability 8.7 only, 8.6 was asked for" in second


def test_a_version_that_checks_refuses_and_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TensorRT-RTX 1.4, whose safety-scope flag acts, in place of the installed version."""
    if not (status := validator_status()).installed:
        pytest.skip("NVIDIA's validator is not installed (csa-deploy doctor --install-validator)")
    # The validator holds the bindings only; the package around them says no more than this.
    package = tmp_path / "older" / "tensorrt_rtx" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n")
    for folder in (status.directory, package.parents[1]):
        monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(OperationRejectedError, match=r'Layer \{LRN\} "/net/lrn" failed safety scope validation'):
        build(lrn_graph(tmp_path / "lrn.onnx"), tmp_path / "lrn.engine", RTX)
    result = build(conv_graph(tmp_path / "conv.onnx"), tmp_path / "conv.engine", RTX)
    assert result.restricted.level == "validator"


def child_ids() -> set[int]:
    """Processes that this process has started and not yet reaped, but for those that multiprocessing keeps.

    Earlier tests may have left some (a cluster, servers of a fixture), so a test takes the difference.
    """
    tasks = Path("/proc/self/task").glob("*/children")
    found = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for t in tasks for child in t.read_text().split()}
    kept = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")
    return {child for child, line in found.items() if not any(words in line for words in kept)}


@pytest.fixture(scope="module")
def gemm_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's last layer, which TensorRT-RTX cannot build in FP32 for Turing."""
    weights = {"w": np.ones((64, 10), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="/head/fc")]
    inputs, outputs = {"x": (TensorProto.FLOAT, [1, 64])}, {"y": (TensorProto.FLOAT, [1, 10])}
    return save_graph(tmp_path_factory.mktemp("gemm") / "gemm.onnx", nodes, inputs, outputs, weights)


def test_gpu_that_cannot_be_built_for_is_left_out_with_the_reason(
    gemm_fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turing, which is among the GPUs to build for by default where this machine has one."""
    real = building._run

    def with_turing(backend: Any, model: Path, partial: Path, log: Path, plan: BuildPlan, *rest: Any) -> Any:
        capabilities = tuple(item for item in ("7.5", "8.6") if item not in rest[-1])
        return real(backend, model, partial, log, replace(plan, compute_capabilities=capabilities), *rest)

    monkeypatch.setattr(building, "_run", with_turing)
    result = build(gemm_fp32, tmp_path / "gemm.engine", BuildPlan(backend="tensorrt-rtx"))
    assert result.compute_capabilities == ("8.6",)
    assert result.not_done[0].startswith("not built for compute capability 7.5: ")
    assert "FP32 GEMM is not supported" in result.not_done[0]
    assert result.plan.compute_capabilities == ()


@pytest.mark.slow
def test_turing_is_built_on_request_only_and_its_share_of_the_engine_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many depth-wise convolutions, each with a kernel of its own for Turing."""
    weights = {f"w{i}": np.full((32 + i, 1, 3, 3), 0.1, np.float16) for i in range(24)}
    nodes, inputs, outputs = [], {}, {}
    for i in range(24):
        pads = {"pads": [1] * 4, "group": 32 + i}
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], name=f"conv{i}", **pads))
        inputs[f"x{i}"] = outputs[f"y{i}"] = (TensorProto.FLOAT16, [1, 32 + i, 16, 16])
    graph = save_graph(tmp_path / "depthwise.onnx", nodes, inputs, outputs, weights)
    monkeypatch.setattr(building, "_LARGE_BYTES", 0)
    usual = build(graph, tmp_path / "usual.engine", BuildPlan(backend="tensorrt-rtx", precision="fp16"))
    assert "7.5" not in usual.compute_capabilities and {"8.6", "8.9", "12.0"} <= set(usual.compute_capabilities)
    assert usual.size_note.startswith(f"{usual.engine_bytes / 2**20:.1f} MiB for ")
    assert "compute capability" not in usual.size_note
    asked = BuildPlan(backend="tensorrt-rtx", precision="fp16", compute_capabilities=("7.5", "8.6"))
    large = build(graph, tmp_path / "large.engine", asked)
    assert large.engine_bytes > 1.3 * usual.engine_bytes
    share = float(large.size_note.rpartition(":")[2].split()[0]) * 2**20
    alone = build(graph, tmp_path / "alone.engine", replace(asked, compute_capabilities=("8.6",)))
    assert abs(share - (large.engine_bytes - alone.engine_bytes)) < 2**17
    assert large.size_note.endswith("are for compute capability 7.5")


def test_gpu_that_was_asked_for_is_never_left_out(gemm_fp32: Path, tmp_path: Path) -> None:
    plan = BuildPlan(backend="tensorrt-rtx", compute_capabilities=("7.5", "8.6"))
    with pytest.raises(BuildFailedError, match="FP32 GEMM is not supported") as caught:
        build(gemm_fp32, tmp_path / "gemm.engine", plan)
    assert "leave 7.5 out" in str(caught.value.fix)
    assert not (tmp_path / "gemm.engine").exists()
