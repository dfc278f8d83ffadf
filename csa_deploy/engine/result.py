"""What an engine build gave, with its evidence. Imports nothing heavy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.records.build import BuiltEngine, EngineRecord, JudgedScope, TensorInfo
from csa_deploy.records.obtained import ObtainedPrecision


@dataclass(frozen=True)
class ParsedLayer:
    """One layer that NVIDIA's parser made.

    Attributes:
        index: position in the network.
        name: layer name; the parser makes it unique, so it can differ from the node's.
        type: TensorRT layer type (``"CONVOLUTION"``).
        onnx_node: ONNX node that the layer comes from; empty for what the parser adds itself (constants). For a node
            in a local function: ``node | calling node (function)``.
        inputs: input tensors, in order; optional inputs that are absent are left out.
        outputs: output tensors, in order.
    """

    index: int
    name: str
    type: str
    onnx_node: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, kw_only=True)
class BuildResult(BuiltEngine):
    """A finished build.

    Attributes:
        engine: path of the engine file.
        engine_bytes: size of the engine file.
        engine_sha256: hash of the engine file. TensorRT-RTX gives the same bytes for the same graph, plan and
            version; TensorRT times tactics, so its engines differ between builds.
        log: path of the builder's log; it holds durations, so it is no reproducible artifact.
        inspection: path of the engine inspector's JSON; None when it could not run (``not_done`` says why).
        layers: the parsed network, before the builder's fusions.
        parse_seconds: wall time of parsing; None where trtexec does not tell it.
        build_seconds: wall time of building; with trtexec that of parsing as well, as it prints it.
        peak_memory_bytes: largest resident memory of the build process; None for one on a target.
    """

    plan: BuildPlan
    engine: Path
    engine_bytes: int
    engine_sha256: str
    log: Path
    inspection: Path | None
    layers: tuple[ParsedLayer, ...]
    parse_seconds: float | None
    build_seconds: float | None
    peak_memory_bytes: int | None

    @property
    def layer_counts(self) -> dict[str, int]:
        """Layers per TensorRT type, most frequent first."""
        return dict(Counter(layer.type for layer in self.layers).most_common())

    @property
    def dtype_counts(self) -> dict[str, int]:
        """Layer outputs per TensorRT type, most frequent first."""
        return dict(Counter(tensor.dtype for layer in self.layers for tensor in layer.outputs).most_common())

    def stated(
        self, scopes: tuple[JudgedScope, ...], obtained: ObtainedPrecision, *, reproducible: bool
    ) -> EngineRecord:
        """What a workspace says of it, whose folder ``engines`` holds all of its files.

        Args:
            scopes: what scopes say of it.
            reproducible: whether the same inputs give the same bytes.
        """
        name = self.engine.name
        return EngineRecord(
            **{item.name: getattr(self, item.name) for item in fields(BuiltEngine)},
            plan=self.plan.to_json(),
            path=f"engines/{name}",
            engine=name,
            engine_mib=round(self.engine_bytes / 2**20, 1),
            engine_bytes=self.engine_bytes if reproducible else None,
            engine_sha256=self.engine_sha256 if reproducible else None,
            log=f"engines/{self.log.name}",
            inspection=self.inspection.name if self.inspection else None,
            network=f"engines/{name}.network.json",
            passport=f"engines/{name}.passport.json",
            layer_counts=self.layer_counts,
            dtype_counts=self.dtype_counts,
            scopes=scopes,
            obtained=obtained,
        )
