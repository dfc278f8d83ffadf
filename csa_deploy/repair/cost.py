"""What repairs cost in FP16, and which of them does: exact in FP32 does not mean free in FP16."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.inputs import Arrays
from csa_deploy.graph.precision_cost import precision_cost
from csa_deploy.graph.repair import repair
from csa_deploy.graph.sessions import CannotRunError
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.records.repair import HalfCost, Share

NOTABLE_DB = 1.0  # what a change in the order of rounding may cost


def half_cost(
    before: onnx.ModelProto, after: onnx.ModelProto, repairs: Sequence[str], feeds: Sequence[Arrays], inputs: str
) -> HalfCost:
    """Compare FP16 before and after repairs.

    Args:
        before: the network without repairs, FP32.
        after: the network with them.
        inputs: what they are, in words.
    """
    try:
        found = precision_cost(before, after, _half, feeds)
        shares = []
        if found.lost_db >= NOTABLE_DB:
            for rule in dict.fromkeys(repairs):
                others = repair(before, [name for name in repairs if name != rule]).model
                lost = precision_cost(others, after, _half, feeds).lost_db
                shares += [Share(rule, round(lost, 2))] if lost >= NOTABLE_DB else []
    except CannotRunError as error:
        return HalfCost(not_measured=str(error))
    return HalfCost(found.worst.name, round(found.before_db, 2), round(found.after_db, 2), inputs, tuple(shares))


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    return keep_rounding(to_fp16(model).model)
