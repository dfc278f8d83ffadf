"""One quantizer on one graph: ``python quantize.py SETTING GRAPH IMAGES.npz OUTPUT``, by the Python that has it.

Only the tool, NumPy and ONNX are imported. Each setting is one that the tool's documentation names, with INT8 for
activations and weights of all layers.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]


def csa_deploy(graph: str, images: str, output: str, **settings: Any) -> None:
    """All layers in INT8: without the search that gives layers back."""
    import csa_deploy

    found = csa_deploy.quantize(graph, calib=images, search=False, **settings)
    found.save(output)


def onnxruntime(graph: str, images: str, output: str, *, method: str, **settings: Any) -> None:
    """``quantize_static`` after its own preparation, symmetric per channel, as its page on TensorRT asks."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = str(Path(output).with_suffix(".prepared.onnx"))
    quant_pre_process(graph, prepared)
    quantize_static(
        prepared,
        output,
        _reader(images),
        calibrate_method=CalibrationMethod[method],
        per_channel=True,
        activation_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, **settings},
    )
    Path(prepared).unlink()


def modelopt(graph: str, images: str, output: str, *, method: str) -> None:
    """Its ONNX quantization; what is not INT8 stays FP32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        graph,
        quantize_mode="int8",
        calibration_data_reader=_reader(images),
        calibration_method=method,
        high_precision_dtype="fp32",
        output_path=output,
    )


def nncf(graph: str, images: str, output: str, **settings: Any) -> None:
    """``nncf.quantize`` with its default preset."""
    import nncf
    import onnx

    feeds = list(_feeds(images))
    found = nncf.quantize(onnx.load(graph), nncf.Dataset(feeds), subset_size=len(feeds), **settings)
    onnx.save(found, output)


def aimet(graph: str, images: str, output: str, *, scheme: str) -> None:
    """Cross-layer equalization, then a simulation whose encodings are exported as Q/DQ."""
    import aimet_onnx.cross_layer_equalization
    import onnx

    model = onnx.load(graph)
    aimet_onnx.cross_layer_equalization.equalize_model(model)
    sim = aimet_onnx.QuantizationSimModel(model, quant_scheme=scheme, providers=["CPUExecutionProvider"])
    sim.compute_encodings(list(_feeds(images)))
    onnx.save(sim.to_onnx_qdq(), output)


def quark(graph: str, images: str, output: str, *, config: str) -> None:
    """A named configuration of its ONNX quantizer."""
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    ModelQuantizer(Config(global_quant_config=get_default_config(config))).quantize_model(
        graph, output, _reader(images)
    )


def _feeds(images: str) -> Iterator[Feeds]:
    with np.load(images) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    for index in range(len(next(iter(inputs.values())))):
        yield {name: array[index : index + 1] for name, array in inputs.items()}


def _reader(images: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.rewind()

        def rewind(self) -> None:
            self.feeds = _feeds(images)

        def get_first(self) -> Feeds:
            return next(_feeds(images))

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

    return Reader()


Setting = tuple[str, Callable[..., None], dict[str, Any], tuple[str, ...]]
SETTINGS: dict[str, Setting] = {
    "csa-deploy": ("csa-deploy", csa_deploy, {}, ("csa-deploy", "onnxruntime")),
    "csa-deploy, no techniques": ("csa-deploy", csa_deploy, {"techniques": []}, ("csa-deploy", "onnxruntime")),
    "ONNX Runtime, minmax": ("onnxruntime", onnxruntime, {"method": "MinMax"}, ("onnxruntime",)),
    "ONNX Runtime, entropy": ("onnxruntime", onnxruntime, {"method": "Entropy"}, ("onnxruntime",)),
    "ONNX Runtime, percentile": ("onnxruntime", onnxruntime, {"method": "Percentile"}, ("onnxruntime",)),
    "Model Optimizer, entropy": ("modelopt", modelopt, {"method": "entropy"}, ("nvidia-modelopt", "onnxruntime-gpu")),
    "Model Optimizer, max": ("modelopt", modelopt, {"method": "max"}, ("nvidia-modelopt", "onnxruntime-gpu")),
    "NNCF, default": ("nncf", nncf, {}, ("nncf", "onnxruntime")),
    "NNCF, accurate bias correction": ("nncf", nncf, {"fast_bias_correction": False}, ("nncf", "onnxruntime")),
    "AIMET-ONNX, min_max": ("aimet", aimet, {"scheme": "min_max"}, ("aimet-onnx", "onnxruntime")),
    "AIMET-ONNX, tf_enhanced": ("aimet", aimet, {"scheme": "tf_enhanced"}, ("aimet-onnx", "onnxruntime")),
    "Quark, INT8_CNN_DEFAULT": ("quark", quark, {"config": "INT8_CNN_DEFAULT"}, ("amd-quark", "onnxruntime")),
    "Quark, INT8_CNN_ACCURATE": ("quark", quark, {"config": "INT8_CNN_ACCURATE"}, ("amd-quark", "onnxruntime")),
}
"""By name of a row: whose environment runs it, how, with what, and the distributions whose versions count."""


def main(setting: str, graph: str, images: str, output: str) -> None:
    """Quantize, then print the versions and the most memory that was held as the last line."""
    _, function, settings, packages = SETTINGS[setting]
    function(graph, images, output, **settings)
    versions = {name: metadata.version(name) for name in itertools.chain(packages, ["onnx", "numpy"])}
    # What the system tells a parent of its child counts the parent's own memory, where that is more.
    status = Path("/proc/self/status").read_text().splitlines()
    (held,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"peak_mib": round(int(held) / 1024), "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
