"""Which input sizes keep PyTorch, ONNX shape inference and ONNX Runtime in agreement."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx

from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.export.compare import max_error
from csa_deploy.export.exporter import export_module
from csa_deploy.export.opsets import exported_opset
from csa_deploy.results import Stored
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.source import Source

OK = "ok"


@dataclass(frozen=True)
class SweepRow(Stored):
    """What each tool said to one input size; ``"ok"`` or the reason why not.

    Attributes:
        size: side of the square input in pixels.
        pytorch: eager PyTorch runs.
        shape_inference: strict ONNX shape inference gives the shapes that PyTorch had, for every tensor.
        onnxruntime: ONNX Runtime loads the graph and runs it.
        relative_error: largest difference of any output relative to its range; None when one did not run.
    """

    derived: ClassVar[tuple[str, ...]] = ("agrees",)
    size: int
    pytorch: str
    shape_inference: str
    onnxruntime: str
    relative_error: float | None

    @property
    def agrees(self) -> bool:
        """All three agree."""
        return self.pytorch == self.shape_inference == self.onnxruntime == OK


def parse_sweep(text: str) -> list[int]:
    """``START:STOP:STEP`` in pixels, both ends included, to the list of sides.

    Raises:
        UsageError: another form, or a step below 1.
    """
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text)
    if not match or int(match[3]) < 1 or int(match[1]) > int(match[2]):
        raise UsageError(f"--sweep '{text}' is not START:STOP:STEP", fix="write for example --sweep 192:1024:32")
    return list(range(int(match[1]), int(match[2]) + 1, int(match[3])))


def sweep(source: Source, config: Config, sizes: Sequence[int]) -> Iterator[SweepRow]:
    """One row per size, as they are found."""
    if source.kind == "onnx":
        raise UsageError(f"{source.spec}: an ONNX file has one input size", fix="sweep the PyTorch network instead")
    for size in sizes:
        yield _row(source, config, size)


def _row(source: Source, config: Config, size: int) -> SweepRow:
    try:
        network = source.make_network(input_size=(size, size), batch=config.batch)
        runner = TorchRunner(network.module, network.input_specs, network.output_names)
        feeds = random_feeds(network.input_specs, config.seed)
        expected = runner.run(feeds)
    except (CsaDeployError, RuntimeError, ValueError) as error:
        reason = f"refused: {str(error).splitlines()[0]}"
        return SweepRow(size, reason, "not run", "not run", None)
    opset = exported_opset(config)
    try:
        model = export_module(
            network.module, network.inputs, network.output_names, opset=opset, exporter=config.exporter
        ).model
    except UsageError as error:
        return SweepRow(size, OK, f"not exported: {error.message}", "not run", None)
    inferred = check_shapes(model)
    try:
        with OnnxRuntimeRunner(model.SerializeToString(), name=f"{size} px") as session:
            actual = session.run(feeds)
    except UsageError as error:
        return SweepRow(size, OK, inferred, error.message, None)
    errors = [
        max_error(want, actual[name]) / (float(want.max() - want.min()) or 1.0) for name, want in expected.items()
    ]
    return SweepRow(size, OK, inferred, OK, max(errors))


def check_shapes(model: onnx.ModelProto) -> str:
    """``"ok"`` when strict shape inference finds the shapes that the exporter took from PyTorch."""
    stated = {v.name: _shape(v) for v in (*model.graph.value_info, *model.graph.output)}
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        return str(error).strip().splitlines()[0]
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        shape = _shape(value)
        if value.name in stated and shape and 0 not in shape and shape != stated[value.name]:
            return f"{value.name}: {list(shape)}, PyTorch has {list(stated[value.name])}"
    return OK


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
