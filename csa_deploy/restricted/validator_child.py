"""The process in which NVIDIA's validator runs: one JSON request per input line, one JSON answer per output line.

Started by :mod:`csa_deploy.restricted.validator` in isolated mode with the validator's directory as its
argument. It imports nothing but the standard library and the validator, so that neither the caller's packages
nor its environment variables take part.

TensorRT validates the safety scope before it clones the network, which is the first phase it announces to a
progress monitor. Cancelling there gives the verdict in about a millisecond, and gives one also for networks that
this version accepts but cannot compile (INT8 convolutions).
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, TextIO

Request = dict[str, Any]
Answer = dict[str, Any]
Values = dict[str, list[int]]


def load(directory: str) -> Any:
    """Import the validator from its directory and nowhere else.

    Raises:
        ImportError: it is not there.
    """
    sys.path.insert(0, directory)
    import tensorrt_rtx_bindings as trt

    if not trt.__file__.startswith(directory):
        raise ImportError(f"no TensorRT-RTX in {directory}")
    return trt


class Validator:
    """One TensorRT builder, asked about one network after another."""

    def __init__(self, trt: Any, compute_capability: str) -> None:
        self.trt = trt
        self.capability = getattr(trt.ComputeCapability, "SM" + compute_capability.replace(".", ""))
        self.rows: list[tuple[str, str]] = []
        self.logger = _logger(trt, self.rows)
        self.builder = trt.Builder(self.logger)

    def network(self) -> Any:
        """Return an empty strongly typed network, the only kind that is validated."""
        self.rows.clear()
        return self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def parse(self, path: str) -> tuple[Any, Any]:
        """Parse an ONNX file.

        Returns:
            The network and the parser, which owns the weights and must outlive it; the network is None when
            the parser refuses the file.
        """
        network = self.network()
        parser = self.trt.OnnxParser(network, self.logger)
        return (network if parser.parse_from_file(path) else None), parser

    def verdict(self, network: Any, *, full: bool = False, values: Values | None = None) -> Answer:
        """Validate a network; with ``full`` the build goes on, to see that nothing later refuses it.

        ``values`` are those of inputs that shape the network, by name; by default each is 1.
        """
        trt = self.trt
        config = self.builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.capability, 0)
        config.set_flag(trt.BuilderFlag.SAFETY_SCOPE)
        self._add_profile(network, config, values or {})
        phases: list[str] = []
        config.progress_monitor = _monitor(trt, phases, cancel=not full)
        built = self.builder.build_serialized_network(network, config)
        rows = [row for row in self.rows if row[0] in ("ERROR", "WARNING", "INTERNAL_ERROR") and not _is_noise(row[1])]
        return {"reached_build": bool(phases), "built": built is not None, "rows": rows}

    def _add_profile(self, network: Any, config: Any, values: Values) -> None:
        """Give dynamic inputs some shape: without one TensorRT stops before it says that validation is skipped.

        So do inputs whose values are shapes: TensorRT wants to know their range.
        """
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        if not any(-1 in tensor.shape or tensor.is_shape_tensor for tensor in inputs):
            return
        profile = self.builder.create_optimization_profile()
        for tensor in inputs:
            shape = [1 if dim == -1 else dim for dim in tensor.shape]
            if tensor.is_shape_tensor:
                value = values.get(tensor.name) or [1] * (shape[0] if shape else 1)
                profile.set_shape_input(tensor.name, value, value, value)
            else:
                profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)


def _is_noise(message: str) -> bool:
    """Tell the two lines that every cancelled build without a GPU ends with."""
    return "BuildCanceled" in message or "catchCudaError" in message


def _logger(trt: Any, rows: list[tuple[str, str]]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            rows.append((str(severity).rpartition(".")[2], message))

    return Logger()


def _monitor(trt: Any, phases: list[str], *, cancel: bool) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phases.append(name)

        def step_complete(self, name: str, step: int) -> bool:
            return not cancel

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


def parser_errors(parser: Any) -> list[tuple[str, str]]:
    """Return the parser's errors as log rows."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return [("ERROR", f"{e.node_operator() or 'model'} {e.node_name()}: {e.desc()}") for e in errors]


def answer_model(validator: Validator, request: Request) -> Answer:
    """Answer a request for a model file: parse it, then validate it."""
    try:
        network, parser = validator.parse(request["model"])
        if network is None:
            rows = parser_errors(parser) or [row for row in validator.rows if row[0] == "ERROR"]
            return {"parsed": False, "rows": rows}
        return {
            "parsed": True,
            **validator.verdict(network, **{key: request[key] for key in ("full", "values") if key in request}),
        }
    except UnicodeDecodeError as error:
        return {"parsed": False, "rows": [("ERROR", f"a name in the model is not UTF-8: {error}")]}


def serve(
    answer: Callable[[Validator, Request], Answer], directory: str, capability: str, requests: TextIO, answers: TextIO
) -> None:
    """Answer requests until the input ends; the first line says which version answers."""
    trt = load(directory)
    validator = Validator(trt, capability)
    print(json.dumps({"version": trt.__version__}), file=answers, flush=True)
    for line in requests:
        print(json.dumps(answer(validator, json.loads(line))), file=answers, flush=True)


def main(answer: Callable[[Validator, Request], Answer] = answer_model) -> None:
    """Serve over the standard streams; native code that prints does so on the error stream instead."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is a finding; its core file would be litter
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(answer, sys.argv[1], sys.argv[2], sys.stdin, answers)


if __name__ == "__main__":
    main()
