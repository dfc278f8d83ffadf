"""``csa-deploy check`` and ``csa-deploy rules`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from csa_deploy.restricted.reporters.formats import FORMATS

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
GRAPHS = {
    "allowed": "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu(x) }",
    "denied": "g (float[1,3,8,8] x) => (float[1,3,1,1] y) { a = Relu(x)\n y = GlobalAveragePool(a) }",
    "unknown": "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Exp(x) }",
    "lrn": "g (float[1,8,8,8] x) => (float[1,8,8,8] y) { y = LRN <size = 5> (x) }",
    "custom": 'g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Unheard(x) }',
    "cyclic": "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { a = Add(x, b)\n b = Relu(a)\n y = Relu(b) }",
    "twice": "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu(x)\n y = Sigmoid(x) }",
    "dynamic": "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu(x) }",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of each kind, and a Resize by NaN."""
    root = tmp_path_factory.mktemp("check")
    for name, graph in GRAPHS.items():
        onnx.save(parser.parse_model(HEADER + graph), root / f"{name}.onnx")
    nan = parser.parse_model(HEADER + "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Resize(x, , s) }")
    nan.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, np.nan, 1], np.float32), "s"))
    onnx.save(nan, root / "nan.onnx")
    return root


def check(csa: Any, folder: Path, name: str, *arguments: str) -> Any:
    done = csa(folder, "check", f"{name}.onnx", *arguments)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("name", "scope", "verdict", "code", "strict"),
    [
        ("allowed", "drive-os-6", "allowed", 0, 0),
        ("denied", "drive-os-6", "denied", 4, 4),
        ("unknown", "drive-os-6", "unknown", 0, 4),
        ("lrn", "drive-os-7", "denied", 4, 4),
        ("custom", "drive-os-7", "unknown", 0, 4),
        ("cyclic", "drive-os-6", "denied", 4, 4),
        ("twice", "dla-orin", "denied", 4, 4),
        ("dynamic", "drive-os-7", "denied", 4, 4),
        ("nan", "trt-11", "denied", 4, 4),
    ],
)
def test_verdict_and_exit_code(
    csa: Any, folder: Path, name: str, scope: str, verdict: str, code: int, strict: int
) -> None:
    done = check(csa, folder, name, "--scope", scope)
    assert done.returncode == code
    assert f"\n\n{scope}: {verdict} (evidence: " in done.stdout
    assert done.stdout.splitlines()[1].split()[:2] == [scope, verdict]
    errors = [line for line in done.stderr.splitlines() if line.startswith("csa-deploy: error: ")]
    assert len(errors) == (code != 0)
    assert check(csa, folder, name, "--scope", scope, "--strict", "-q").returncode == strict


def test_all_scopes_are_the_default_and_several_can_be_named(csa: Any, folder: Path) -> None:
    every = json.loads(check(csa, folder, "denied", "--format", "json").stdout)
    assert {"drive-os-6", "drive-os-6.0.9", "drive-os-7", "dla-orin", "dla-xavier", "trt-11"} <= {
        scope["scope"] for scope in every["scopes"]
    }
    two = check(csa, folder, "denied", "--scope", "dla-xavier", "--scope", "drive-os-6", "--format", "json")
    assert [scope["scope"] for scope in json.loads(two.stdout)["scopes"]] == ["dla-xavier", "drive-os-6"]


def test_a_finding_says_all_that_a_reviewer_asks(csa: Any, folder: Path) -> None:
    text = check(csa, folder, "denied", "--scope", "drive-os-6").stdout
    for words in ("denied reduce REDUCE", "GlobalAveragePool becomes", "at: y", "instead: ", "repair: ", "source: "):
        assert words in text
    assert "not known since when" in text


