"""What was not measured names everything that it holds for, once per reason."""

from __future__ import annotations

from dataclasses import replace

from csa_deploy.profile.runs import RunComparison
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.report import Lacking, Records
from csa_deploy.report.markdown import comparison
from csa_deploy.report.not_measured import by_reason, not_measured
from csa_deploy.results import NotMeasured
from tests.report.test_verdict import engine, records

GPU = "with an NVIDIA GPU: `csa-deploy build NETWORK`"
LAYERS = "layers of the engine after fusion: not measured: no CUDA device"


def test_engines_that_lack_the_same_are_all_named() -> None:
    first = engine()
    engines = {
        "fp16": replace(first, not_done=(LAYERS,)),
        "fp32": replace(first, not_done=(LAYERS, "no reason given")),
    }
    assert not_measured(Records(build=BuildRecord(summary="", engines=engines))) == (
        Lacking("layers of the engine after fusion (engine fp16, engine fp32)", "no CUDA device", "build", GPU),
        Lacking("no reason given (engine fp32)", "", "build", "`csa-deploy build NETWORK`"),
    )


def test_a_reason_is_the_cause_alone() -> None:
    items = (
        NotMeasured("engine fp16", "net.fp16.engine cannot run: no CUDA device"),
        NotMeasured("engine fp32", "net.fp32.engine cannot run: no CUDA device"),
        NotMeasured("energy", "not measured: no rail"),
    )
    stated = records()
    assert stated.verify is not None and stated.profile is not None
    verify, profile = replace(stated.verify, not_measured=items), replace(stated.profile, not_measured=items[:1])
    found = by_reason(not_measured(Records(verify=verify, profile=profile)))
    assert [(e.what, e.reason, e.stages) for e in found] == [
        (["engine fp16", "engine fp32"], "no CUDA device", ["verify"]),
        (["energy"], "no rail", ["verify"]),
    ]


def test_quantities_of_engines_are_brief() -> None:
    names = [
        "engine a",
        "engine b",
        "clock",
        "engine a device",
        "engine b device",
        "engine b layers",
        "engine c layers",
    ]
    (entry,) = by_reason([Lacking(name, "no GPU", "profile") for name in names])
    assert entry.what == names
    assert entry.brief == "engine a (latency, device), engine b (latency, device, layers), clock, engine c layers"


def test_a_comparison_groups_what_it_left_out() -> None:
    left = tuple(NotMeasured(f"{label} p99", "too few | samples") for label in ("fp32", "fp16"))
    text = comparison(RunComparison(a="x", b="y", method="stored", caveats=(), rows=(), not_compared=left))
    assert text.endswith("- not compared: fp32 p99, fp16 p99: too few \\| samples")
