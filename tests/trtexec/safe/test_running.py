"""A safety engine on its target: timed and believed as trtexec_safe has to be; its values where something gives any."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from engine_graphs import save_graph
from safe_engines import built, opened
from trtexec_safe_standin import places

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.trtexec.command import TimingRequest
from csa_deploy.trtexec.safe.layout import layout_of, pack, unpack
from csa_deploy.trtexec.safe.runner import _EVIDENCE, SafeRunner


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x (1, 3, 4, 5) -> convolution -> y (1, 5, 4, 5)."""
    weights = {"w": np.random.default_rng(2).standard_normal((5, 3, 1, 1)).astype(np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="/conv")
    shapes = (TensorProto.FLOAT, [1, 3, 4, 5]), (TensorProto.FLOAT, [1, 5, 4, 5])
    folder = tmp_path_factory.mktemp("image")
    return save_graph(folder / "image.onnx", [node], {"x": shapes[0]}, {"y": shapes[1]}, weights, opset=17)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.16.0", "11.1.0", "11.3.1"])
def test_timed_by_trtexec_safe(thor: Callable, graph: Path, tmp_path: Path, version: str) -> None:
    target, out = thor(version), tmp_path / "net.engine"
    record = built(target, graph, out)
    feeds = {"x": np.ones((1, 4), np.float32)}
    with opened(target, out, record, values=False) as runner:
        assert isinstance(runner, SafeRunner)
        measured = runner.measure(feeds, TimingRequest(iterations=20, warmup_ms=200))
        assert runner.describe()["executes"].endswith("by trtexec_safe")
    assert len(measured.samples_ms) == len(measured.compute_ms) == 21  # an odd number, one a line
    assert all(host > gpu for host, gpu in zip(measured.samples_ms, measured.compute_ms, strict=True))
    assert float(np.median(measured.samples_ms)) < 2.0  # no delay kernel of --sleepTime, which is in every run
    assert measured.evidence == _EVIDENCE and measured.conditions["iterations"] == 21
    assert measured.conditions["transfers"] is False and measured.layers == ()
    assert target.work == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.16.0", "11.1.0", "11.3.1"])
def test_values_that_nothing_gives_are_not_compared(thor: Callable, graph: Path, tmp_path: Path, version: str) -> None:
    target, out = thor(version), tmp_path / "net.engine"
    record = built(target, graph, out)
    with pytest.raises(EnvironmentLacksError, match=f"not compared: trtexec_safe of TensorRT {version}") as caught:
        opened(target, out, record)
    assert "runtime/" in caught.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("version", ["11.0.0", "11.3.1"])
def test_values_equal_those_of_the_graph(thor: Callable, graph: Path, tmp_path: Path, version: str) -> None:
    """By what 11.0's trtexec_safe writes, and through the proxy runtime; several samples in one job."""
    target, out = thor(version), tmp_path / "net.engine"
    record = built(target, graph, out)
    if version != "11.0.0":
        there = target.folder / "proxy" / "trtexec"
        there.parent.mkdir()
        there.write_text((target.host / "trtexec").read_text())
        there.chmod(0o755)
        target.say(f"trtexec: {there}\n")
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(3)]
    with opened(target, out, record) as runner:
        got = runner.run_all(samples)
    with OnnxRuntimeRunner(graph, threads=1) as here:
        for sample, values in zip(samples, got, strict=True):
            assert np.array_equal(here.run(sample)["y"], values["y"])
    assert target.work == []


@pytest.mark.slow
@pytest.mark.parametrize("formats", ["chw4", "hwc8", "chw32"])
def test_inputs_and_outputs_lie_as_the_engine_has_them(
    thor: Callable, image: Path, tmp_path: Path, formats: str
) -> None:
    target, out = thor("11.0.0"), tmp_path / "net.engine"
    record = built(target, image, out, f"input_formats={formats}", f"output_formats={formats}")
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 4, 5)).astype(np.float32)}
    with opened(target, out, record) as runner:
        got = runner.run(feeds)["y"]
    with OnnxRuntimeRunner(image, threads=1) as here:
        assert np.array_equal(here.run(feeds)["y"], got)


@pytest.mark.parametrize("layout", ["chw", "chw2", "chw4", "chw16", "chw32", "hwc", "hwc8", "hwc16"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 16, 3, 1), (1, 17, 2, 2), (3, 2, 3), (1, 1, 1, 1)])
def test_layouts_against_counting(layout: str, shape: tuple[int, ...]) -> None:
    array = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    count, where = places(shape, layout)
    counted = np.zeros(count, np.float32)
    counted[where] = array.ravel()
    packed = pack(array, layout)
    assert np.array_equal(packed.ravel(), counted)
    assert np.array_equal(unpack(packed.ravel(), shape, layout), array)


