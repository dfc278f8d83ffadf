"""Merge consecutive Reshape, Transpose and Unsqueeze nodes."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import reshape_reshape_rule, transpose_transpose_rule, unsqueeze_unsqueeze_rule

from csa_deploy.graph.rewrite import pattern_rule

RULE = pattern_rule(
    "merge_reshapes",
    "merge consecutive Reshape, Transpose and Unsqueeze nodes",
    [reshape_reshape_rule, transpose_transpose_rule, unsqueeze_unsqueeze_rule],
)
