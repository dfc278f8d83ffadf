"""The validator's process for probes: builds each probe's network, reads its layers back, asks for the verdict.

Started like ``validator_child.py``. A request is ``{"statements": [...]}`` (TensorRT's API) or ``{"onnx": ...}`` (a
model in base64); the answer carries the verdict and the facts of the network and of each of its layers.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))  # isolated mode leaves the project's folder out

from csa_deploy.restricted.validator_child import Answer, Request, Validator, main, parser_errors
from tools.probe.facts import layer_facts, network_facts
from tools.probe.networks import NetworkFromProbe


def answer_probe(validator: Validator, request: Request) -> Answer:
    """Answer one probe."""
    network = validator.network()
    keep: Any  # owns the weights until the build is over
    if "onnx" in request:
        keep = validator.trt.OnnxParser(network, validator.logger)
        if not keep.parse(base64.b64decode(request["onnx"])):
            return {"parsed": False, "rows": parser_errors(keep)}
    else:
        keep = NetworkFromProbe(validator.trt, network)
        try:
            keep.add(request["statements"])
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            rows = [row for row in validator.rows if row[0] == "ERROR"]
            return {"parsed": False, "rows": rows or [("ERROR", str(error))]}
    verdict = validator.verdict(network, full=request.get("full", False), values=request.get("values"))
    constants: set[str] = set()
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    names = [layer.name for layer in layers]
    facts = [layer_facts(validator.trt, layer, constants) for layer in layers]
    return {"parsed": True, **verdict, "names": names, "facts": [network_facts(network), *facts]}


if __name__ == "__main__":
    main(answer_probe)
