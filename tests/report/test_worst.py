"""The worst samples stand side by side: the reference and every graph, from the stored columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.records.report import ClassShare, ReportData
from csa_deploy.records.verify import OutputRecord, VerifyRecord
from csa_deploy.report.page import render
from csa_deploy.report.worst import MOST_SAMPLES, worst_samples
from csa_deploy.workspace import Workspace
from tests.report.test_verdict import candidate, records

NAMES = ["cat", "dog", "cow"]


def entry(identity: str, agrees: bool, classes: list[int]) -> dict[str, Any]:
    said = [{"class": c, "name": NAMES[c] if c < 2 else "", "probability": 0.5} for c in classes]
    return {"id": identity, "max_abs_error": 1.0, "agrees": agrees, "reference_classes": said[:1], "classes": said}


def columns(label: str, classes: Any, agrees: Any) -> dict[str, np.ndarray]:
    first, shares = np.asarray([[0, 1], [0, 1], [0, 1]]), np.asarray([[0.75, 0.25]] * 3)
    found = {"reference_classes": first, "reference_probabilities": shares, "classes": classes, "probabilities": shares}
    found |= {"agrees": agrees, "max_abs_error": np.asarray([0.1, 0.2, 0.3])}
    return {f"{label}/y/{name}": np.asarray(column) for name, column in found.items()}


@pytest.fixture()
def compared(tmp_path: Path) -> tuple[Workspace, VerifyRecord]:
    (tmp_path / "verify").mkdir()
    stored = columns("fp32", [[0, 1]] * 3, [1, 1, 1]) | columns("int8", [[0, 1], [0, 1], [2, 0]], [1, 1, 0])
    np.savez(tmp_path / "verify/samples.npz", id=["a", "b", "c"], label=[0, 0, 1], **stored)
    worst = {"fp32": [entry("a", True, [0, 1])], "int8": [entry("c", False, [2, 0]), entry("b", True, [0, 1])]}
    candidates = tuple(
        replace(candidate(name), outputs=(OutputRecord("y", 3, {}, {}, tuple(entries)),))
        for name, entries in worst.items()
    )
    stated = records().verify
    assert stated is not None
    return Workspace(tmp_path), replace(stated, candidates=candidates)


def test_each_sample_has_the_reference_and_every_graph(compared: Any) -> None:
    (found,) = worst_samples(*compared)
    assert found.output == "y"
    assert [s.id for s in found.samples] == ["c", "a", "b"]  # another class first, then the worst of each graph
    for sample in found.samples:
        assert [b.name for b in sample.backends] == ["PyTorch", "fp32 graph", "int8 graph"]
    sample = found.samples[0]
    assert sample.disagrees and sample.label == "dog"
    assert [b.agrees for b in sample.backends] == [True, True, False]
    assert [b.error for b in sample.backends] == [None, 0.3, 0.3]
    assert sample.backends[2].classes == (ClassShare("class 2", 0.75), ClassShare("cat", 0.25))


def test_an_output_that_is_no_classification_has_errors_alone(compared: Any) -> None:
    workspace, verified = compared
    path = workspace.root / "verify/samples.npz"
    with np.load(path) as stored:
        kept = {n: stored[n] for n in stored.files if n == "id" or n.endswith("max_abs_error")}
    np.savez(path, **kept)
    (found,) = worst_samples(workspace, verified)
    assert [b.name for b in found.samples[0].backends] == ["fp32 graph", "int8 graph"]
    assert not any(s.disagrees or s.label for s in found.samples)


def test_nothing_without_a_comparison(tmp_path: Path) -> None:
    assert worst_samples(Workspace(tmp_path), None) == ()


def test_a_run_shows_them_with_their_pictures(digits: Any) -> None:
    import json

    data = json.loads((digits.root / "report.json").read_text())
    (found,) = data["worst"]
    assert 1 <= len(found["samples"]) <= MOST_SAMPLES
    compared = len(data["records"]["verify"]["candidates"])
    for sample in found["samples"]:
        assert len(sample["backends"]) == 1 + compared and sample["label"] in list("0123456789")
        assert all(0 < k["share"] <= 1 for b in sample["backends"] for k in b["classes"])
        assert sum(k["share"] for k in sample["backends"][0]["classes"]) > 0.3
    page = render(ReportData.from_json(data), {found["samples"][0]["id"]: "data:image/png;base64,"})
    assert page.count("<article") == len(found["samples"]) and 'class="tiny"' in page and "no picture" in page
