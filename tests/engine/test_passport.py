"""Passports of engines that TensorRT-RTX really built, and what does not match them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from onnx import load, numpy_helper, save

from csa_deploy.engine.build import build
from csa_deploy.engine.device import CudaDevice, CudaState
from csa_deploy.engine.passport import (
    check_engine,
    check_here,
    make_passport,
    passport_of,
    plan_version,
    read_layers,
    read_passport,
    seal_of,
    weights_hash,
)
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.records.passport import EngineFile
from csa_deploy.workspace import dump_json

needs_rtx = pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
ENGINE = EngineFile("n.engine", "", 0, "tensorrt", "10.3.0", ("8.7",))


def state(capability: str) -> CudaState:
    return CudaState((CudaDevice(0, "GPU", capability, 1),))


@pytest.fixture
def engine(conv_fp32: Path, tmp_path: Path) -> Path:
    result = build(conv_fp32, tmp_path / "n.engine", BuildPlan(backend="tensorrt-rtx", compute_capabilities=("8.6",)))
    passport = make_passport(
        result, conv_fp32, rebuild=["csa-deploy", "build"], packages={"onnx": "1"}, device={"gpu": None}
    )
    passport_of(result.engine).write_text(dump_json(passport.to_json()))
    return result.engine


@needs_rtx
def test_a_passport_describes_its_engine(engine: Path) -> None:
    passport = check_engine(engine)
    assert passport is not None
    assert passport.engine.compute_capabilities == ("8.6",)
    assert passport.precision.obtained is not None and passport.precision.obtained["/net/conv"] == "FLOAT"
    assert str(engine.parent) not in json.dumps(passport.to_json())
    assert plan_version(engine) == f"TensorRT-RTX {passport.engine.tensorrt}"
    assert dump_json(passport.to_json()) == passport_of(engine).read_text()


@needs_rtx
@pytest.mark.shows("MEA-25", "ERR-20")
def test_what_does_not_match_is_said(engine: Path) -> None:
    whole = engine.read_bytes()
    engine.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="cut short"):
        check_engine(engine)
    engine.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UsageError, match="not the engine that its passport describes"):
        check_engine(engine)
    engine.write_bytes(whole)
    path = passport_of(engine)
    path.write_text(path.read_text().replace('"FLOAT"', '"HALF"'))
    with pytest.raises(UsageError, match="edited"):
        check_engine(engine)
    path.unlink()
    assert check_engine(engine) is None


@pytest.mark.parametrize(
    ("backend", "version", "capability", "message"),
    [
        ("tensorrt", "10.16.1", "8.7", r"built by tensorrt 10\.3\.0, here is tensorrt 10\.16\.1"),
        ("tensorrt-rtx", "10.3.0", "8.7", "here is tensorrt-rtx"),
        ("tensorrt", "10.3.0.26", "8.9", r"compute capability 8\.7, the GPU here has 8\.9"),
    ],
)
@pytest.mark.shows("MEA-25", "ERR-20")
def test_another_version_or_gpu(backend: str, version: str, capability: str, message: str) -> None:
    with pytest.raises(EnvironmentLacksError, match=message):
        check_here(ENGINE, backend, version, state(capability))


def test_a_later_build_of_the_same_version_runs_it_and_one_that_only_begins_alike_does_not() -> None:
    check_here(ENGINE, "tensorrt", "10.3.0.26", state("8.7"))
    with pytest.raises(EnvironmentLacksError, match=r"here is tensorrt 10\.3\.01"):
        check_here(ENGINE, "tensorrt", "10.3.01", state("8.7"))


@pytest.mark.shows("MEA-25")
def test_the_weights_hash_is_of_the_weights_alone(conv_fp32: Path, tmp_path: Path) -> None:
    model = load(conv_fp32)
    model.graph.node[0].name = "renamed"
    save(model, tmp_path / "renamed.onnx")
    assert weights_hash(tmp_path / "renamed.onnx") == weights_hash(conv_fp32)
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights.flat[0] += 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    save(model, tmp_path / "changed.onnx")
    assert weights_hash(tmp_path / "changed.onnx") != weights_hash(conv_fp32)


def test_an_unreadable_passport(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("{")
    with pytest.raises(UsageError, match="no readable passport"):
        read_passport(path)
    path.write_text(json.dumps({"schema_version": 99, "seal": ""}))
    with pytest.raises(UsageError, match="schema version 99"):
        read_passport(path)
    body = {"schema_version": 1, "engine": {}}
    path.write_text(dump_json({**body, "seal": seal_of(body)}))
    with pytest.raises(UsageError, match=r"p\.json: Passport: engine is damaged"):
        read_passport(path)


@needs_rtx
def test_what_a_later_version_adds_is_under_the_seal_and_no_error(engine: Path) -> None:
    path = passport_of(engine)
    stated = json.loads(path.read_text()) | {"weather": "fine"}
    path.write_text(dump_json({**stated, "seal": seal_of(stated)}))
    assert check_engine(engine) is not None
    path.write_text(path.read_text().replace("fine", "bad"))
    with pytest.raises(UsageError, match="edited"):
        check_engine(engine)


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"ftrt", b"\x08\x0aonnx" + bytes(40), b"ftrt" + b"\1" + bytes(40)):
        path.write_bytes(content)
        assert plan_version(path) is None
    path.write_bytes(b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]))
    assert plan_version(path) == "TensorRT 10.3.0.26"


def test_layers_by_name_only_are_no_types(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text('{"Layers": ["conv", "relu"]}')
    assert read_layers(path) == {}