def test_fix_shows_the_difference_and_saves_what_is_allowed(csa: Any, folder: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "new" / "fixed.onnx"
    done = check(csa, folder, "denied", "--scope", "drive-os-6", "--fix", "--fixed", str(fixed))
    assert done.returncode == 0 and "\n\ndrive-os-6: allowed" in done.stdout
    for words in ("global_pool_to_pool", "AveragePool 0 -> 1", "GlobalAveragePool 1 -> 0", "denied -> allowed"):
        assert words in done.stderr
    assert [node.op_type for node in onnx.load(fixed).graph.node] == ["Relu", "AveragePool"]
    assert csa(folder, "check", str(fixed), "--scope", "drive-os-6", "--strict").returncode == 0


def test_verdicts_are_saved_as_metadata_of_the_graph_that_was_judged(csa: Any, folder: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    assert check(csa, folder, "denied", "--scope", "drive-os-6", "--annotate", str(before)).returncode == 4
    fix = ("--fix", "--fixed", str(tmp_path / "fixed.onnx"))
    assert check(csa, folder, "denied", "--scope", "drive-os-6", *fix, "--annotate", str(after)).returncode == 0
    for path, verdict, op in ((before, "denied", "GlobalAveragePool"), (after, "allowed", "AveragePool")):
        model = onnx.load(path)
        assert {e.key: e.value for e in model.metadata_props}["csa_deploy.check.drive-os-6"].startswith(verdict)
        assert op in [node.op_type for node in model.graph.node]


def test_an_annotated_graph_takes_no_network_s_place(csa: Any, folder: Path, tmp_path: Path) -> None:
    network = tmp_path / "mine.onnx"
    network.write_bytes((folder / "denied.onnx").read_bytes())
    (tmp_path / "link.onnx").symlink_to(network)
    for name in ("mine.onnx", "link.onnx"):
        done = csa(tmp_path, "check", "mine.onnx", "--scope", "drive-os-6", "--annotate", name)
        assert done.returncode == 2 and f"{name}: that is the network itself" in done.stderr
    assert network.read_bytes() == (folder / "denied.onnx").read_bytes()


def test_fix_promises_nothing_where_no_repair_is_exact(csa: Any, folder: Path, tmp_path: Path) -> None:
    done = check(csa, folder, "unknown", "--scope", "drive-os-6", "--fix", "--fixed", str(tmp_path / "same.onnx"))
    assert done.returncode == 0 and "nothing to repair" in done.stderr
    assert "repair:" not in done.stdout


def test_every_format_goes_to_standard_output_or_a_file(csa: Any, folder: Path, tmp_path: Path) -> None:
    for form in FORMATS:
        target = tmp_path / form
        assert check(csa, folder, "denied", "--scope", "drive-os-6", "--format", form, "-o", str(target)).stdout == ""
        assert ("denied" if form == "model-explorer" else "reduce") in target.read_text()
    sarif = json.loads((tmp_path / "sarif").read_text())
    assert sarif["runs"][0]["results"][0]["ruleId"] == "drive-os-6/reduce"
    assert ElementTree.parse(tmp_path / "junit").getroot().get("failures") == "1"
    printed = json.loads(check(csa, folder, "denied", "--scope", "drive-os-6", "--format", "json").stdout)
    assert printed.pop("error")["exit_code"] == 4
    assert printed == json.loads((tmp_path / "json").read_text())


def test_explain_and_rules(csa: Any, folder: Path) -> None:
    done = csa(folder, "check", "--explain", "drive-os-6/reduce")
    assert done.returncode == 0 and "evidence: code-comment" in done.stdout
    unknown = csa(folder, "check", "--explain", "reduse")
    assert unknown.returncode == 2 and "did you mean" in unknown.stderr
    packs = json.loads(csa(folder, "rules", "--json").stdout)["packs"]
    assert {"drive-os-7", "trt-11"} <= {pack["scope"] for pack in packs}
    assert "dla.convolution.buffer" in csa(folder, "rules", "dla-orin").stdout
    assert csa(folder, "rules", "nowhere").returncode == 2
    levels = csa(folder, "rules", "trt-11").stdout
    assert "not restricted-build: 11's trtexec has no --restricted" in levels and "reference-checked: " in levels
    told = json.loads(csa(folder, "rules", "trt-11", "--json").stdout)
    assert set(told["out_of_reach"]) == {"validator", "restricted-build"} and "safety-build" in told["reached_by"]


def test_a_build_meets_the_same_gate(csa: Any, folder: Path, tmp_path: Path) -> None:
    arguments = ("--restricted", "--scope", "drive-os-6", "--workspace", str(tmp_path))
    done = csa(folder, "build", "denied.onnx", *arguments)
    assert done.returncode == 4 and "denied in drive-os-6: reduce" in done.stderr
    assert not list(tmp_path.rglob("*.engine"))
