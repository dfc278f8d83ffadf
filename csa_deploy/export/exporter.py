"""Runs PyTorch's ONNX exporters: the dynamo one, and TorchScript's as a fallback that is reported."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from csa_deploy.errors import UsageError
from csa_deploy.export.scopes import keep_scopes, scopes_from_names

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

# Newest opset that each TensorRT's parser takes whole: TensorRT 8.6 stops at 17 (its parser's operator list);
# 18 is the dynamo exporter's native opset and within the range of TensorRT 10 and 11.
OPSET_FOR_TENSORRT = {"8.6": 17, "10": 18, "11": 18}


@dataclass(frozen=True)
class Exported:
    """An exported graph.

    Attributes:
        model: the graph with its weights.
        exporter: ``"dynamo"`` or ``"torchscript"``: which one made it.
        opset: opset of the graph.
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
) -> Exported:
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
    if exporter == "torchscript":
        return Exported(_torchscript(module, inputs, output_names, opset), "torchscript", opset)
    try:
        model = _dynamo(module, inputs, output_names, opset)
        found = _opset(model)
        if found == opset:
            return Exported(model, "dynamo", opset)
        reason = f"the dynamo exporter made opset {found} where {opset} was asked for"
    except Exception as error:  # the exporter raises many types, torch's own among them
        reason = f"the dynamo exporter failed: {_one_line(error)}"
    if exporter == "dynamo":
        raise UsageError(reason, fix="use --exporter auto, or change the module where the message says")
    logger.warning("%s; using the TorchScript exporter", reason)
    try:
        model = _torchscript(module, inputs, output_names, opset)
    except Exception as error:
        raise UsageError(
            f"the network cannot be exported: {reason}; the TorchScript exporter failed: {_one_line(error)}",
            fix="change the module where the messages say",
        ) from None
    return Exported(model, "torchscript", opset, [f"{reason}; exported with TorchScript instead"])


def _dynamo(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int) -> onnx.ModelProto:
    import torch

    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            optimize=False,  # the plain graph is the evidence; `optimize` rewrites it with proof
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    keep_scopes(model, native=scopes_of_program(program))
    return model


def scopes_of_program(program: Any) -> dict[str, str]:
    """Module scopes by node name, read before a down-conversion of the opset can lose them."""
    return {
        node.name: scopes
        for node in program.model.graph
        if node.name and (scopes := node.metadata_props.get("pkg.torch.onnx.name_scopes"))
    }


def _torchscript(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int) -> onnx.ModelProto:
    import torch

    stream = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            stream,
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=False,
        )
    model = onnx.load_model_from_string(stream.getvalue())
    keep_scopes(model, native=scopes_from_names(model))
    return model


def _opset(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk about their own internals; errors still arrive as exceptions."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch.onnx._internal.exporter")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for quiet, _ in before:
        quiet.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for quiet, level in before:
            quiet.setLevel(level)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