def test_layouts_that_are_not_known() -> None:
    assert layout_of("fp16:chw16,fp32:chw", 1) == "chw" and layout_of("hwc8", 3) == "hwc8"
    for formats in ("dla_linear", "chw16+chw32", "cdhw32"):
        with pytest.raises(UsageError, match="lies in memory is not known"):
            layout_of(formats, 0)
    with pytest.raises(UsageError, match="has no layout chw4"):
        pack(np.zeros((1, 4), np.float32), "chw4")
    with pytest.raises(UsageError, match="3 values where layout chw4"):
        unpack(np.zeros(3, np.float32), (1, 3, 2, 2), "chw4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steered", "message"),
    [
        ("export STANDIN_SAFE_SAY='something is wrong'", "something is wrong"),  # FAILED with status 0
        ("export STANDIN_SAFE_ABORT='SAFE API Error: [graph->executeAsync]: UNSUPPORTED_STATE'", "UNSUPPORTED_STATE"),
        ("export STANDIN_SAFE_ABORT=nothing_else", "nothing_else"),
        ("export STANDIN_SAFE_QUIET=1", "ENABLE_NVLOG"),
        ("exit 0", "does not say that it passed"),
        (
            "echo '&&&& PASSED TensorRT.trtexec_safe' >&2; echo '[11/23/2026-04:00:00] [E] lost an input' >&2; exit 0",
            "lost an input",
        ),
    ],
)
def test_only_its_own_word_counts(thor: Callable, graph: Path, tmp_path: Path, steered: str, message: str) -> None:
    target, out = thor("11.1.0"), tmp_path / "net.engine"
    record = built(target, graph, out)
    target.say('tensorrt: "11.1.0"\n')
    steering = f'case "$*" in *nonexistent*) ;; *) {steered} ;; esac\n'  # not while it is asked for its version
    (target.folder / "environment").write_text(steering)
    with opened(target, out, record, values=False) as runner, pytest.raises(CsaDeployError) as caught:
        runner.measure({"x": np.ones((1, 4), np.float32)}, TimingRequest(iterations=3))
    assert message in caught.value.message and "\n" not in caught.value.message
    assert target.work == []


@pytest.mark.slow
def test_a_companion_of_another_build(thor: Callable, graph: Path, image: Path, tmp_path: Path) -> None:
    """The runtime refuses it; and so does csa-deploy, where a passport says what belongs together."""
    target, out = thor("11.3.1"), tmp_path / "net.engine"
    record = built(target, graph, out)
    companion = tmp_path / "net.engine.parts" / "generated_host_code.so"
    companion.write_bytes(companion.read_bytes().replace(b"stand-in ", b"stand-in 0"))
    with opened(target, out, record, values=False) as runner, pytest.raises(EnvironmentLacksError) as caught:
        runner.measure({"x": np.ones((1, 4), np.float32)}, TimingRequest(iterations=3))
    assert "companion of another engine" in caught.value.message


@pytest.mark.slow
def test_plugins_travel_in_the_build_of_the_target(
    thor: Callable, graph: Path, tmp_path: Path, libraries: Path
) -> None:
    target, out = thor("11.1.0"), tmp_path / "net.engine"
    for name in ("libp.so", "libp_safe.so"):
        (target.host / name).write_bytes(name.encode())
    target.say(f"safety_plugins: [{{build: '{target.host}/libp.so[::P]', run: '{target.host}/libp_safe.so[::P]'}}]\n")
    record = built(target, graph, out)
    assert f"--safetyPlugins={target.host}/libp.so[::P]" in record.command
    assert {(part.role, part.file, part.names) for part in record.parts} == {
        ("checker-blob", "engine.plan.txt", ""),
        ("plugin-build", "libp.so", "::P"),
        ("plugin-run", "libp_safe.so", "::P"),
    }
    with opened(target, out, record, values=False) as runner:
        assert runner.measure({"x": np.ones((1, 4), np.float32)}, TimingRequest(iterations=3)).samples_ms


@pytest.mark.slow
def test_a_target_without_anything_to_run_it(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target, out = thor("11.1.0"), tmp_path / "net.engine"
    record = built(target, graph, out)
    target.without("trtexec_safe")
    target.say('tensorrt: "11.1.0"\n')
    with opened(target, out, record, values=False) as runner, pytest.raises(EnvironmentLacksError, match="not timed"):
        runner.measure({"x": np.ones((1, 4), np.float32)}, TimingRequest(iterations=3))
