"""Whether a graph holds what a plan says, as trtexec itself would not tell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import TensorProto

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import TensorInfo
from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import opset_of, stated_types
from csa_deploy.graph.load import load_model, require_static
from csa_deploy.trtexec.formats import require_dla_formats, with_formats
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import LAST_OPSET_OF_8, Version

# TensorRT's names of the ONNX types that network inputs and outputs can have.
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.BFLOAT16: "BF16",
}


def check_graph(
    model_path: Path, plan: BuildPlan, options: TrtexecOptions, version: Version
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of a graph that holds what the plan says, as the engine will have them.

    trtexec itself would not say: without Q/DQ and calibration cache, ``--int8`` makes up its ranges. Where it is weakly
    typed (8.6, and DLA up to 10.7), FP16 is its own choice, made on an FP32 graph.

    Raises:
        UsageError: it does not, or an axis is dynamic.
    """
    model = load_model(model_path, full_check=False)
    require_static(model)
    require_opset(opset_of(model), model_path.name, version)
    stated = stated_types(model)
    halves, quantized = stated.half, stated.quantized
    calibrated = options.calibration_cache is not None
    if calibrated and quantized:
        raise UsageError(
            f"{model_path.name} holds Q/DQ nodes, with which TensorRT ignores a calibration cache",
            fix="build the FP32 graph with the cache, or this one without",
        )
    weak = options.weakly_typed(version)
    if weak and version.strongly_typed and halves:
        raise UsageError(
            f"{model_path.name} holds FP16 tensors, and for DLA TensorRT {version} makes the precision itself",
            fix="build the FP32 graph",
        )
    fits = {
        "fp32": not halves and not quantized,
        "fp16": halves or weak,
        "int8": quantized or calibrated,
    }
    if not fits[plan.precision]:
        need = "Q/DQ nodes or a calibration cache" if plan.precision == "int8" else "that precision in its types"
        raise UsageError(
            f"{model_path.name} is no {plan.precision} graph: it lacks {need}"
            if plan.precision != "fp32"
            else f"{model_path.name} is no fp32 graph: it holds FP16 or quantized tensors",
            fix="build the graph that the precision stage made for this precision",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = _infos(v for v in model.graph.input if v.name not in weights)
    given = {"input_formats": inputs, "output_formats": _infos(model.graph.output)}
    found = []
    for option, tensors in given.items():
        formats = getattr(options, option)
        found.append(with_formats(tensors, formats, option, version, weak=weak))
        if options.loadable:
            require_dla_formats(found[-1], formats, option)
    return found[0], found[1]


def require_opset(opset: int, name: str, version: Version) -> None:
    """Refuse a graph that is newer than the TensorRT that is to read it.

    TensorRT 8.6 can read a newer graph as an older one and compute something else.

    Reductions whose axes are an input did (NVIDIA/TensorRT issue 3467); TensorRT 10 refuses what it does not know.
    """
    if not version.strongly_typed and opset > LAST_OPSET_OF_8:
        raise UsageError(
            f"{name} is of opset {opset}, TensorRT {version} takes up to {LAST_OPSET_OF_8}",
            fix="add --tensorrt 8.6, so that the graph is exported for it",
        )


def _infos(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    return tuple(_info(value) for value in values)


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES:
        raise UsageError(f"{value.name!r} is of a type that TensorRT has not", fix="export it as FP32 or FP16")
    shape = tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in tensor.shape.dim)
    return TensorInfo(value.name, _TYPES[tensor.elem_type], shape)
