"""What a verdict is about: the graph that was built, or another one that is named; and scopes that fit the target."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from csa_deploy.config import make_config
from csa_deploy.engine.passport import read_passport
from csa_deploy.errors import UsageError
from csa_deploy.restricted.as_built import judged_graph
from csa_deploy.restricted.inspection import gate_scopes, inspect
from csa_deploy.restricted.schema import load_pack, scopes
from csa_deploy.restricted.scopes import (
    GATE_SCOPES,
    Platform,
    choose_gates,
    fitting,
    gates_of,
    judged_scopes,
    require_fit,
)
from csa_deploy.results import jsonable
from csa_deploy.trtexec.versions import parse_version
from csa_deploy.workspace import sha256_of

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
SCOPES = ("dla-orin", "drive-os-6", "drive-os-7")


def dla_model() -> onnx.ModelProto:
    """All of it runs on DLA, and is allowed in each GPU scope."""
    draw = np.random.default_rng(0)
    weights = {"w": 0.3 * draw.standard_normal((8, 3, 3, 3)), "v": draw.standard_normal((10, 8, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["p", "v"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10, 4, 4])],
        [numpy_helper.from_array(array.astype("f4"), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, csa: Callable[..., Any]) -> Iterator[tuple[Path, str]]:
    """The workspace of a run in all precisions under scopes of TensorRT 8.6 and 10, and what it printed."""
    folder = tmp_path_factory.mktemp("as_built")
    onnx.save(dla_model(), folder / "net.onnx")
    draw = np.random.default_rng(1)
    for name in ("data", "calib"):
        np.savez(folder / f"{name}.npz", x=draw.standard_normal((8, 3, 16, 16)).astype("f4"))
    flags = [word for scope in SCOPES for word in ("--scope", scope)]
    precisions = ("--fp32", "--fp16", "--int8", "--no-search", "--iterations", 3)
    given = ("--data", "data.npz", "--calib", "calib.npz", "--calib-samples", 8)
    done = csa(folder, "run", "net.onnx", "--restricted", *flags, *precisions, *given)
    assert done.returncode in (0, 6), done.stderr  # the accuracy of random weights is not the subject
    yield folder / "deploy" / "net", done.stdout + done.stderr


def entries(root: Path) -> dict[tuple[str, str], dict[str, str]]:
    engines = json.loads((root / "records" / "build.json").read_text())["engines"]
    return {(precision, entry["scope"]): entry for precision, made in engines.items() for entry in made["scopes"]}


@needs_rtx
@pytest.mark.shows("MEA-05", "ERR-03", needs="TensorRT-RTX")
def test_a_verdict_as_built_is_that_of_check_on_the_graph_of_the_passport(deployment: tuple[Path, str]) -> None:
    root, _ = deployment
    for (precision, scope), entry in entries(root).items():
        passport = read_passport(next(root.glob(f"engines/*.{precision}.engine.passport.json")))
        judged = root / "onnx" / entry["graph"]
        assert inspect(judged, [scope]).scopes[0].verdict == entry["verdict"]
        is_built = sha256_of(judged) == passport.graph.sha256
        assert is_built == (entry["of"] == ""), (precision, scope)
        assert entry in jsonable(passport.gates)


@needs_rtx
@pytest.mark.shows("MEA-05", "ERR-03", needs="TensorRT-RTX")
def test_dla_is_never_said_to_allow_the_quantized_graph(deployment: tuple[Path, str]) -> None:
    root, said = deployment
    found = entries(root)
    quantized = root / "onnx" / "net.int8.onnx"
    assert inspect(quantized, ["dla-orin"]).scopes[0].verdict == "denied"
    assert found["int8", "dla-orin"]["of"] == (
        "not the graph that was built: TensorRT 8.6.11 would build net.optimized.onnx with the INT8 flag and a "
        "calibration cache"
    )
    assert found["fp16", "dla-orin"]["of"].endswith("net.optimized.onnx with the FP16 flag")
    assert found["fp32", "dla-orin"]["of"] == ""
    assert found["int8", "drive-os-6"]["of"] == "" and found["int8", "drive-os-6"]["verdict"] == "unknown"
    assert found["int8", "drive-os-7"]["of"] == ""
    lines = [line for line in said.splitlines() if "restricted mode" in line]
    assert any("fp32 as built: dla-orin allowed (evidence: static)" in line for line in lines)
    assert not any("int8 as built: dla-orin" in line for line in lines)
    assert any("int8 (not the graph that was built: TensorRT 8.6.11 would build" in line for line in lines)


@needs_rtx
def test_the_page_says_what_was_judged(deployment: tuple[Path, str]) -> None:
    root, said = deployment
    page = (root / "report.html").read_text()
    assert "not the graph that was built" in page
    assert "asked for with --scope" in page and "asked for with --scope" in said


ORIN = {"platform": "drive-orin"}
FITTING = {
    "8.6.11": {"dla-orin", "drive-os-6"},
    "8.6.12": {"dla-orin", "dla-orin-8.6.12", "drive-os-6", "drive-os-6.0.9"},
    "8.6.13": {"dla-orin", "dla-orin-8.6.12", "drive-os-6", "drive-os-6.0.9", "drive-os-6.0.10"},
    "8.6.14": {"dla-orin", "dla-orin-8.6.12", "drive-os-6", "drive-os-6.0.9", "drive-os-6.0.10"},
    "8.6.15": {
        *("dla-orin", "dla-orin-8.6.12", "drive-os-6", "drive-os-6.0.9", "drive-os-6.0.10", "drive-os-6.12.1"),
    },
    "10.10.10": {"drive-os-7"},
    "11.3.1": set(),
}


@pytest.mark.parametrize("version", FITTING)
def test_the_scopes_that_speak_about_a_drive_orin(version: str) -> None:
    assert {pack.scope for pack in fitting(Platform("orin", "drive-orin", version))} == FITTING[version]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (None, GATE_SCOPES),
        (Platform("t", "drive-orin", "8.6.11"), ("drive-os-6",)),
        (Platform("t", "drive-orin", "8.6.12"), ("drive-os-6.0.9",)),
        (Platform("t", "drive-orin", "8.6.13"), ("drive-os-6.0.10",)),
        (Platform("t", "drive-orin", "8.6.14"), ("drive-os-6.0.10",)),
        (Platform("t", "drive-orin", "8.6.15"), ("drive-os-6.12.1",)),
        (Platform("t", "drive-orin", "8.6.13", dla=True), ("dla-orin-8.6.12",)),
        (Platform("t", "jetson-orin", "11.4.1"), ("trt-11",)),
        (Platform("t", "jetson-orin", "11.4.1", dla=True), ("dla-orin-11",)),
        (Platform("t", "jetson-orin", "11.3.1", dla=True), ()),
        (Platform("t", "drive-thor", "11.4.1", dla=True), ()),
        (Platform("t", "drive-orin", "11.4.1", dla=True), ()),
        (Platform("t", "drive-orin", "8.6"), ("drive-os-6",)),  # the patch is open: the narrower rules
        (Platform("t", "drive-orin", "8.6.12", dla=True), ("dla-orin-8.6.12",)),
        (Platform("t", "drive-orin", "10.10.10"), ("drive-os-7",)),
        (Platform("t", "drive-thor", "11.3.1"), ("trt-11",)),
        (Platform("t", "drive-thor", ""), ("drive-os-7",)),
        (Platform("t", "other", "8.6.12"), ("drive-os-6.0.9",)),
        (Platform("t", "workstation", "11.1"), ("trt-11",)),
    ],
)
def test_a_target_decides_which_scopes_decide(platform: Platform | None, expected: tuple[str, ...]) -> None:
    gates = choose_gates((), platform)
    assert gates.scopes == expected and gates.why
    assert gate_scopes((), platform) == list(expected)


def test_what_is_asked_for_decides_where_it_fits() -> None:
    assert choose_gates(["dla-orin"]).scopes == ("dla-orin",)
    assert choose_gates(["drive-os-6"], Platform("t", "drive-orin", "8.6.12")).scopes == ("drive-os-6",)


@pytest.mark.parametrize(
    ("scope", "platform"),
    [
        ("drive-os-7", Platform("orin", "drive-orin", "8.6.12")),
        ("drive-os-6.0.9", Platform("orin", "drive-orin", "8.6.11")),  # 8.6.11 takes less
        ("drive-os-6", Platform("orin", "drive-orin", "10.10")),
        ("trt-11", Platform("orin", "drive-orin", "8.6.12")),
        ("dla-orin", Platform("thor", "drive-thor", "11.0.1")),
        ("dla-xavier", Platform("orin", "jetson-orin", "")),
        ("dla-orin", Platform("pc", "workstation", "8.6.1")),
    ],
)
@pytest.mark.shows("MEA-05")
def test_a_scope_that_says_nothing_about_the_target_is_refused(scope: str, platform: Platform) -> None:
    with pytest.raises(UsageError) as caught:
        require_fit([scope], platform)
    assert scope in caught.value.message and platform.name in caught.value.message and caught.value.fix


def test_a_target_that_no_scope_fits(tmp_path: Path) -> None:
    """DLA of TensorRT 10 has no rules: it can be built for, and not with --restricted."""
    target = tmp_path / "t.yaml"
    target.write_text('host: jetson.invalid\nplatform: jetson-orin\ntensorrt: "10.3"\n')
    settings = {"target": str(target), "builder_option": ["dla_core=0"]}
    gates = gates_of(make_config(settings))
    assert gates.scopes == () and "no scope of DLA fits" in gates.why
    with pytest.raises(UsageError, match="no scope of DLA fits"):
        gates_of(make_config({**settings, "restricted": True}))


def test_every_pack_says_what_it_speaks_about() -> None:
    for scope in scopes():
        assert load_pack(scope).builders, scope


def test_nothing_runs_under_a_scope_of_another_tensorrt(csa: Callable[..., Any], tmp_path: Path) -> None:
    onnx.save(dla_model(), tmp_path / "net.onnx")
    (tmp_path / "t.yaml").write_text('host: nowhere.invalid\nplatform: drive-orin\ntensorrt: "8.6.12"\n')
    done = csa(tmp_path, "build", "net.onnx", "--target", "t.yaml", "--restricted", "--scope", "drive-os-7")
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and "drive-os-7" in errors[0] and "8.6.12" in errors[0] and "drive-os-6.0.9" in errors[0]
    assert not list(tmp_path.glob("deploy/*/records/*"))


class Files:
    """A context that knows the graphs of each precision."""

    def graphs(self) -> dict[str, str]:
        return {"fp32": "net.optimized.onnx", "fp16": "net.fp16.onnx", "int8": "net.int8.onnx"}

    def path(self, relative: str) -> Path:
        return Path(relative)


@pytest.mark.parametrize(
    ("builder", "precision", "built", "scope", "judged"),
    [
        # TensorRT 8.6 builds FP16 of the FP32 graph, and INT8 of the Q/DQ graph: these are what its scopes judge.
        ("8.6.12", "fp16", "net.optimized.onnx", "dla-orin", "net.optimized.onnx"),
        ("8.6.12", "int8", "net.int8.onnx", "dla-orin", "net.int8.onnx"),
        ("8.6.12", "int8", "net.optimized.onnx", "dla-orin", "net.optimized.onnx"),  # of a calibration cache
        ("8.6.12", "fp16", "net.optimized.onnx", "drive-os-7", "net.fp16.onnx"),
        # A builder of typed graphs stands in for 8.6.
        ("10.3.0", "fp16", "net.fp16.onnx", "drive-os-6", "net.optimized.onnx"),
        ("", "fp16", "net.fp16.onnx", "drive-os-6", "net.optimized.onnx"),
        ("", "int8", "net.int8.onnx", "drive-os-6", "net.int8.onnx"),
        ("", "int8", "net.int8.onnx", "dla-orin", "net.optimized.onnx"),
        ("", "fp16", "net.fp16.onnx", "drive-os-7", "net.fp16.onnx"),
        ("", "fp32", "net.optimized.onnx", "dla-orin", "net.optimized.onnx"),
    ],
)
def test_which_graph_a_scope_judges(builder: str, precision: str, built: str, scope: str, judged: str) -> None:
    machine = SimpleNamespace(version=parse_version(builder)) if builder else None
    made = SimpleNamespace(machine=machine)
    found, of = judged_graph(Files(), made, precision, Path(built), load_pack(scope))  # type: ignore[arg-type]
    assert found == Path(judged)
    assert (of == "") == (judged == built)
    assert of == "" or (of.startswith("not the graph that was built: TensorRT ") and judged in of)


@pytest.mark.parametrize(
    ("version", "judged", "deciding"),
    [
        ("8.6.11", {"dla-orin", "drive-os-6"}, ("drive-os-6",)),
        ("8.6.13", FITTING["8.6.13"], ("drive-os-6.0.10",)),
        ("8.6.15", FITTING["8.6.15"], ("drive-os-6.12.1",)),
        ("10.3", {"drive-os-7"}, ("drive-os-7",)),
        ("11.4.1", {"trt-11", "dla-orin-11"}, ("trt-11",)),
        ("11.3.1", {"trt-11"}, ("trt-11",)),
        ("8.6", set(), GATE_SCOPES),  # no version: as before, all are shown
        ("10", set(), GATE_SCOPES),
    ],
)
def test_a_version_without_a_target_chooses_scopes(version: str, judged: set[str], deciding: tuple[str, ...]) -> None:
    config = make_config({"tensorrt": version})
    assert set(judged_scopes(config)) == judged
    assert gates_of(config).scopes == deciding
    assert judged_scopes(make_config({"tensorrt": version, "scope": ["drive-os-7"]})) == ["drive-os-7"]


def test_a_version_with_a_dla_core_chooses_the_scope_of_dla() -> None:
    config = make_config({"tensorrt": "11.4.1", "builder_option": ["dla_core=0"]})
    assert gates_of(config).scopes == ("dla-orin-11",)


def test_a_scope_that_says_nothing_about_the_version_is_refused() -> None:
    with pytest.raises(UsageError, match=r"dla-orin-11 .* says nothing about --tensorrt"):
        gates_of(make_config({"tensorrt": "11.3.1", "scope": ["dla-orin-11"]}))
