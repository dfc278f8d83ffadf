"""Repairs: exact rewrites of what the restricted-mode checker refuses, proved like those of :mod:`.optimize`."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.optimize import TOLERANCE, OptimizeResult, Progress, rewritten
from csa_deploy.graph.repairs import (
    gather,
    gemm,
    global_pool,
    hard_activation,
    pad,
    pool_chain,
    pool_stride,
    reduce_axes,
    reshape,
    reshape_across,
    resize_convs,
    resize_down,
    resize_scales,
    scale,
    shuffle_rank,
    transpose_pads,
    where,
)
from csa_deploy.graph.repairs.pooling import Limits, within
from csa_deploy.graph.rewrite import Rewrite
from csa_deploy.graph.rules import affine_after, affine_before, constants, identities, pads, reshapes
from csa_deploy.graph.sessions import CannotRunError
from csa_deploy.graph.shapes import editable
from csa_deploy.naming import did_you_mean

_ORDER: tuple[Rewrite, ...] = (
    resize_scales.NUDGE,
    resize_scales.FROM_SIZES,
    resize_down.RULE,
    resize_convs.RULE,
    global_pool.RULE,
    reduce_axes.RULE,
    pool_stride.RULE,
    pool_chain.RULE,
    reshape.RULE,
    gemm.RULE,
    reshape_across.RULE,
    hard_activation.RULE,
    shuffle_rank.RULE,
    gather.RULE,
    where.RULE,
    pads.RULE,
    pad.TO_CONV,
    pad.TO_SLICES,
    affine_after.RULE,
    affine_before.RULE,
    scale.RULE,
    transpose_pads.RULE,
    identities.RULE,
)

REPAIRS: dict[str, Rewrite] = {rule.name: rule for rule in _ORDER}
"""Every repair by its name, in the order in which they are applied."""


def repair(
    model: onnx.ModelProto,
    names: Iterable[str] | None = None,
    *,
    proofs: int = 2,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> OptimizeResult:
    """Apply repairs, each proved on random inputs and undone where it is not exact.

    Constants are computed ahead and Identity nodes dropped first, because a repair needs to see shapes and sizes, and
    Reshapes that end up next to each other are merged after. A model that ONNX Runtime refuses because of its Resize
    scales is proved against itself with the sizes that these scales mean.

    Args:
        model: a model of static shape; not changed.
        names: which repairs; None for all.
        proofs: number of random inputs.
        tolerance: largest accepted difference relative to an output's range.
        progress: called with (repairs tried in this round, repairs).
        limits: windows and strides of the poolings that repairs make; the default meets every scope.

    Raises:
        UsageError: a name is unknown, or an input has no fixed shape.
    """
    chosen = set(REPAIRS if names is None else names)
    for name in sorted(chosen.difference(REPAIRS)):
        raise UsageError(f"no repair '{name}'", fix=did_you_mean(name, REPAIRS, ", ".join(REPAIRS)))
    repairs = [rule for rule in _ORDER if rule.name in chosen and rule is not identities.RULE]
    with within(limits):
        return rewritten(
            model,
            [constants.RULE, identities.RULE, *repairs, reshapes.RULE],
            proofs=proofs,
            tolerance=tolerance,
            progress=progress,
            reference=_intended,
            on_declared=[rule for rule in repairs if rule is resize_scales.NUDGE],
        )


def _intended(model: onnx.ModelProto, error: CannotRunError) -> tuple[onnx.ModelProto, str]:
    """What to prove by where the model itself does not run: its Resize nodes by the sizes that they mean."""
    by_sizes = editable(model)
    resize_scales.resize_by_sizes(by_sizes)
    reference = f"the original with its Resize scales written as sizes: it does not do what it declares ({error})"
    return ir.to_proto(by_sizes), reference
