"""The doctor of INT8 graphs, each hazard in a graph of its own."""

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.precision.why_slow import Diagnosis, diagnose

IMAGE = "float[1,16,8,8]"
W = {"w": np.ones((16, 16, 1, 1), "f4"), "q": np.ones((16, 16, 1, 1), "i1"), "s": np.float32(1), "z": np.int8(0)}
INPUT = "i = QuantizeLinear (x, s, z) d = DequantizeLinear (i, s, z) "
WEIGHT = "v = DequantizeLinear (q, s, z) "


@pytest.fixture(scope="module")
def found(build):
    def look(body: str, **weights: np.ndarray) -> Diagnosis:
        return diagnose(build(f"({IMAGE} x) => (float[1,N,H,M] y)", body, 17, **{**W, **weights}))

    return look


def told(diagnosis: Diagnosis) -> list[str]:
    return [finding.hazard.split(":")[0] for finding in diagnosis.findings]


def test_a_layer_between_q_and_dq_has_nothing_to_say_about(found):
    diagnosis = found(INPUT + WEIGHT + "y = Conv (d, v)")
    assert diagnosis.findings == ()
    assert (diagnosis.int8_layers, diagnosis.layers) == (1, 1)


HAZARDS = {
    "float island": INPUT + WEIGHT + "c = Conv (d, v) y = Conv (c, w)",
    "gate in floating point": INPUT + WEIGHT + "c = Conv (d, v) y = Sigmoid (c)",
    "unfused Q/DQ": INPUT + "y = Sin (d)",
    "reformat border": "t = Sin (x) i = QuantizeLinear (t, s, z) d = DequantizeLinear (i, s, z) "
    + WEIGHT
    + "y = Conv (d, v)",
    "addition behind an INT8 layer with its skip branch in floating point": INPUT
    + WEIGHT
    + "k = Relu (x) c = Conv (d, v) y = Add (c, k)",
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_each_hazard_is_named_with_its_cost(found, hazard):
    diagnosis = found(HAZARDS[hazard])
    assert told(diagnosis) == [hazard]
    assert diagnosis.findings[0].seconds > 0
    assert diagnosis.findings[0].mitigation


def test_an_addition_whose_skip_branch_is_int8_has_nothing_to_say_about(found):
    both = "c = Conv (d, v) j = QuantizeLinear (c, s, z) e = DequantizeLinear (j, s, z) y = Add (e, d)"
    assert found(INPUT + WEIGHT + both).findings == ()
    assert found(INPUT + WEIGHT + "c = Conv (d, v) y = Add (c, d)").findings == ()


@pytest.mark.parametrize(("channels", "hazards"), [(12, ["channels no multiple of 16"]), (32, [])])
def test_channels_that_do_not_fill_the_tiles_cost_what_the_padding_does(found, channels, hazards):
    weight = np.ones((channels, 16, 1, 1), "i1")
    assert told(found(INPUT + WEIGHT + "y = Conv (d, v)", q=weight)) == hazards


def test_a_depthwise_convolution_is_none_for_tensor_cores(found):
    body = INPUT + WEIGHT + "y = Conv<group = 16> (d, v)"
    assert told(found(body, q=np.ones((16, 1, 1, 1), "i1"))) == ["grouped convolution without tensor cores"]


def test_a_graph_without_q_and_dq_is_refused(found):
    with pytest.raises(UsageError, match="not quantized"):
        found("y = Conv (x, w)")


def test_a_cost_of_unknown_shape_is_unknown_and_not_zero(build):
    """The Conv's input has no known shape; the Sigmoid behind it neither."""
    body = (
        "t = own.Thing(x) i = QuantizeLinear (t, s, z) d = DequantizeLinear (i, s, z) c = Conv (d, w) y = Sigmoid (c)"
    )
    model = build(f"({IMAGE} x) => (float[1,N,H,M] y)", body, 17, domains=', "own" : 1', **W)
    totals = diagnose(model).by_hazard()
    assert totals and all(total.unknown == total.nodes == 1 for total in totals.values())
    assert {total.cost for total in totals.values()} == {"unknown for 1 node"}
    known = diagnose(build(f"({IMAGE} x) => (float[1,N,H,M] y)", HAZARDS["float island"], 17, **W)).by_hazard()
    assert [(t.unknown, t.cost.endswith(" us")) for t in known.values()] == [(0, True)]
