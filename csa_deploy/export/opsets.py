"""Converts an ONNX file to another opset, and compares what it computes before and after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx.version_converter

from csa_deploy.errors import UsageError
from csa_deploy.export.exporter import OPSET_FOR_TENSORRT
from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.proof import Prover
from csa_deploy.graph.sessions import CannotRunError

if TYPE_CHECKING:
    from csa_deploy.config import Config

PER_CHANNEL = 13  # QuantizeLinear has an axis from here on
NEWEST = {"8.6": 17}  # what the parser of this TensorRT takes; those of 10 and 11 take what onnx converts to
_COORDINATES = 11  # Resize names its coordinates from here on
PROOFS = 2
_TOLERANCE = 1e-5
"""Largest relative difference of any output; the same operators give 0, another form of one gives rounding."""


@dataclass(frozen=True)
class Wish:
    """An opset to convert to, and why."""

    opset: int
    reason: str


def meant_for(config: Config) -> str:
    """The TensorRT that the graph is meant for, as 8.6, 10 or 11: the target's, where its file states one."""
    stated = config.tensorrt
    if config.target:
        from csa_deploy.trtexec.config import load_target

        stated = load_target(Path(config.target)).tensorrt or stated
    major = int(stated.split(".")[0])
    return "8.6" if major < 10 else "10" if major == 10 else "11"


def exported_opset(config: Config) -> int:
    """The opset to export in: the one asked for, else what the parser of that TensorRT takes whole."""
    return config.opset or OPSET_FOR_TENSORRT[meant_for(config)]


def wish_for(opset: int, config: Config) -> Wish | None:
    """The opset that a file needs here; None where its own will do."""
    if config.opset is not None:
        return Wish(config.opset, f"--opset {config.opset}") if config.opset != opset else None
    tensorrt = meant_for(config)
    newest = NEWEST.get(tensorrt, opset)
    if opset > newest:
        return Wish(newest, f"TensorRT {tensorrt} takes opset {newest} at most")
    if calibrates(config) and opset < PER_CHANNEL:
        return Wish(OPSET_FOR_TENSORRT[tensorrt], f"calibration for INT8 needs opset {PER_CHANNEL} or later")
    return None


def calibrates(config: Config) -> bool:
    """Whether the precision stage takes statistics for INT8."""
    return "int8" in config.precision or config.calib is not None


def convert(model: onnx.ModelProto, wish: Wish, seed: int) -> tuple[onnx.ModelProto, str]:
    """Convert a static model.

    Returns:
        The converted model, and what was done with the largest difference.

    Raises:
        UsageError: onnx cannot convert it, or the result computes something else.
    """
    what = f"opset {opset_of(model)} converted to {wish.opset} ({wish.reason})"
    fix = "give another --opset, or export the network again with it"
    try:
        converted = onnx.version_converter.convert_version(model, wish.opset)
    except Exception as error:  # the converter is C++ and raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rpartition("failed: ")[2]
        raise UsageError(f"{what}: onnx cannot: {reason}", fix=fix) from None
    if opset_of(model) < _COORDINATES:
        _keep_coordinates(converted.graph.node)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    oldest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", wish.opset)])
    converted.ir_version = max(model.ir_version, oldest)
    difference = _difference(model, converted, seed, what, fix)
    return converted, f"{what}: largest difference {difference:.1e} of the range on {PROOFS} random inputs"


def _keep_coordinates(nodes: Iterable[onnx.NodeProto]) -> None:
    """Say which pixels older Resize and Upsample take: onnx's converter leaves that out, and the default is another."""
    for node in nodes:
        said = {attribute.name for attribute in node.attribute}
        if node.op_type == "Resize":
            wanted = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in wanted.items() if k not in said)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _keep_coordinates(graph.node)


def _difference(model: onnx.ModelProto, converted: onnx.ModelProto, seed: int, what: str, fix: str) -> float:
    try:
        proof = Prover(model, proofs=PROOFS, tolerance=_TOLERANCE, seed=seed).prove(converted)
    except CannotRunError as error:
        raise UsageError(f"{what}: it does not run: {error}", fix=fix) from None
    if not proof.holds or proof.error is None:
        raise UsageError(f"{what}: {proof.reason or 'no output shows anything on random inputs'}", fix=fix)
    return proof.error
