"""Let a convolution do the zero padding of the Pad before it."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

from csa_deploy.graph.rewrite import pattern_rule

RULE = pattern_rule("fold_pad", "fold a Pad with zeros into the convolution after it", [fuse_pad_into_conv_rule])
