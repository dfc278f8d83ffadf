"""The tables of the documents say what the table of metrics says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.metrics.estimates import BOOTSTRAP, EXACT, EXTREME, MOSTLY_ONE, PAIRED
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.metrics.table import METRICS, bounded

DOCS = Path(__file__).parents[2] / "docs"
OF = {"classes": "classes", "five": "classes", "map": "maps", "tensor": "any output"}
WORDS = {EXACT: "Clopper-Pearson", PAIRED: "Bonett-Price", BOOTSTRAP: "bootstrap-t", EXTREME: "none"}


def rows_of(document: str, heading: str) -> dict[str, list[str]]:
    """Cells of the table with that heading, by each metric that its first cell names."""
    text = (DOCS / document).read_text(encoding="utf-8")
    lines = text[text.index(heading) :].splitlines()
    table = lines[2 : next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    names = [name for row in cells for name in re.findall(r"`(\w+)`", row[0])]
    assert len(names) == len(set(names))
    return {name: row[1:] for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def built_in() -> set[str]:
    return {name for name, metric in bounded().items() if metric.of != "whole"}


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_every_metric_stands_with_its_interval_once(noise: float) -> None:
    told = rows_of("verify.md", "| metric | of | interval |")
    assert set(told) == built_in()
    draw = np.random.default_rng(0)
    for shape in ((40, 8), (40, 4, 5, 5)):
        want = draw.standard_normal(shape)
        metrics = OutputMetrics("y")
        labels = want.argmax(axis=1) if want.ndim == 2 else None
        got = want + noise * draw.standard_normal(shape)
        metrics.update(want, got, [f"s{i}" for i in range(40)], None if labels is None else labels.tolist())
        for name, estimate in metrics.estimates().items():
            if name in told:
                of, interval = told[name]
                assert of == OF[METRICS[name].of] + (" and labels" if METRICS[name].labels else "") or "maps (" in of
                method = estimate.method if estimate.method != MOSTLY_ONE else EXACT
                assert WORDS[method] in interval, (name, method)


def test_every_bound_stands_with_its_side_and_defaults_once() -> None:
    told = rows_of("configuration.md", "| metric | bound | meaning | default fp32")
    assert set(told) == built_in()
    for name, (side, meaning, *defaults) in told.items():
        metric = METRICS[name]
        assert meaning and side == ("at least" if metric.side == "min" else "at most")
        if name.startswith("top5") or not any(defaults):
            assert not metric.default_bounds
            continue
        given = {p: float(text) for p, text in zip(("fp32", "fp16", "int8"), defaults, strict=True) if text}
        assert given == metric.default_bounds
