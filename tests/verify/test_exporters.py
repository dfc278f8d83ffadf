"""Exporters, opsets and the optimized graph against one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.verify.exporters import ExporterComparison, ExporterPair


def test_a_pair_differs_agrees_or_is_not_known() -> None:
    assert ExporterPair("a", "b", (1, 1), 0.1, 0.1, 20.0).differs(1e-4) is True
    assert ExporterPair("a", "b", (1, 1), 0.0, 0.0, float("inf")).differs(1e-4) is False
    assert ExporterPair("a", "b", (1, 1), float("nan"), float("nan"), 0.0).differs(1e-4) is True
    assert ExporterPair("a", "b", (1, None), reason="it failed").differs(1e-4) is None


@pytest.mark.slow
def test_exporters_of_a_network(lab: Path, csa: Any) -> None:
    done = csa(lab, "verify", "nets.py:tiny", "--exporters", "--samples", 3, "--data", "x.npz", "-w", "w")
    assert done.returncode == 0, done.stderr
    pairs = json.loads((lab / "w/exporters.json").read_text())["pairs"]
    assert len(pairs) == 5 and all(pair["max_rel_error"] < 1e-5 for pair in pairs)
    optimized = pairs[-1]
    assert optimized["first"].endswith("optimized") and optimized["nodes"][0] <= optimized["nodes"][1]
    assert "random and 3 real inputs" in " ".join(done.stdout.split())
    refused = csa(lab, "verify", "tiny.onnx", "--exporters", "-w", "w2")
    assert refused.returncode == 2 and "exported already" in refused.stderr


def test_the_first_pair_beyond_the_tolerance_is_the_failure() -> None:
    agrees, unknown = (
        ExporterPair("a", "b", (1, 1), 0.1, 0.1, 20.0),
        ExporterPair("c", "d", (1, None), reason="it failed"),
    )
    differs = ExporterPair("e", "f", (1, 1), 0.2, 0.2, 20.0)
    assert ExporterComparison((agrees, unknown), 0).failure(0.1) is None
    found = ExporterComparison((agrees, unknown, differs), 0).failure(0.1)
    assert found is not None and found.exit_code == 6 and "e differs from f" in found.message
