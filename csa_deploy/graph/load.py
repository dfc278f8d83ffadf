"""Reading and writing ONNX files: every bad input is one clear line, every written file is deterministic.

Model files come from outside, so nothing in them is trusted: external data must lie inside the model's folder.
"""

from __future__ import annotations

import tempfile
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.graph.external import ExternalDataError, external_data, external_file, is_external, stated_location
from csa_deploy.graph.facts import all_tensors
from csa_deploy.graph.limits import MOST_ELEMENTS, require_bounded
from csa_deploy.graph.operators import ONNX_DOMAINS
from csa_deploy.graph.shapes import stored_bytes

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that one protobuf message can hold."""

EXTERNAL_DATA_FROM = 1_900_000_000
"""Bytes of weights from which :func:`save_model` puts them in a file of their own."""

_REEXPORT = "export the model again, or copy the file again"
_COPY = "copy the data file into the model's folder"
_TRUST = "only use models from a source you trust; external data must be a plain file beside the model"
_RESCALE = "`csa-deploy check FILE --fix` writes Resize scales that every tool rounds alike; then use the fixed file"


def load_model(path: Path, *, full_check: bool = True) -> onnx.ModelProto:
    """Read an ONNX file together with its external data.

    Args:
        full_check: also run shape inference over the graph and refuse contradictions. The restricted-mode checker
            and the repairs turn it off, because a contradiction is what they are there to find.

    Returns:
        The model, weights in memory.

    Raises:
        UsageError: the file is missing, is not ONNX, is damaged or too large, breaks the ONNX specification, or names
            external data that is missing, too short or outside the model's folder.
    """
    model = _parse(path)
    _require_opset(model, path)
    for tensor in all_tensors(model):
        if is_external(tensor):
            _load_external(tensor, path)
    _check(model, path, full_check)
    return model


def external_files(path: Path) -> dict[str, Path]:
    """External data of an ONNX file: name as it stands in the file -> file. :func:`load_model` checks them."""
    model = onnx.load(path, load_external_data=False)
    names = {external_data(tensor).location for tensor in all_tensors(model) if is_external(tensor)}
    return {name: path.parent / name for name in sorted(names)}


def _parse(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise UsageError(f"no such model file: {path}", fix="give the path of an existing .onnx file")
    if not path.is_file():
        raise UsageError(f"{path} is not a file", fix="give the path of an .onnx file")
    if path.stat().st_size > PROTOBUF_LIMIT:
        raise UsageError(
            f"{path} is larger than the 2 GB that one ONNX file can hold",
            fix="export it with external data (onnx.save_model(..., save_as_external_data=True))",
        )
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        raise UsageError(f"{path} is not an ONNX model, or is damaged or cut short", fix=_REEXPORT) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", fix="check the file's permissions") from None
    if not model.HasField("graph"):
        raise UsageError(f"{path} is not an ONNX model: it holds no graph", fix=_REEXPORT)
    require_bounded(model, str(path))
    types = set(onnx.TensorProto.DataType.values())
    for tensor in all_tensors(model):
        if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > MOST_ELEMENTS:
            raise UsageError(f"{path}: tensor '{tensor.name}' has impossible dimensions", fix=_REEXPORT)
        if tensor.data_type not in types:
            raise UsageError(f"{path}: tensor '{tensor.name}' has no known element type", fix=_REEXPORT)
    return model


def _require_opset(model: onnx.ModelProto, path: Path) -> None:
    if not any(entry.domain in ONNX_DOMAINS for entry in model.opset_import):
        raise UsageError(f"{path} does not say which ONNX operator set it uses", fix=_REEXPORT)


def _check(model: onnx.ModelProto, path: Path, full_check: bool) -> None:
    if weight_bytes(model) > EXTERNAL_DATA_FROM:  # does not fit the one message the checker takes; it takes a path
        subject: onnx.ModelProto | str = str(path)
    else:
        subject = model
    try:
        onnx.checker.check_model(subject, full_check=full_check)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, TypeError) as error:
        fix = _RESCALE if "Resize" in str(error) else _REEXPORT
        raise UsageError(f"{path} is not a valid ONNX model: {_one_line(error)}", fix=fix) from None
    try:
        ir.from_proto(model)  # what every reader does next; it refuses types and shapes that the checker lets pass
    except Exception as error:
        raise UsageError(f"{path} is not a valid ONNX model: {_root_cause(error)}", fix=_REEXPORT) from None


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] or type(error).__name__


def _load_external(tensor: onnx.TensorProto, model_path: Path) -> None:
    """Read one tensor's external data, refusing anything that is not a plain file below the model's folder."""
    where = f"external data '{stated_location(tensor)}' of tensor '{tensor.name}' in {model_path}"
    try:
        data = external_data(tensor)
        file = external_file(data.location, model_path.parent)
    except ExternalDataError as error:
        raise UsageError(f"{where} {error}", fix=_COPY if error.missing else _TRUST) from None
    size = file.stat().st_size
    if data.offset + (data.length or 0) > size:
        raise UsageError(
            f"{where} is cut short: {data.offset + (data.length or 0)} bytes named, {size} there",
            fix="copy the data file again",
        )
    try:
        load_external_data_for_tensor(tensor, str(model_path.parent.resolve()))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise UsageError(f"{where} cannot be read: {_one_line(error)}", fix="check the data file") from None
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def require_static(model: onnx.ModelProto) -> None:
    """Refuse a model with an input whose shape is not fixed.

    Raises:
        UsageError: names the first input and axis that is not fixed.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            _require_static_input(value)


def _require_static_input(value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    fix = f"csa-deploy export FILE --input-shape {value.name}=1x3x224x224 makes a copy with fixed sizes"
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise UsageError(f"input '{value.name}' is not a tensor of fixed shape", fix=fix)
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.dim_value <= 0:
            name = f" ('{dim.dim_param}')" if dim.dim_param else ""
            raise UsageError(f"input '{value.name}' has no fixed size on axis {axis}{name}", fix=fix)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all stored tensors."""
    return sum(stored_bytes(ir.serde.TensorProtoTensor(tensor)) for tensor in all_tensors(model) if tensor.data_type)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model so that the same model always gives the same bytes, and a killed write leaves nothing half-done.

    Weights beyond 1.9 GB go to ``<name>.data`` beside the file.

    Raises:
        EnvironmentLacksError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            draft = Path(scratch) / path.name
            data = Path(scratch) / f"{path.name}.data"
            if weight_bytes(model) > EXTERNAL_DATA_FROM:
                ir.save(ir.from_proto(model), draft, external_data=data.name)
                data.replace(path.with_name(data.name))
            else:
                draft.write_bytes(model.SerializeToString(deterministic=True))
            draft.replace(path)
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write {path}: {error.strerror or error}", fix="check space and permissions"
        ) from None
