"""Quantization-aware fine-tuning of what a workspace calibrated, ending in the Q/DQ graph that calibration makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
from safetensors.torch import load_file
from torch import nn

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.network import NetworkEntry
from csa_deploy.precision.int8 import to_int8
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import Layer, PrecisionRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.train.graph_module import GraphModule
from csa_deploy.workspace import Workspace


@dataclass(frozen=True)
class QuantizationResult:
    """What post-training quantization decided.

    Attributes:
        model: the optimized FP32 graph, with equalized weights where calibration chose that.
        layers: what runs in INT8.
        kept: layers that stay in floating point, with the reason.
        keep_fp32: nodes that stay in FP32.
        scales: of the activations.
        io: type of the network's inputs and outputs.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    kept: dict[str, str]
    keep_fp32: tuple[str, ...]
    scales: dict[str, float]
    io: Literal["fp32", "fp16"] = "fp32"

    def module(self) -> GraphModule:
        """The graph with INT8 rounding, to be trained."""
        return GraphModule(self.model, self.layers, self.scales)

    def int8(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The Q/DQ graph of ``model``, which differs from :attr:`model` in its weights."""
        thresholds = {name: scale * INT8_LEVELS for name, scale in self.scales.items()}
        made = QdqPlacement(self.layers)
        return to_int8(model, made, thresholds, kept=self.kept, keep_fp32=self.keep_fp32, io=self.io).model


def quantized(root: Path) -> QuantizationResult:
    """Read the INT8 decisions of a workspace.

    Raises:
        UsageError: nothing was quantized to INT8 there.
    """
    workspace = Workspace(root)
    record = workspace.find(PrecisionRecord)
    found = record.int8 if record else None
    if found is None:
        raise UsageError(f"{root}: no INT8 graph here yet", fix="run `csa-deploy quantize NETWORK --int8` first")
    return QuantizationResult(
        load_model(root / (found.equalized or (workspace.find(RepairRecord) or workspace.read(OptimizeRecord)).graph)),
        found.int8,
        found.kept_floating,
        tuple(node.name for node in found.kept),
        found.scales,
        found.dla.io if found.dla else "fp32",
    )


def tunable(entry: NetworkEntry, ptq: QuantizationResult) -> NetworkEntry:
    """The network's entry with the quantized graph in place of its module."""

    def factory() -> nn.Module:
        return ptq.module()

    return replace(entry, name=f"{entry.name}-qat", factory=factory)


def write_graphs(ptq: QuantizationResult, weights: Path, output: Path, name: str) -> dict[str, Path]:
    """Write ``<name>.qat.onnx`` (FP32) and ``<name>.qat.int8.onnx`` with fine-tuned weights; returns their paths."""
    module = ptq.module()
    module.load_state_dict(load_file(weights))
    tuned = module.written_to(ptq.model)
    paths = {"fp32": output / f"{name}.qat.onnx", "int8": output / f"{name}.qat.int8.onnx"}
    save_model(tuned, paths["fp32"])
    save_model(ptq.int8(tuned), paths["int8"])
    return paths
