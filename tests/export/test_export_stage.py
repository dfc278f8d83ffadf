"""The export stage: gate, metadata, ONNX files taken in, and the sweep over input sizes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from csa_deploy import __version__
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import AccuracyGateError, CsaDeployError, UsageError
from csa_deploy.export.compare import compare, max_error
from csa_deploy.export.metadata import read_preprocessing, write_metadata
from csa_deploy.export.sweep import check_shapes, parse_sweep, sweep
from csa_deploy.network import Preprocessing
from csa_deploy.pipeline import run_stages
from csa_deploy.records.export import Difference
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.source import load_source
from csa_deploy.spec import TensorSpec
from csa_deploy.workspace import Workspace

DRIFTS = """
import torch
from torch import nn

class Drifts(nn.Module):
    '''Computes something else while it is exported.'''
    preprocessing = {"size": (16, 16)}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16)

    def forward(self, x):
        y = self.conv(x).flatten(1)
        return y + 0.01 if torch.compiler.is_exporting() or torch.jit.is_tracing() else y

def drifts():
    return Drifts()
"""


def export_once(lab: Path, network: str, root: str = "w", **settings: Any) -> tuple[Workspace, CsaDeployError | None]:
    config = make_config({"network": network, **settings})
    workspace = Workspace(lab / root)
    with workspace.locked():
        try:
            run_stages(["export"], Context(config, load_source(network), workspace))
        except AccuracyGateError as failure:
            return workspace, failure
    return workspace, None


@pytest.mark.shows("MEA-08", "ERR-06")
def test_a_graph_that_differs_from_pytorch_is_exit_6(lab: Path) -> None:
    (lab / "drifts.py").write_text(DRIFTS)
    spec = f"{lab / 'drifts.py'}:drifts"
    workspace, failure = export_once(lab, spec, exporter="torchscript")
    assert isinstance(failure, AccuracyGateError) and failure.exit_code == 6
    assert "output 'output' differs from PyTorch" in failure.message and "random inputs" in failure.message
    record = workspace.record("export")  # the evidence stays
    assert record["differences"][0]["max_abs_error"] == pytest.approx(0.01, rel=1e-3)
    assert workspace.stages["export"].passed is False
    workspace, failure = export_once(lab, spec, exporter="torchscript", export_tolerance=1.0)
    assert failure is None and workspace.stages["export"].passed


def test_the_file_says_where_it_came_from(digits: Any) -> None:
    record = digits.record("export")
    model = onnx.load(digits.root / record["graph"])
    stated = {p.key: p.value for p in model.metadata_props}
    assert stated["csa_deploy.version"] == __version__ and stated["csa_deploy.network"] == "csa_digits"
    assert stated["csa_deploy.source"] == "registry:csa_digits" and len(stated["csa_deploy.source_sha256"]) == 64
    assert stated["csa_deploy.torch"] == torch.__version__.split("+")[0] or stated["csa_deploy.torch"]
    preprocessing = read_preprocessing(model)
    assert preprocessing is not None and preprocessing.mode == "L" and preprocessing.size == (32, 32)
    assert preprocessing.classes == tuple("0123456789")
    assert str(digits.cwd) not in str(stated)


def test_the_comparison_with_pytorch_is_stated(digits: Any) -> None:
    record = digits.record("export")
    kinds = {d["inputs"]: d for d in record["differences"]}
    assert set(kinds) == {"random", "digits"} and record["exporter"] == "dynamo" and record["opset"] == 18
    for difference in kinds.values():
        assert 0 <= difference["relative"] < 1e-5 and difference["samples"] > 0


def test_two_exports_are_byte_identical(lab: Path) -> None:
    for root in ("a", "b/c"):
        export_once(lab, f"{lab / 'nets.py'}:tiny", root, exporter="torchscript", batch=2)
    first, second = (lab / r / "onnx/nets-tiny.onnx" for r in ("a", "b/c"))
    assert first.read_bytes() == second.read_bytes()
    assert str(lab).encode() not in first.read_bytes()


def test_an_onnx_file_is_taken_in(lab: Path) -> None:
    workspace, _ = export_once(lab, str(lab / "tiny.onnx"))
    record = workspace.record("export")
    assert record["exporter"] == "none" and record["differences"] == [] and "not compared" in record["summary"]
    assert "not compared with PyTorch: the source is an ONNX file" in record["notes"]
    assert record["preprocessing"]["size"] == [16, 16] and record["preprocessing"]["mode"] == "RGB"
    assert record["inputs"] == [{"name": "x", "shape": [1, 3, 16, 16], "dtype": "float32"}]


def test_what_csa_deploy_exported_keeps_its_preprocessing(digits: Any, lab: Path) -> None:
    (lab / "again.onnx").write_bytes((digits.root / "onnx/csa_digits.onnx").read_bytes())
    workspace, _ = export_once(lab, str(lab / "again.onnx"))
    assert workspace.record("export")["preprocessing"] == digits.record("export")["preprocessing"]


def test_several_outputs_are_all_described(lab: Path, make_tiny: Any) -> None:
    model = make_tiny()
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 8, 16, 16]))
    onnx.save(model, lab / "many.onnx")
    workspace, _ = export_once(lab, str(lab / "many.onnx"))
    assert [o["name"] for o in workspace.record("export")["outputs"]] == ["y", "r"]


@pytest.mark.parametrize("value", ["{", "[]", '{"size": 3}', '{"size": [1, 2], "mean": "x"}'])
def test_preprocessing_that_cannot_be_read_is_none(make_tiny: Any, value: str) -> None:
    model = make_tiny()
    model.metadata_props.add(key="csa_deploy.preprocessing", value=value)
    assert read_preprocessing(model) is None


def test_metadata_replaces_its_own_and_keeps_others(make_tiny: Any) -> None:
    model = make_tiny()
    model.metadata_props.add(key="author", value="someone")
    for version in ("1", "2"):
        write_metadata(model, {"version": version, "list": [1]}, Preprocessing((4, 5)))
    stated = {p.key: p.value for p in model.metadata_props}
    assert len(model.metadata_props) == len(stated) == 4
    assert (stated["author"], stated["csa_deploy.version"], stated["csa_deploy.list"]) == ("someone", "2", "[1]")
    assert read_preprocessing(model) == Preprocessing((4, 5))


def test_errors_between_arrays() -> None:
    nan, inf = float("nan"), float("inf")
    assert max_error(np.array([1.0, nan, inf]), np.array([1.5, nan, inf])) == 0.5
    assert max_error(np.array([1.0]), np.array([nan])) == inf
    assert max_error(np.array([inf]), np.array([-inf])) == inf
    assert max_error(np.ones((2, 1)), np.ones((1, 2))) == inf
    assert max_error(np.array([True, False]), np.array([True, True])) == 1.0
    assert Difference("y", "random", 1, 0.5, 0.0).relative == 0.5


def test_the_largest_difference_counts() -> None:
    class Fake:
        def __init__(self, shift: float) -> None:
            self.shift = shift

        def run(self, feeds: Any) -> dict[str, np.ndarray]:
            return {"y": feeds["x"] * 10 + self.shift * feeds["x"][0]}

    feeds = [{"x": np.array([v], "f4")} for v in (0.0, 1.0, 0.5)]
    (found,) = compare("random", Fake(0), Fake(0.5), feeds)  # type: ignore[arg-type]
    assert (found.max_abs_error, found.range, found.samples) == (0.5, 10.0, 3)


def test_values_that_are_not_finite_are_not_compared_and_the_sample_is_named(lab: Path) -> None:
    data = {"x": np.zeros((3, 3, 16, 16), "f4"), "labels": np.arange(3)}
    data["x"][1, 0, 2, 2] = np.nan
    np.savez(lab / "nan.npz", **data)
    workspace, failure = export_once(lab, f"{lab / 'nets.py'}:tiny", data=str(lab / "nan.npz"))
    record = workspace.record("export")
    assert failure is None and {d["inputs"] for d in record["differences"]} == {"random"}
    (note,) = [n for n in record["notes"] if n.startswith("not compared on real inputs: sample ")]
    assert note.endswith(f"of {lab / 'nan.npz'} holds values that are not finite")


def test_outputs_without_a_finite_value_have_no_range() -> None:
    class Nothing:
        def run(self, feeds: Any) -> dict[str, np.ndarray]:
            return {"y": np.full(2, np.nan, "f4")}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compare("random", Nothing(), Nothing(), [{"x": np.zeros(1)}])  # type: ignore[arg-type]
    assert (found.max_abs_error, found.range) == (0.0, 0.0)


def test_random_inputs_fit_their_types() -> None:
    feeds = random_feeds(
        [TensorSpec("f", (2, 3), "float32"), TensorSpec("i", (4,), "int64"), TensorSpec("b", (4,), "bool")], 0
    )
    assert {n: (a.shape, a.dtype.name) for n, a in feeds.items()} == {
        "f": ((2, 3), "float32"),
        "i": ((4,), "int64"),
        "b": ((4,), "bool"),
    }
    again = random_feeds([TensorSpec("f", (2, 3), "float32")], 0)["f"]
    assert np.array_equal(feeds["f"], again)


@pytest.mark.parametrize("text", ["", "1:2", "3:2:1", "1:2:0", "a:b:c", "1:2:3:4", "-1:2:1"])
def test_sweeps_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not START:STOP:STEP"):
        parse_sweep(text)


def test_a_sweep_holds_both_ends() -> None:
    assert parse_sweep("192:256:32") == [192, 224, 256] and parse_sweep("7:7:1") == [7]


def test_sweep_says_what_each_tool_said() -> None:
    config = make_config({"network": "csa_digits", "exporter": "torchscript"})
    rows = list(sweep(load_source("csa_digits"), config, [4, 32, 40]))
    assert [(row.size, row.agrees) for row in rows] == [(4, False), (32, True), (40, True)]
    assert rows[0].pytorch.startswith("refused: ") and "the smallest side is 8" in rows[0].pytorch
    assert rows[0].relative_error is None
    assert all(row.relative_error is not None and row.relative_error < 1e-5 for row in rows[1:])
    assert rows[1].to_json()["agrees"] is True


def test_shapes_that_disagree_are_named(make_tiny: Any) -> None:
    model = onnx.shape_inference.infer_shapes(make_tiny())
    assert check_shapes(model) == "ok"
    value = next(v for v in model.graph.value_info if v.name == "c")
    value.type.tensor_type.shape.dim[2].dim_value = 15
    assert check_shapes(model) == "c: [1, 8, 16, 16], PyTorch has [1, 8, 15, 16]"


def test_sweep_on_the_command_line(lab: Path, csa: Any) -> None:
    done = csa(lab, "export", "csa_digits", "--sweep", "4:12:4", "--exporter", "torchscript")
    assert done.returncode == 0, done.stderr
    assert "2 agree, 0 disagree, 1 refused" in done.stdout
    rows = json.loads((lab / "deploy/csa_digits/sweep.json").read_text())["rows"]
    assert [r["size"] for r in rows] == [4, 8, 12]


def test_weights_of_a_graph_are_not_touched(digits: Any) -> None:
    model = onnx.load(digits.root / "onnx/csa_digits.onnx")
    network = load_source("csa_digits").make_network()
    own = network.module.state_dict()
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in own}
    assert len(held) > 40 and all(np.array_equal(a, own[n].numpy()) for n, a in held.items())


UNKNOWN_OPERATOR = """
import torch
from torch import nn

class Bessel(nn.Module):
    example_inputs = {"x": torch.zeros(1, 3, 8, 8)}

    def forward(self, x):
        return torch.special.bessel_j0(x)

def bessel():
    return Bessel()
"""


def test_what_an_exporter_prints_in_native_code_stays_off_stdout(lab: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A result may be asked for as JSON there."""
    (lab / "bessel.py").write_text(UNKNOWN_OPERATOR)
    with pytest.raises(UsageError, match="bessel_j0"):
        export_once(lab, f"{lab / 'bessel.py'}:bessel")
    assert capfd.readouterr().out == ""


def test_an_opset_that_does_not_exist_is_known_before_the_export(lab: Path) -> None:
    (lab / "bessel.py").write_text(UNKNOWN_OPERATOR)
    with pytest.raises(UsageError, match=f"--opset 99: .* up to {onnx.defs.onnx_opset_version()}"):
        export_once(lab, f"{lab / 'bessel.py'}:bessel", opset=99)
