"""Records as types: what a stage wrote is read back and written the same, to the byte."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from typing import Any

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.graph.prove import Proven
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import (
    HalfGraph,
    Int8Graph,
    NotSearched,
    PrecisionRecord,
    Search,
    SearchPoint,
    TypedGraph,
)
from csa_deploy.records.profile import ProfileRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.report import ReportRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import StageRecord
from csa_deploy.stages import STAGES, Stage
from csa_deploy.workspace import Workspace, dump_json

KINDS = (
    ExportRecord,
    OptimizeRecord,
    CheckRecord,
    PrecisionRecord,
    BuildRecord,
    VerifyRecord,
    ProfileRecord,
    ReportRecord,
)


@pytest.fixture
def workspace(digits: Any) -> Workspace:
    """Of the finished run."""
    return Workspace(digits.root)


STATISTICS = GraphStatistics({"Conv": 2}, 3, None, ("n",), 4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.stage))
def test_a_record_survives_its_type_to_the_byte(workspace: Workspace, kind: type[StageRecord]) -> None:
    text = (workspace.root / f"records/{kind.stage}.json").read_text(encoding="utf-8")
    assert dump_json(workspace.read(kind).to_json()) == text
    assert workspace.find(kind) == workspace.read(kind)


def test_what_did_not_run_is_none_and_what_is_damaged_is_said(workspace: Workspace) -> None:
    assert workspace.find(RepairRecord) is None
    data = workspace.record("export")
    with pytest.raises(UsageError, match=r"ExportRecord: .*opset"):
        ExportRecord.from_json({**data, "opset": "newest"})
    with pytest.raises(UsageError, match=r"ExportRecord: .*graph"):
        ExportRecord.from_json({key: value for key, value in data.items() if key != "graph"})


@pytest.mark.parametrize("kind", [ExportRecord, GraphStatistics, Proven])
@pytest.mark.parametrize("data", [None, 5, [], "x"])
def test_what_is_no_mapping_is_said(kind: Any, data: Any) -> None:
    with pytest.raises(UsageError, match=rf"{kind.__name__}: these data are no mapping"):
        kind.from_json(data)


def test_numbers_that_are_not_finite_come_back() -> None:
    record = OptimizeRecord(summary="", graph="g", before=STATISTICS, after=STATISTICS, error=float("inf"))
    again = OptimizeRecord.from_json(json.loads(dump_json(record.to_json())))
    assert again == record and again.before.nodes == 2


def test_each_precision_is_read_as_its_own_type() -> None:
    typed: dict[str, Any] = {"graph": "g", "statistics": STATISTICS}
    whole = {"kept": (), "nodes": 1, "casts": 2, "weights": 3, "underflowed": 0, "subnormal": 0, "overflowing": 0}
    int8 = dict.fromkeys(("int8", "kept", "notes", "cost_unknown"), ()) | {"key": "", "cache": "", "rest": "fp16"}
    empty = {name: {} for name in ("kept_floating", "scales", "techniques", "estimated_latency_ms")}
    search = Search(
        pareto=(SearchPoint(1, {"snr_db": float("inf")}, (), None),),
        sensitivities=(),
        returned=("a",),
        images=2,
        budget={},
        estimate_agrees=None,
        device="Orin",
    )
    made = {
        "fp32": TypedGraph(**typed),
        "fp16": HalfGraph(**typed, **whole, largest_weight=0.5),
        "int8": Int8Graph(**typed, **int8, **empty, equalized=None, search=search),
        "as it is": Int8Graph(**typed, **int8, **empty, equalized=None, search=NotSearched("off")),
    }
    record = PrecisionRecord(summary="", precisions=made)
    again = PrecisionRecord.from_json(json.loads(dump_json(record.to_json())))
    assert again == record and {name: type(graph) for name, graph in again.precisions.items()} == {
        name: type(graph) for name, graph in made.items()
    }
    assert "calibration" not in record.to_json() and again.int8 == made["int8"]


def test_a_record_cannot_be_changed(workspace: Workspace) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        workspace.read(ExportRecord).graph = "x"  # type: ignore[misc]


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: str(stage.name))
def test_a_stage_reads_no_result_that_it_does_not_name(stage: Stage) -> None:
    """A change of one that it does not name would not make the stage run again."""
    source = inspect.getsource(sys.modules[stage.functions().run.__module__])
    read = set(re.findall(r"workspace\.(?:read|find)\((\w+)\)", source))
    known = [stage, *stage.inputs, *(below for above in stage.inputs for below in above.inputs)]
    assert read <= {one.result.__name__ for one in known}


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: str(stage.name))
def test_a_stage_names_the_type_of_its_record(stage: Stage) -> None:
    functions = stage.functions()
    assert stage.result.stage == stage.name
    for made in filter(None, (functions.run, functions.compare_again)):
        assert made.__annotations__["return"] == f"StageOutput[{stage.result.__name__}]"
