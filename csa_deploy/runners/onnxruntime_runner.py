"""Runs an ONNX graph in ONNX Runtime: the same file that the engine builder gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.data.prefetch import CORES
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.runners.base import check_feeds
from csa_deploy.spec import Arrays, TensorSpec, stated_sample

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""Execution providers by the name that a user gives."""

# Without these CUDA would round FP32 inputs of convolutions to TF32; TensorRT has no such setting of its own.
_CUDA = (PROVIDERS["cuda"], {"use_tf32": "0"})
_TENSORRT = {"fp32": {}, "fp16": {"trt_fp16_enable": "1"}, "int8": {"trt_int8_enable": "1", "trt_fp16_enable": "1"}}

# It makes INT32 of the bias of a convolution between Q/DQ, and computes its scale in the type of the others: in FP16
# that scale underflows, and the outputs are another network's (1.32: 7 dB where the graph as it stands has 26).
_UNFAITHFUL = ["WeightBiasQuantization"]
# Of a layer normalisation in FP32 with a scale in FP16 it makes one node of two types, which does not load (1.32).
_LAYER_NORMALISATION = ["LayerNormFusionL1", "LayerNormFusionL2"]

# ONNX Runtime's names of element types -> NumPy's. Types that NumPy cannot hold are refused by name.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxRuntimeRunner:
    """An ONNX graph on one execution provider. The session exists from ``__init__`` on, so errors come early.

    Args:
        model: path of the graph (external data is found beside it), or the serialized graph.
        provider: execution provider; no other is tried when it is missing, but nodes that a GPU's provider has no
            kernel for run on the next of TensorRT, CUDA, CPU.
        precision: what the graph's types state, which TensorRT's provider must be told.
        threads: intra-op threads; None leaves the number to ONNX Runtime (one per core).
        optimize: whether ONNX Runtime may rewrite the graph; False executes the nodes as they stand, which keeps the
            rounding of every intermediate tensor of a reduced-precision graph as far as the provider has the kernels.
        spin: whether idle threads wait busily, as ONNX Runtime does by default. It lowers the latency of one session
            that has the machine to itself, and makes several sessions side by side many times slower.

    Raises:
        UsageError: the file is missing, the graph does not load, or a tensor has a type NumPy lacks.
        EnvironmentLacksError: this ONNX Runtime does not have the provider, or it does not start here.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        provider: str = CPU,
        precision: str = "fp32",
        threads: int | None = None,
        optimize: bool = True,
        spin: bool = True,
        name: str = "onnxruntime",
    ) -> None:
        self.name = name
        self._provider = provider
        self._precision = precision
        self._threads = threads
        self._optimize = optimize
        self._spin = spin
        self._session: onnxruntime.InferenceSession | None = self._open(model)
        self.sample = stated_sample(self._session.get_modelmeta().custom_metadata_map)
        self.input_specs = tuple(self._spec(value) for value in self._session.get_inputs())
        self.output_specs = tuple(self._spec(value) for value in self._session.get_outputs())

    def describe(self) -> dict[str, Any]:
        """What executes."""
        import onnxruntime

        return {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": self._provider,
            "threads": self._threads or "one per core",
            "spin": self._spin,
            "executes": (
                "the ONNX graph, optimised by ONNX Runtime" if self._optimize else "the ONNX graph node by node"
            )
            + ("" if self._provider == CPU else "; nodes that the provider lacks on the next one"),
        }

    @property
    def host_threads(self) -> int:
        """ONNX Runtime's intra-op threads; none where a GPU's provider runs the graph."""
        return (self._threads or CORES) if self._provider == CPU else 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        if self._session is None:
            raise UsageError(f"{self.name} is closed", fix="use it inside its with block")
        check_feeds(self.input_specs, feeds)
        try:
            results = self._session.run(None, {name: np.ascontiguousarray(array) for name, array in feeds.items()})
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise UsageError(
                f"{self.name}: ONNX Runtime stopped at a node: {_first_line(error)}",
                fix="check the graph's shapes and types at that node",
            ) from error
        return {spec.name: np.asarray(result) for spec, result in zip(self.output_specs, results, strict=True)}

    def __enter__(self) -> OnnxRuntimeRunner:
        """The session is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the session and its memory."""
        self._session = None

    def _open(self, model: Path | bytes) -> onnxruntime.InferenceSession:
        import onnxruntime

        require_provider(self._provider)
        if isinstance(model, Path) and not model.is_file():
            raise UsageError(f"no such file: {model}", fix="check the path")
        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if self._optimize else levels.ORT_DISABLE_ALL
        options.log_severity_level = 4  # errors are raised as well; printing them too would say them twice
        options.intra_op_num_threads = self._threads or 0
        if not self._spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = self._load(str(model) if isinstance(model, Path) else model, options)
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise UsageError(
                f"{model if isinstance(model, Path) else self.name} does not load in "
                f"ONNX Runtime {onnxruntime.__version__}: {_first_line(error)}",
                fix="export the network again, or check the file with `csa-deploy check`",
            ) from error
        if self._provider not in session.get_providers():  # ONNX Runtime itself only prints a warning
            raise EnvironmentLacksError(
                f"ONNX Runtime {onnxruntime.__version__} has {self._provider}, but it does not start here",
                fix="install the GPU's driver and the CUDA, cuDNN and TensorRT libraries of that version",
            )
        return session

    def _load(self, source: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        """A session; without the fusion of layer normalisations where what it makes does not load."""
        from onnxruntime import InferenceSession

        chain = self._chain()
        try:
            return InferenceSession(source, options, providers=chain, disabled_optimizers=_UNFAITHFUL)
        except Exception as error:  # as above
            if "/LayerNormFusion/" not in str(error):
                raise
        disabled = [*_UNFAITHFUL, *_LAYER_NORMALISATION]
        return InferenceSession(source, options, providers=chain, disabled_optimizers=disabled)

    def _chain(self) -> list[Any]:
        """The provider and those after it, each with its options."""
        if self._provider == PROVIDERS["tensorrt"]:
            return [(self._provider, _TENSORRT[self._precision]), _CUDA, CPU]
        return [_CUDA, CPU] if self._provider == PROVIDERS["cuda"] else [self._provider]

    def _spec(self, value: Any) -> TensorSpec:
        if value.type not in _DTYPES:
            raise UsageError(
                f"{self.name}: {value.name!r} is a {value.type}, which cannot be fed or read",
                fix="export the network with float32, float16, integer or bool inputs and outputs",
            )
        shape = tuple(extent if isinstance(extent, int) else None for extent in value.shape)
        return TensorSpec(value.name, shape, _DTYPES[value.type])


def require_provider(provider: str) -> None:
    """Raise EnvironmentLacksError when this ONNX Runtime does not have an execution provider."""
    import onnxruntime

    has = onnxruntime.get_available_providers()
    if provider not in has:
        raise EnvironmentLacksError(
            f"ONNX Runtime {onnxruntime.__version__} has no {provider}; it has {', '.join(has)}",
            fix="use the CPU, or install onnxruntime-gpu in place of onnxruntime on a machine with an NVIDIA GPU",
        )


def _first_line(error: Exception) -> str:
    """ONNX Runtime's message without its status prefix and further lines."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.split(" : ", 3)[-1]
