"""A split network through the stages: as the command and as a function, against the uncut one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import csa_deploy as csa
from csa_deploy.cli.main import app
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import OperationRejectedError, UsageError
from csa_deploy.network_parts import PartSetting, setting_of
from csa_deploy.options import flag_words
from csa_deploy.pipeline import stage_key
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.source import load_source
from csa_deploy.stages import STAGES
from csa_deploy.verify.results import SAMPLES, read_results
from csa_deploy.workspace import Workspace

PARTS = ["encoder=fp16@gpu", "boxes=int8@dla0", "scores=int8@dla1"]


@pytest.fixture(scope="module")
def folder(
    two_heads: Callable[..., onnx.ModelProto], samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The network as a file, samples to compare on and others to calibrate on."""
    path = tmp_path_factory.mktemp("split")
    onnx.save(two_heads(), path / "net.onnx")
    np.savez(path / "data.npz", x=samples)
    np.savez(path / "calib.npz", x=np.random.default_rng(2).standard_normal((16, 3, 16, 16)).astype("f4"))
    return path


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Workspace:
    """After verify, profile and report."""
    words = [str(folder / "net.onnx"), "--workspace", str(folder / "made"), "--split", "f"]
    words += [word for part in PARTS for word in ("--part", part)]
    words += ["--data", str(folder / "data.npz"), "--calib", str(folder / "calib.npz"), "--no-search", "-q"]
    app(["verify", *words], standalone_mode=False)
    app(["profile", str(folder / "net.onnx"), "--workspace", str(folder / "made"), "--iterations", "3", "-q"],
        standalone_mode=False)  # fmt: skip
    app(["report", str(folder / "net.onnx"), "--workspace", str(folder / "made"), "-q"], standalone_mode=False)
    return Workspace(folder / "made")


@pytest.mark.shows("MEA-26")
def test_the_parts_give_the_bits_of_the_uncut_graph(workspace: Workspace) -> None:
    """On samples as on random inputs; the metrics of the chain are those of the graph that was cut."""
    record = workspace.read(SplitRecord)
    assert record.error == 0.0 and record.precision == "int8" and record.findings == ()
    results = read_results(workspace.root / SAMPLES)
    columns = {c.label: {o.name: o.columns for o in c.outputs} for c in results.candidates}
    assert columns["split"].keys() == {"boxes", "scores"}
    for output, metrics in columns["int8"].items():
        for name, column in metrics.items():
            np.testing.assert_array_equal(columns["split"][output][name], column)
    assert not np.array_equal(columns["split"]["boxes"]["snr_db"], columns["fp16"]["boxes"]["snr_db"])


def test_only_heads_are_int8(workspace: Workspace) -> None:
    record = workspace.read(SplitRecord)
    quantized = {
        part.name: sum(node.op_type == "DequantizeLinear" for node in onnx.load(workspace.root / part.graph).graph.node)
        for part in record.parts
    }
    assert quantized["encoder"] == 0 and min(quantized["boxes"], quantized["scores"]) > 2
    (crossing,) = onnx.load(workspace.root / record.parts[0].graph).graph.output
    assert (crossing.name, crossing.type.tensor_type.elem_type) == ("f", onnx.TensorProto.INT8)


