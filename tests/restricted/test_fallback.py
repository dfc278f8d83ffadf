"""``--max-fallback``: a DLA scope is accepted with what may fall back, on both sides of each bound, and no further."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from restricted_networks import MAP, constant, model, node

from csa_deploy.config import make_config
from csa_deploy.errors import OperationRejectedError, UsageError
from csa_deploy.records.check import Inspected, ScopeRecord
from csa_deploy.restricted.check import check
from csa_deploy.restricted.fallback import require_dla, within
from csa_deploy.restricted.inspection import inspect, rejection
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.placement import _crossing
from csa_deploy.restricted.reporters import as_html, as_junit, as_sarif, as_text
from csa_deploy.results import shallow

# DLA, GPU (Sin), DLA, GPU, DLA: each of the 4 edges between them crosses once with every element in two bytes.
CHAIN = ["Relu", "Sin", "Relu", "Relu", "Sin", "Sigmoid"]
CROSSING = 4 * 2 * int(np.prod(MAP))


def chain(operators):
    names = ["x", *(f"v{number}" for number in range(1, len(operators))), "y"]
    return model([node(op, [a], [b], name=f"{op}_{b}") for op, a, b in zip(operators, names, names[1:], strict=False)])


def report(network=None, scope="dla-orin"):
    return check(network or chain(CHAIN), [scope]).scopes[0]


@pytest.mark.parametrize(("quantity", "found"), [("nodes", CHAIN.count("Sin")), ("subgraphs", 3), ("bytes", CROSSING)])
def test_each_bound_holds_up_to_its_number_and_not_beyond(quantity, found):
    kept = within(report(), {quantity: found})
    assert kept.verdict == "with GPU fallback" and kept.accepted
    assert kept.said == f"with GPU fallback: 4 of 6 nodes on DLA, 3 subgraphs, {CROSSING:,} bytes cross"
    before = report().counts
    assert kept.counts == {"denied": 0, "unknown": 0, "note": before["note"] + before["denied"]}
    assert sum("on the GPU, within" in finding.message for finding in kept.findings) == before["denied"] == 2
    beyond = within(report(), {quantity: found - 1})
    assert (beyond.verdict, beyond.accepted, beyond.findings) == ("denied", False, report().findings)
    assert f"at most {found - 1:,}" in beyond.fallback


def test_every_bound_has_to_hold():
    assert within(report(), {"nodes": 2, "bytes": CROSSING - 1}).verdict == "denied"
    assert within(report(), {"nodes": 2, "bytes": CROSSING, "subgraphs": 3}).verdict == "with GPU fallback"


def test_by_default_nothing_falls_back_and_what_needs_nothing_is_plainly_allowed():
    assert within(report(), {}) == report() and report().verdict == "denied"
    whole = within(report(chain(["Relu", "Sigmoid"])), {"nodes": 5})
    assert (whole.verdict, whole.said, whole.fallback) == ("allowed", "allowed", "")
    gpu = within(report(scope="drive-os-7"), {"nodes": 5})
    assert gpu == report(scope="drive-os-7")


def test_a_network_that_is_all_on_the_gpu_is_no_dla_deployment():
    found = within(report(chain(["Sin", "Sin"])), {"nodes": 9})
    assert found.verdict == "denied" and "nothing runs on DLA" in found.fallback


def test_too_many_loadables_are_excused_by_no_bound():
    """16 loadables fit into an engine; 17 do not, whatever may fall back."""
    sixteen, seventeen = (chain(["Relu", "Sin"] * count) for count in (16, 17))
    assert within(report(sixteen), {"nodes": 99}).verdict == "with GPU fallback"
    found = within(report(seventeen), {"nodes": 99})
    assert found.verdict == "denied" and "is about the network" in found.fallback


def test_bytes_of_unknown_shape_are_unknown_and_within_no_bound():
    body = [node("Thing", ["x"], ["a"], domain="own"), node("Relu", ["a"], ["y"])]
    graph = load_graph(model(body, domains=["own"]))
    assert _crossing(graph.nodes, {id(graph.nodes[1])}) == (1, None, 1)
    unknown = replace(report().placement, bytes_crossing=None, crossing_unknown=1)
    found = within(replace(report(), placement=unknown), {"bytes": 10**12})
    assert found.verdict == "denied" and "unknown for 1 tensor" in found.fallback
    kept = within(replace(report(), placement=unknown), {"nodes": 2})
    assert kept.said.endswith("bytes that cross unknown for 1 tensor")
    data = Inspected(model="x", scopes=(ScopeRecord(**shallow(kept), static="denied"),))
    assert "bytes unknown for 1" in as_text.render(data) and "bytes unknown for 1" in as_html.render(data)


def test_the_words_of_a_command_line_and_of_a_file_mean_the_same():
    assert make_config({"max_fallback": ["nodes=3,bytes=2KiB"]}).max_fallback == {"nodes": 3, "bytes": 2048}
    assert make_config({"max_fallback": {"bytes": "1MiB", "nodes": 0}}).max_fallback == {"bytes": 2**20, "nodes": 0}
    assert make_config({}).max_fallback == {}
    for wrong in ("nodes", "nodes=-1", "node=1", "nodes=1KiB", "bytes=1.5"):
        with pytest.raises(UsageError, match=r"max.fallback"):
            make_config({"max_fallback": [wrong]})


def test_a_bound_that_no_scope_knows_is_refused():
    require_dla([], {"nodes": 1})
    require_dla(["drive-os-7", "dla-orin"], {"nodes": 1})
    with pytest.raises(UsageError, match="none of the scopes"):
        require_dla(["drive-os-7"], {"nodes": 1})


@pytest.fixture()
def gate(tmp_path):
    path = tmp_path / "chain.onnx"
    onnx.save(chain(CHAIN), path)
    return inspect(path, ["dla-orin"])


def test_the_gate_rejects_beyond_the_bound_and_says_by_how_much(gate):
    assert rejection(gate.allowing({"nodes": 2}), True, "chain") is None
    error = rejection(gate.allowing({"nodes": 1}), False, "chain")
    assert isinstance(error, OperationRejectedError) and "2 nodes off DLA, at most 1" in error.message
    assert "fallback" not in rejection(gate, False, "chain").message


def test_no_report_calls_it_plainly_allowed(gate):
    data = gate.allowing({"nodes": 2}).inspected
    assert (data.verdict, data.rejected) == ("with GPU fallback", False)
    for reporter in (as_text, as_html, as_junit, as_sarif):
        text = " ".join(reporter.render(data).split())
        assert "with GPU fallback: 4 of 6 nodes on DLA" in text
        assert "allowed" not in text.replace(".allowed,", "")
    assert 'failures="0"' in as_junit.render(data)
    assert "at most 1" in as_text.render(gate.allowing({"nodes": 1}).inspected)


def test_a_constant_operand_names_its_rule_among_the_notes():
    network = model([node("Relu", ["x"], ["a"]), node("Mul", ["a", "c"], ["y"])], constants=[constant("c", 2.0)])
    kept = within(report(network), {"nodes": 1})
    assert "dla.constant" in {finding.rule for finding in kept.findings}
