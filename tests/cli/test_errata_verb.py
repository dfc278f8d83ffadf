"""``errata``, ``check --errata`` and ``--fail-on`` as a user types them, and in the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

_UP = """<ir_version: 9, opset_import: ["" : 17]> g (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y)
<float[1, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
    y = ConvTranspose <strides = [2, 2], output_shape = [8, 8]> (x, w)
}"""
ID = "convolution.transpose-output-shape"


@pytest.fixture()
def net(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(_UP), tmp_path / "up.onnx")
    return tmp_path


def test_check_names_them_in_text_and_json(net: Path, typed: Any) -> None:
    said = typed(net, "check", "up.onnx", "--scope", "drive-os-7", "--errata", "--tensorrt", "10.13.3")
    assert ID in said.out and "1 known problem of TensorRT 10.13.3 (1 high)" in said.out
    for word in ("issues/1042, read 2026-11-29", "since unknown; no fix known", "(--fix)", "instead: state pads"):
        assert word in " ".join(said.out.split()), word
    said = typed(net, "check", "up.onnx", "--scope", "drive-os-7", "--errata", "--tensorrt", "10.13.3", "--json")
    assert [p["id"] for p in json.loads(said.out)["errata"]["problems"] if p["state"] == "affected"] == [ID]
    said = typed(net, "check", "up.onnx", "--scope", "drive-os-6", "--json")
    assert "errata" not in json.loads(said.out)


def test_they_inform_unless_they_are_to_fail(net: Path, typed: Any) -> None:
    plain = typed(net, "check", "up.onnx", "--scope", "drive-os-7", "--errata", "--tensorrt", "10.13.3")
    assert plain.code == 0
    for severity, code in (("high", 4), ("low", 4)):
        said = typed(net, "check", "up.onnx", "--scope", "drive-os-7", "--fail-on", severity, "--tensorrt", "10.13.3")
        assert said.code == code and ID in said.err
    said = typed(net, "check", "up.onnx", "--scope", "drive-os-7", "--fail-on", "high", "--tensorrt", "10.3")
    assert said.code == 0  # not ruled out decides nothing
    assert typed(net, "check", "up.onnx", "--fail-on", "awful").code == 2
    assert typed(net, "check", "up.onnx", "--errata", "--tensorrt", "9.1").code == 2


def test_fix_repairs_and_then_nothing_fails(net: Path, typed: Any) -> None:
    words = ("--scope", "drive-os-7", "--fail-on", "high", "--tensorrt", "10.13.3")
    assert typed(net, "check", "up.onnx", *words, "--fix", "--fixed", "out.onnx").code == 0
    assert typed(net, "check", "out.onnx", *words).code == 0
    assert not any(a.name == "output_shape" for a in onnx.load(net / "out.onnx").graph.node[0].attribute)


def test_listing_and_explaining(net: Path, typed: Any) -> None:
    every = json.loads(typed(net, "errata", "--json").out)
    assert len(every["problems"]) >= 40 and every["tensorrt"] == ""
    some = json.loads(typed(net, "errata", "--tensorrt", "8.6.12", "--json").out)
    assert 0 < len(some["problems"]) < len(every["problems"])
    assert "nothing is known about TensorRT 11.6" in typed(net, "errata", "--tensorrt", "11.6").err
    assert typed(net, "errata", "--tensorrt", "new").code == 2
    explained = typed(net, "errata", "--explain", ID).out
    assert explained == typed(net, "check", "--explain", ID).out
    for word in ("transpose_pads", "open when it was read on 2026-11-29", '"@output_shape"', "RTX 4090"):
        assert word in explained, word
    missing = typed(net, "errata", "--explain", "convolution.transpose-output-shap")
    assert missing.code == 2 and ID in missing.err


@pytest.mark.slow
def test_stages_record_them_and_repair_them(net: Path, typed: Any) -> None:
    from csa_deploy import check, repair

    def record() -> dict[str, Any]:
        return dict(json.loads((net / "ws" / "records" / "check.json").read_text()))

    report = check(str(net / "up.onnx"), "drive-os-7", errata="10.13.3", workspace=net / "ws")
    assert report.errata is not None and [p.id for p in report.errata.affected] == [ID]
    assert record()["errata"]["problems"][0]["id"] == ID and "1 known problem" in record()["summary"]
    said = typed(net, "report", "up.onnx", "--workspace", "ws")
    assert f"high {ID}" in said.out
    page = (net / "ws" / "report.html").read_text(encoding="utf-8")
    for word in ("Known problems of TensorRT", ID, "issues/1042", "--fix applies transpose_pads", "no fix known"):
        assert word in page, word
    fixed = repair(str(net / "up.onnx"), "drive-os-7", workspace=net / "ws", tensorrt="10.13.3")
    assert [step.rule for step in fixed.steps if step.kept] == ["transpose_pads"]
    assert [p["id"] for p in record()["errata"]["problems"] if p["state"] == "affected"] == []