def test_every_stage_knows_the_chain(workspace: Workspace, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    candidates = {one.label: one for one in workspace.read(VerifyRecord).candidates}
    assert candidates["split"].precision == "int8" and candidates["split"].runner["parts"].keys() == {
        "encoder",
        "boxes",
        "scores",
    }
    assert workspace.measured("profile")["latency"]["split"]["percentiles_ms"]["50"] > 0
    page = (workspace.root / "report.html").read_text()
    assert "What crosses the cut" in page and "trtexec --onnx=onnx/net.boxes.onnx" in page
    network = str(folder / "net.onnx")
    app(["build", network, "--workspace", str(workspace.root), "--dry-run", "-q"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "# boxes: int8@dla0, trtexec of TensorRT 10.3.0" in printed and "dla-orin: allowed" in printed
    assert printed.count("\ntrtexec --onnx=") == 3


def test_a_record_survives_its_type_to_the_byte(workspace: Workspace) -> None:
    text = (workspace.root / "records/split.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(workspace.read(SplitRecord).to_json()))


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({}, set()),
        ({"part": ["encoder=fp16@gpu", "boxes=int8@dla1", "scores=int8@dla1"]}, {"split"}),
        ({"part": ["heads=fp16"]}, {"precision", "split"}),
        ({"scope": ["dla-xavier"]}, {"split"}),
        ({"max_fallback": ["nodes=1"]}, {"split"}),
        ({"tensorrt": "11"}, {"split"}),
        ({"iterations": 9}, set()),
    ],
)
def test_what_decides_the_parts(
    workspace: Workspace, folder: Path, changed: dict[str, object], stages: set[str]
) -> None:
    """Another target leaves the typed graphs as they are."""
    base = {"network": str(folder / "net.onnx"), "split": ["f"], "part": PARTS, "precision": ["fp32", "fp16", "int8"]}
    base |= {"data": str(folder / "data.npz"), "calib": str(folder / "calib.npz")}

    def keys(settings: dict[str, object]) -> dict[str, str]:
        context = Context(make_config(settings), load_source(str(folder / "net.onnx")), workspace)
        return {name: stage_key(STAGES[name], context) for name in ("optimize", "precision", "split")}

    before, after = keys(base), keys({**base, "precision": ["fp32", "fp16", "int8"], **changed})
    assert {name for name in before if before[name] != after[name]} == stages


def test_without_split_the_parts_are_gone(workspace: Workspace, folder: Path) -> None:
    again = folder / "again"
    words = ["verify", str(folder / "net.onnx"), "--workspace", str(again), "--data", str(folder / "data.npz"), "-q"]
    app([*words, "--split", "f"], standalone_mode=False)
    assert "split" in {one.label for one in Workspace(again).read(VerifyRecord).candidates}
    manifest = json.loads((again / "manifest.json").read_text())
    manifest["config"] |= {"split": [], "part": {}}
    (again / "manifest.json").write_text(json.dumps(manifest))
    app(words, standalone_mode=False)
    assert "split" not in {one.label for one in Workspace(again).read(VerifyRecord).candidates}
    assert Workspace(again).find(SplitRecord) is None


@pytest.mark.slow
def test_restricted_mode_judges_each_part_by_its_target(
    build: Callable[..., onnx.ModelProto], folder: Path, tmp_path: Path
) -> None:
    """The encoder holds what a DLA does not run; the head does in one network and not in the other."""
    weights = {"first": (16, 3, 3, 3), "second": (4, 16, 1, 1)}
    body = "c = Conv<pads = [1, 1, 1, 1]>(x, first) f = {} h = Conv(f, second) y = {}"
    for name, first, last in (("good", "Softplus(c)", "Relu(h)"), ("bad", "Relu(c)", "Softplus(h)")):
        signature = "(float[1,3,16,16] x) => (float[1,4,16,16] y)"
        onnx.save(build(signature, body.format(first, last), **weights), tmp_path / f"{name}.onnx")
    asked = ["--split", "f", "--part", "y=fp16@dla0", "--restricted", "--scope", "dla-orin", "--no-localize", "-q"]
    words = ["run", str(tmp_path / "good.onnx"), *asked, "--data", str(folder / "data.npz"), "--iterations", "2"]
    app([*words, "--workspace", str(tmp_path / "good")], standalone_mode=False)
    data = json.loads((tmp_path / "good/report.json").read_text())
    gates = [check for check in data["verdict"]["checks"] if check["name"] == "restricted mode"]
    assert [(gate["state"], "y on its DLA: dla-orin allowed" in gate["text"]) for gate in gates] == [("pass", True)]
    with pytest.raises(OperationRejectedError, match=r"y on dla0, by dla-orin: .*Softplus"):
        csa.split(tmp_path / "bad.onnx", "f", part={"y": "fp16@dla0"}, restricted=True)
    found = csa.split(tmp_path / "bad.onnx", "f", part={"y": "fp16@dla0"})  # without it, it is said
    assert [finding.kind for finding in found.findings] == ["falls back"]
    assert not csa.split(tmp_path / "bad.onnx", "f", part={"y": "fp16@dla0"}, max_fallback=["nodes=1"]).findings


def test_the_function_does_what_the_stages_do(
    two_heads: Callable[..., onnx.ModelProto], samples: np.ndarray, tmp_path: Path
) -> None:
    network = two_heads()
    calib = np.random.default_rng(2).standard_normal((16, 3, 16, 16)).astype("f4")
    found = csa.split(network, ["f"], part=PARTS, calib=calib, search=False, techniques="none")
    assert [part.name for part in found.parts] == ["encoder", "boxes", "scores"] and not found.findings
    assert found.boundaries[0].name == "f" and set(found.commands) == set(found.graphs)
    result = csa.compare(
        network, {"int8": csa.quantize(network, calib=calib, search=False), "split": found}, data=samples
    )
    assert [one.candidate for one in result.outputs] == ["int8", "int8", "split", "split"]
    metrics = {(one.candidate, one.output): one.metrics["snr_db"] for one in result.outputs}
    assert metrics["split", "boxes"] > metrics["int8", "boxes"]  # its encoder is FP16
    back = csa.SplitNetwork.from_json(json.loads(json.dumps(found.to_json())))
    assert back == found and back.rows() == found.rows()
    with pytest.raises(UsageError, match="without its graphs"):
        back.save(tmp_path)


def test_a_quantized_graph_is_cut_as_it_is(two_heads: Callable[..., onnx.ModelProto], samples: np.ndarray) -> None:
    network = two_heads()
    typed = csa.quantize(network, calib=samples, search=False, techniques="none")
    found = csa.split(typed, "f", part={"encoder": "int8", "heads": "int8"})
    assert found.report.error == 0.0 and not found.findings
    names = [node.output[0] for graph in found.graphs.values() for node in graph.graph.node]
    assert {o for node in typed.graph.graph.node for o in node.output} <= {*names, "f", "f_int8"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": ["f"], "part": ["heads=int4"]}, "is not NAME=PRECISION@TARGET"),
        ({"split": ["f"], "part": ["heads=int8@dla2"]}, "is not NAME=PRECISION@TARGET"),
        ({"split": ["f"], "part": ["=int8"]}, "is not NAME=PRECISION@TARGET"),
        ({"split": ["f"], "part": ["heads=fp32@dla0"]}, "DLA computes in FP16 or INT8"),
        ({"split": ["f"], "part": ["heads=int8", "heads=fp16"]}, "given twice"),
        ({"part": ["heads=int8"]}, "--part is about a split network"),
    ],
)
def test_settings_that_say_nothing(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(given)


def test_settings_of_parts() -> None:
    config = make_config({"split": "a,b", "part": ["encoder=FP16", "y+z=int8@dla1", "heads=int8@dla0"]})
    assert config.split == ("a", "b") and config.precision == ("fp32", "fp16", "int8")
    assert "equalization" not in config.techniques and "equalization" in make_config({"split": "a"}).techniques
    asked = {name: setting_of(config.part, name, name.split("+")) for name in ("encoder", "y+z", "x+y+z", "x")}
    assert {name: str(setting) for name, setting in asked.items()} == {
        "encoder": "fp16@gpu",
        "y+z": "int8@dla1",
        "x+y+z": "int8@dla1",
        "x": "int8@dla0",
    }
    assert setting_of({}, "x", ["x"]) == PartSetting("fp16", "gpu")
    assert make_config({"split": "a", "part": flag_words("part", config.part)[1::2]}).part == config.part
    with pytest.raises(UsageError, match="'y\\+z' is one part, and is to be"):
        setting_of({"y": "int8@dla0", "z": "fp16@gpu"}, "y+z", ["y", "z"])
