"""The process that reads NVIDIA's parser back: parses ONNX files with TensorRT-RTX and prints the layers it built.

One JSON line per file given on the command line. Runs apart because the parser is native code and may abort.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

_ORIGIN = re.compile(r"\[ONNX Layer: (.*?)\]")


def read_back(trt: Any, path: str) -> dict[str, Any]:
    """Layers of one file, without those that only compute constants: ``[type, ONNX node]``; or the parser's errors."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"version": trt.__version__, "errors": errors or ["no reason given"]}
    constants: set[str] = set()
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = str(layer.type).rpartition(".")[2].replace("KV_CACHE", "KVCACHE")
        if _is_constant(layer, kind, constants):
            constants.update(layer.get_output(number).name for number in range(layer.num_outputs))
        else:
            origin = _ORIGIN.search(layer.metadata)
            layers.append([kind, origin.group(1) if origin else ""])
    return {"version": trt.__version__, "layers": layers}


def _is_constant(layer: Any, kind: str, constants: set[str]) -> bool:
    inputs = [tensor for number in range(layer.num_inputs) if (tensor := layer.get_input(number)) is not None]
    if kind == "SHAPE":
        return all(_is_static(tensor) for tensor in inputs)
    return kind == "CONSTANT" or (bool(inputs) and all(tensor.name in constants for tensor in inputs))


def _is_static(tensor: Any) -> bool:
    try:
        return -1 not in tuple(tensor.shape)
    except ValueError:  # the rank itself is not known
        return False


def main() -> None:
    """Answer for each file named on the command line."""
    import tensorrt_rtx as trt

    for path in sys.argv[1:]:
        sys.stdout.write(json.dumps(read_back(trt, path)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
