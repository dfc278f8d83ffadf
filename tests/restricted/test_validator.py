"""NVIDIA's validator in its child process: every answer that it can give."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper, save

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.restricted.validator import ValidatorSession, validate, validator_status
from csa_deploy.restricted.validator_install import VERSION

needs_validator = pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")

HELLO = f"""
import json, os, sys, time
print(json.dumps({{"version": "{VERSION}"}}), flush=True)
for line in sys.stdin:
    wish = json.loads(line)["wish"]
    if wish == "abort":
        print("terminate called", file=sys.stderr, flush=True)
        os.abort()
    if wish == "sleep":
        time.sleep(60)
    print(json.dumps({{"parsed": True, "reached_build": True, "built": False, "rows": []}}), flush=True)
"""


def model(op: str, dtype: int = TensorProto.FLOAT, shape: tuple = (1, 3, 8, 8), **attributes: object) -> ModelProto:
    node = helper.make_node(op, ["x"], ["y"], name="the_node", **attributes)
    out = attributes.get("to", dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", out, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def saved(folder: Path, made: ModelProto) -> Path:
    path = folder / "model.onnx"
    save(made, path)
    return path


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, Path]:
    """A directory that looks installed, and a child that does as it is told."""
    site = tmp_path / "site"
    for part in ("libs", "bindings"):
        folder = site / f"tensorrt_rtx_cu13_{part}-{VERSION}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Name: x\n")
    child = tmp_path / "child.py"
    child.write_text(HELLO)
    return {"directory": site, "child": child}


@needs_validator
def test_relu_is_accepted(tmp_path):
    verdict = validate(saved(tmp_path, model("Relu")))
    assert (verdict.answer, verdict.is_pass, verdict.refused, verdict.version) == ("accepted", True, (), VERSION)
    assert verdict.seconds > 0


@needs_validator
def test_lrn_is_refused_by_name(tmp_path):
    verdict = validate(saved(tmp_path, model("LRN", size=3)))
    assert (verdict.answer, verdict.is_pass) == ("refused", False)
    assert [(item.layer, item.name) for item in verdict.refused] == [("LRN", "the_node")]
    assert "LRN" in verdict.reason


@needs_validator
def test_bfloat16_is_refused_with_the_limits(tmp_path):
    verdict = validate(saved(tmp_path, model("Cast", to=TensorProto.BFLOAT16)))
    assert {item.layer for item in verdict.refused} == {"Network", "Cast"}
    assert all("Limit" in reason for item in verdict.refused for reason in item.reasons)
    assert all(item.reasons for item in verdict.refused)


@needs_validator
@pytest.mark.parametrize("op", ["Relu", "LRN"])
@pytest.mark.shows("MEA-03", needs="NVIDIA's validator")
def test_dynamic_shapes_are_skipped_which_is_no_pass(tmp_path, op):
    attributes = {"size": 3} if op == "LRN" else {}
    verdict = validate(saved(tmp_path, model(op, shape=("batch", 3, 8, 8), **attributes)))
    assert (verdict.answer, verdict.is_pass) == ("skipped", False)
    assert "skipped" in verdict.reason


@needs_validator
def test_what_is_no_model_is_not_parsed(tmp_path):
    path = saved(tmp_path, model("Relu"))
    path.write_bytes(path.read_bytes()[:-9])
    verdict = validate(path)
    assert verdict.answer == "not-parsed"
    assert "parse" in verdict.reason


@needs_validator
def test_an_operator_without_importer_is_not_parsed(tmp_path):
    verdict = validate(saved(tmp_path, model("Det", shape=(8, 8))))
    assert verdict.answer == "not-parsed"
    assert "the_node" in verdict.reason


@needs_validator
def test_a_name_that_is_not_utf8_is_not_parsed(tmp_path):
    path = saved(tmp_path, model("Det", shape=(8, 8)))
    path.write_bytes(path.read_bytes().replace(b"the_node", b"the\xff\xfeode"))
    verdict = validate(path)
    assert verdict.answer == "not-parsed"
    assert "UTF-8" in verdict.reason


@needs_validator
def test_one_session_answers_many(tmp_path):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    save(model("Relu"), good)
    save(model("LRN", size=3), bad)
    with ValidatorSession() as session:
        answers = [session.ask({"model": str(path)}).answer for path in (good, bad, good)]
    assert answers == ["accepted", "refused", "accepted"]


def test_without_the_validator_nothing_is_claimed(tmp_path):
    verdict = validate(saved(tmp_path, model("Relu")), directory=tmp_path / "nowhere")
    assert (verdict.answer, verdict.is_pass) == ("not-available", False)
    assert "install-validator" in verdict.reason
    with pytest.raises(EnvironmentLacksError, match="not installed"):
        ValidatorSession(tmp_path / "nowhere")


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such model"):
        validate(tmp_path / "missing.onnx")


def test_an_unknown_compute_capability_is_a_usage_error(fake):
    with pytest.raises(UsageError, match=r"8\.7"):
        ValidatorSession(**fake, compute_capability="8.7")


def test_a_crash_is_an_answer_and_the_session_goes_on(fake):
    with ValidatorSession(**fake) as session:
        crashed = session.ask({"wish": "abort"})
        assert (crashed.answer, crashed.is_pass) == ("crashed", False)
        assert crashed.reason == "signal SIGABRT: terminate called"
        assert session.ask({"wish": "answer"}).answer == "accepted"


def test_a_hang_is_ended_and_the_session_goes_on(fake):
    with ValidatorSession(**fake, timeout=1.0) as session:
        hung = session.ask({"wish": "sleep"})
        assert (hung.answer, hung.is_pass) == ("timed-out", False)
        assert hung.seconds < 10
        assert session.ask({"wish": "answer"}).answer == "accepted"


def test_a_version_that_ignores_the_flag_is_refused(fake):
    fake["child"].write_text(HELLO.replace(VERSION, "1.7.1.116"))
    with pytest.raises(EnvironmentLacksError, match="does not validate"), ValidatorSession(**fake) as session:
        session.ask({"wish": "answer"})


def test_a_broken_installation_says_so_in_one_line(fake):
    with pytest.raises(EnvironmentLacksError, match="does not start") as caught:
        ValidatorSession(fake["directory"]).ask({"model": "x"})
    assert "\n" not in str(caught.value)


def test_the_verdict_is_json(tmp_path):
    verdict = validate(saved(tmp_path, model("Relu")), directory=tmp_path / "nowhere")
    assert verdict.to_json()["answer"] == "not-available"
