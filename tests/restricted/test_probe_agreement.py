"""The static pack against the validator on models that are no probes."""

from __future__ import annotations

import pytest

from csa_deploy.restricted.validator import ValidatorSession, validator_status
from tools.probe.agreement import Agreement, Comparison, compare, node_tests
from tools.probe.plan_onnx import build, probes
from tools.probe.run import WORKER

needs_validator = pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")


def test_unknown_agrees_with_neither_and_skipped_does_not_count():
    found = Agreement(
        (
            Comparison("a", "allowed", "accepted"),
            Comparison("b", "denied", "refused"),
            Comparison("c", "unknown", "accepted"),
            Comparison("d", "allowed", "refused"),
            Comparison("e", "allowed", "skipped"),
        )
    )
    assert (found.judged, found.rate, found.false_allowed) == (4, 0.5, ("d",))
    assert found.table["allowed", "skipped"] == 1
    assert Agreement(()).rate is None


@pytest.mark.slow
@needs_validator
def test_the_static_check_agrees_on_every_onnx_probe():
    models = [(item.id, build(item.onnx)) for item in probes()]
    with ValidatorSession(child=WORKER) as session:
        found = compare(models, session)
    assert found.judged > 900
    assert [item for item in found.comparisons if item.counts and not item.agrees] == []


@needs_validator
@pytest.mark.slow
def test_node_tests_of_the_onnx_package():
    with ValidatorSession(child=WORKER) as session:
        found = compare(node_tests(), session)
    assert found.judged > 500
    assert found.false_allowed == ()
    assert found.rate is not None
    assert found.rate >= 0.99
