"""Runs PyTorch's ONNX exporters: the dynamo one, and TorchScript's as a fallback that is reported."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx.version_converter
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.export.interrupts import interrupts_wait, pass_on_interrupt
from csa_deploy.export.scopes import keep_scopes, scopes_from_names, scopes_of
from csa_deploy.graph.facts import opset_of

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

# Newest opset that each TensorRT's parser takes whole: TensorRT 8.6 stops at 17 (its parser's operator list);
# 18 is the dynamo exporter's native opset and within the range of TensorRT 10 and 11.
OPSET_FOR_TENSORRT = {"8.6": 17, "10": 18, "11": 18}
DYNAMO_OPSET = 18  # oldest opset that the dynamo exporter writes; older ones are converted down from it


@dataclass(frozen=True)
class ExportedModule:
    """An exported graph.

    Attributes:
        model: the graph with its weights.
        exporter: ``"dynamo"`` or ``"torchscript"``: which one made it.
        notes: what went otherwise than asked, one line each.
    """

    model: onnx.ModelProto
    exporter: str
    opset: int
    notes: list[str] = field(default_factory=list)


def export_module(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    *,
    opset: int = 18,
    exporter: str = "auto",
) -> ExportedModule:
    """Export a module with static shapes.

    Args:
        module: the network, in eval mode.
        inputs: example inputs by name, in the order of ``module.forward``; their shapes become static.
        output_names: names of the (flattened) outputs.
        opset: ONNX opset of the result.
        exporter: ``"dynamo"``, ``"torchscript"`` or ``"auto"`` (dynamo, then TorchScript).

    Raises:
        UsageError: no exporter can export the module.
    """
    notes: list[str] = []
    if exporter == "torchscript":
        return _fallback(module, inputs, output_names, opset, notes)
    try:
        model = _dynamo(module, inputs, output_names, opset, notes)
        found = opset_of(model)
        if found == opset:
            return ExportedModule(model, "dynamo", opset, notes)
        reason = f"the dynamo exporter made opset {found} where {opset} was asked for"
    except Exception as error:  # the exporter raises many types, torch's own among them
        pass_on_interrupt(error)
        reason = f"the dynamo exporter failed: {_one_line(error)}"
    if exporter == "dynamo":
        raise UsageError(reason, fix="use --exporter auto, or change the module where the message says")
    logger.info("%s; using the TorchScript exporter", reason)
    return _fallback(module, inputs, output_names, opset, [f"{reason}; exported with TorchScript instead"])


def _fallback(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int, notes: list[str]
) -> ExportedModule:
    """Export with TorchScript; raises UsageError with what both exporters said."""
    try:
        return ExportedModule(_torchscript(module, inputs, outputs, opset, notes), "torchscript", opset, notes)
    except Exception as error:  # the exporter raises many types
        pass_on_interrupt(error)
        said = "; ".join([*notes, f"the TorchScript exporter failed: {_one_line(error)}"])
        raise UsageError(
            f"the network cannot be exported: {said}", fix="change the module where the message says"
        ) from error


def _dynamo(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int, notes: list[str]
) -> onnx.ModelProto:
    import torch

    with _quiet(), interrupts_wait():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=max(opset, DYNAMO_OPSET),
            optimize=False,  # the plain graph is the evidence; `optimize` rewrites it with proof
            verbose=False,
        )
    assert program is not None
    model = _tidied(program.model_proto, notes)
    scopes = scopes_of(model)
    if opset < DYNAMO_OPSET:
        model = onnx.version_converter.convert_version(model, opset)  # drops what it does not know, the scopes too
    keep_scopes(model, native=scopes)
    return model


def _tidied(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """Drop the Identity nodes that exporters leave, and write Resize by scales that every runtime rounds alike.

    Dynamo leaves an Identity for each clone, TorchScript one for weights that are equal. What is changed here is part
    of the export: the comparison with PyTorch is its proof.
    """
    from onnx_ir.passes.common import IdentityEliminationPass

    from csa_deploy.graph.repairs import resize_scales

    graph = IdentityEliminationPass()(ir.from_proto(model)).model
    for rule in (resize_scales.NUDGE, resize_scales.FROM_SIZES):
        if count := rule.apply(graph):
            notes.append(f"{count} Resize nodes: {rule.summary}")
    return ir.to_proto(graph)


def _torchscript(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int, notes: list[str]
) -> onnx.ModelProto:
    import torch

    with tempfile.TemporaryDirectory() as folder, _quiet(), interrupts_wait():
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            training=torch.onnx.TrainingMode.EVAL,
        )
        model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)  # this exporter states no shapes
    model = _tidied(model, notes)
    keep_scopes(model, native=scopes_from_names(model))
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk about their own internals; errors still arrive as exceptions."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch.onnx._internal.exporter")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for quiet, _ in before:
        quiet.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _native_output_dropped():
            warnings.simplefilter("ignore")
            yield
    finally:
        for quiet, level in before:
            quiet.setLevel(level)


@contextlib.contextmanager
def _native_output_dropped() -> Iterator[None]:
    """TorchScript's exporter prints the graph it failed at in C++, into a result that may be asked for as JSON."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _one_line(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # torch colours its messages
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
