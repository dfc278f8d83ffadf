"""Safety engines built on a host and opened on their target, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.records.build import BuiltEngine
from csa_deploy.trtexec.builder import trtexec_build
from csa_deploy.trtexec.config import load_target
from csa_deploy.trtexec.engines import engine_runner
from csa_deploy.trtexec.machine import open_machine
from csa_deploy.trtexec.settings import parse_options

PLAN = BuildPlan(backend="trtexec", restricted=True)


def built(target: Any, graph: Path, out: Path, *options: str) -> BuiltEngine:
    """Build, and give the record's entry."""
    options = ("safe", *options)
    with open_machine(load_target(target.file), to_build=True) as machine:
        result = trtexec_build(machine, graph, out, PLAN, parse_options(options))
    return replace(result, builder_option=options)


def opened(target: Any, out: Path, record: BuiltEngine, *, values: bool = True) -> Any:
    return engine_runner(out, record, str(target.file), name="engine", values=values)
