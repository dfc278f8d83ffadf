"""Seconds of the stages, as shares of the export of the same network."""

from __future__ import annotations

from benchmarks.pairs import Ratio
from benchmarks.workspaces import deployed

NETWORKS = ("convselfattn", "csa_digits")
STAGES = ("check", "optimize", "precision", "build")


def run() -> list[Ratio]:
    """Wall seconds of each stage against the export, from one run of the pipeline."""
    found = []
    for network in NETWORKS:
        _, report = deployed(network)
        seconds = {stage["name"]: stage["seconds"] for stage in report["stages"]}
        for stage in STAGES:
            values = [(seconds[stage], seconds["export"])]
            found.append(Ratio.of("stage, wall seconds", f"{network} {stage}", f"{network} export", values))
    return found
