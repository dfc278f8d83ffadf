"""What stays in a higher precision because it was asked to: nodes by name, and parts of a split network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from csa_deploy.graph.split import plan_cut

if TYPE_CHECKING:
    from csa_deploy.config import Config


@dataclass(frozen=True)
class Kept:
    """Names of nodes.

    Attributes:
        fp32: that stay in FP32.
        floating: that do not become INT8, these among them.
    """

    fp32: tuple[str, ...] = ()
    floating: tuple[str, ...] = ()


def kept_by(config: Config, model: onnx.ModelProto) -> Kept:
    """What a configuration keeps: the nodes that it names, those of FP32 parts, and from INT8 those of FP16 parts.

    Raises:
        UsageError: the network cannot be split like that.
    """
    if not config.split:
        return Kept(config.keep_fp32, config.keep_fp32)
    parts = plan_cut(model, config.split, config.part)
    nodes = {p: [n for part in parts if part.setting.precision == p for n in part.nodes] for p in ("fp32", "fp16")}
    fp32 = (*config.keep_fp32, *nodes["fp32"])
    quantizes = any(part.setting.precision == "int8" for part in parts)
    return Kept(fp32, (*fp32, *nodes["fp16"]) if quantizes else fp32)
