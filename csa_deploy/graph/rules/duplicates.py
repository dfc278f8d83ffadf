"""Store equal weights once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import DeduplicateHashedInitializersPass

from csa_deploy.graph.rewrite import Rewrite


def _apply(model: ir.Model) -> int:
    before = len(model.graph.initializers)
    DeduplicateHashedInitializersPass()(model)
    return before - len(model.graph.initializers)


RULE = Rewrite("share_equal_weights", "store initializers of equal content once", _apply)
