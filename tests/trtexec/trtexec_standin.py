"""A stand-in for trtexec, for tests only: ``trtexec_standin.py VERSION [trtexec's arguments]``.

It takes the options that trtexec of VERSION has (their names are from its published sources), computes true outputs
with ONNX Runtime, and writes trtexec's own file formats. It says nothing about TensorRT: no engine of it is an engine.

STANDIN_SAY makes it print that line as an error and fail, STANDIN_WARN as a warning; STANDIN_SLEEP makes it wait before
it works.
"""

from __future__ import annotations

import json
import os
import signal
import string
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import standin_remote
from standin_parser import FailedError, options_of, parse
from standin_remote import log

TYPES = {"float32": "Float", "float16": "Half", "int8": "Int8", "int32": "Int32", "bool": "Bool", "uint8": "UInt8"}


def require_types(model, options: dict[str, str], version: tuple[int, ...]) -> None:
    """The type check of strongly typed builds from 10.15."""
    if not (10, 15) <= version < (11,) or "--stronglyTyped" not in options:
        return
    for option, tensors in (("--inputIOFormats", model.graph.input), ("--outputIOFormats", model.graph.output)):
        for value, item in zip(tensors, options.get(option, "").split(","), strict=False):
            inferred = {1: "fp32", 10: "fp16"}[value.type.tensor_type.elem_type]
            if item and item.split(":")[0] != inferred:
                raise FailedError(
                    f'Input tensor "{value.name}": Requested input type {item.split(":")[0]} via {option} does not '
                    f"match the inferred type {inferred} for a strongly typed network. Failing build."
                )


def require_sound(options: dict[str, str], version: tuple[int, ...]) -> None:
    """Combinations that the parser takes, and on which trtexec or TensorRT fails later."""
    typed = version >= (10,) and ("--stronglyTyped" in options or version >= (11,) or "--safe" in options)
    dla = "--useDLACore" in options
    if dla and (10,) <= version < (11,) and typed and "--safe" not in options:
        # trtexec's DLA branch sets FP16 by itself; TensorRT's words of NVIDIA/TensorRT issue 4228.
        raise FailedError(
            "Error[3]: API Usage Error (Parameter check failed, condition: !config.getFlag(BuilderFlag::kFP16).)"
        )
    if "--calib" in options and "--safe" in options and version >= (10, 14):
        raise FailedError("Error[3]: API Usage Error (a strongly typed network takes no precision flags)")
    if "--safe" in options and "--exportProfile" in options:
        raise FailedError("Safe runtime does not support --dumpProfile or --exportProfile=<file>.")
    if "--loadEngine" in options and "--safe" in options and dla:
        raise FailedError("Safe DLA capability is detected. Please save DLA loadable and use dla_safety_runtime.")


def session(model: bytes):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


HOST_CODE = b"\1"  # the lean runtime that a version-compatible engine brings
KERNELS = bytes(4096)
"""A real plan holds kernels beside the weights: no network is so small that its plan is."""


def export_layers(model, options: dict[str, str], version: tuple[int, ...]) -> None:
    if "--exportLayerInfo" in options and "--buildDLAStandalone" in options and version < (10,):
        os.kill(os.getpid(), signal.SIGSEGV)  # 8.6.1 trtexec.cpp:444
    if "--exportLayerInfo" in options and not {"--safe", "--buildDLAStandalone"} & options.keys():
        half = "--fp16" in options or any(t.data_type == 10 for t in model.graph.initializer)
        layers = [
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Outputs": [{"Name": out, "Format/Datatype": "Half" if half else "Float"} for out in node.output],
                "TacticName": f"standin_{node.op_type.lower()}",
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in model.graph.node
        ]
        Path(options["--exportLayerInfo"]).write_text(json.dumps({"Layers": layers, "Bindings": []}))


def read_model(options: dict[str, str]):
    import onnx

    try:
        model = onnx.load(options["--onnx"])  # with the weights that lie beside it
        onnx.checker.check_model(model)
    except OSError:
        raise FailedError(f"Could not open file {options['--onnx']}") from None
    except Exception:
        raise FailedError("Failed to parse onnx file") from None
    for option in ("--inputIOFormats", "--outputIOFormats"):
        if option in options:
            model.metadata_props.add(key=option, value=options[option])
    return model


def refuse(model, options: dict[str, str], version: tuple[int, ...]) -> None:
    """What the builder refuses of a model."""
    require_types(model, options, version)
    if "--restricted" in options and version < (10, 16):
        for node in model.graph.node:
            if node.op_type == "LRN":
                raise FailedError(f'Layer {{LRN}} "{node.name}" failed safety scope validation')
    if "--calib" in options and not Path(options["--calib"]).read_text().startswith("TRT-"):
        raise FailedError("Calibration failure occurred with no scaling factors detected.")


def build(options: dict[str, str], version: tuple[int, ...]) -> bytes:
    model = read_model(options)
    content = model.SerializeToString()
    refuse(model, options, version)
    log("I", "Start parsing network model.")
    log("I", "Finished parsing network model. Parse time: 0.1")
    standin_remote.tune(options, "tune")
    header = struct.pack("<4sI16s4B", b"ftrt", 0, b"", *version, 0) if len(version) == 3 else b""
    if "--versionCompatible" in options:
        header = header[:-1] + HOST_CODE
    engine = header + struct.pack("<Q", len(content)) + content + KERNELS
    standin_remote.after_build(options, engine, version)
    if "--saveEngine" in options and not os.environ.get("STANDIN_NO_ENGINE"):
        Path(options["--saveEngine"]).write_bytes(engine)
    log("I", "Engine built in 1.25 sec.")
    export_layers(model, options, version)
    if "--timingCacheFile" in options:
        Path(options["--timingCacheFile"]).write_bytes(b"timing cache of the stand-in")
    return engine.removesuffix(KERNELS)


def load(path: str, version: tuple[int, ...], *, host_code: bool) -> bytes:
    engine = Path(path).read_bytes()
    if engine[:4] != b"ftrt":
        log(
            "E",
            "Error[1]: [stdArchiveReader.cpp::StdArchiveReaderInitCommon::48] Error Code 1: Serialization "
            "(Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
        )
        raise FailedError("Engine deserialization failed")
    if tuple(engine[24:27]) != version:
        log(
            "E",
            "[TRT] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
            "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match.)",
        )
        raise FailedError("Engine deserialization failed")
    if engine[27:28] == HOST_CODE and not host_code:
        raise FailedError("Engine deserialization failed")
    end = 36 + struct.unpack("<Q", engine[28:36])[0]
    if len(engine) != end + len(KERNELS):
        raise FailedError("Engine deserialization failed")
    return engine[:end]


def inputs_of(net, options: dict[str, str]):
    import numpy as np

    files = {}
    for part in filter(None, options.get("--loadInputs", "").split(",")):
        name, _, path = part.removeprefix("'").partition("':") if part.startswith("'") else part.rpartition(":")
        files[name] = path
    feeds = {}
    for value in net.get_inputs():
        dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[value.type]
        size = int(np.prod(value.shape)) * np.dtype(dtype).itemsize
        if value.name not in files:
            feeds[value.name] = np.random.default_rng(0).standard_normal(value.shape).astype(dtype)
            continue
        data = Path(files[value.name]).read_bytes()
        if len(data) != size:
            raise FailedError(
                f"Unexpected file size for input file: {files[value.name]}. Note: Input binding size is: {size} bytes "
                f"but the file size is {len(data)} bytes."
            )
        feeds[value.name] = np.frombuffer(data, dtype).reshape(value.shape)
    return feeds


def safe(name: str) -> str:
    allowed = string.ascii_letters + string.digits + "._-,"
    return "".join(chr(byte) if chr(byte) in allowed else "_" for byte in name.encode())


def raw_name(name: str, rest: str, version: tuple[int, ...]) -> str:
    """Up to 10.12 the tensor's name is made safe; from 10.13 the whole file name, and it is cut."""
    if version < (10, 13):
        return safe(name) + rest
    whole = safe(name + rest)
    return whole if len(whole) <= 150 else whole[:73] + "..." + whole[-73:]


def infer(engine: bytes, options: dict[str, str], version: tuple[int, ...]) -> None:
    net = session(engine[36:])
    feeds = inputs_of(net, options)
    times = []
    for _ in range(int(options.get("--iterations") or 10)):
        start = time.perf_counter()
        results = net.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3)
    outputs = dict(zip([value.name for value in net.get_outputs()], results, strict=True))
    if "--dumpRawBindingsToFile" in options:
        for kind, tensors in (("input", feeds), ("output", outputs)):
            for name, array in tensors.items():
                dims = ".".join(map(str, array.shape))
                file = raw_name(name, f".{kind}.{dims}.{TYPES[array.dtype.name]}.raw", version)
                Path(file).write_bytes(array.tobytes())
    if "--exportOutput" in options:
        items = [
            f'{{ "name" : "{name}"\n  , "dimensions" : "({", ".join(map(str, array.shape))})"\n'
            f'  , "values" : [ {", ".join(f"{v:g}" for v in array.ravel())} ]\n  }}'
            for name, array in outputs.items()
        ]
        Path(options["--exportOutput"]).write_text("[\n  " + "\n, ".join(items) + "\n]\n")
    if "--exportTimes" in options:
        rows = [
            {"startEnqMs": i, "endEnqMs": i, "h2dMs": 0.01, "computeMs": t, "d2hMs": 0.01, "latencyMs": t + 0.02}
            for i, t in enumerate(times)
        ]
        Path(options["--exportTimes"]).write_text(json.dumps(rows))
    if "--exportProfile" in options:
        rows = [{"count": 1}, {"name": "all", "timeMs": 1.0, "averageMs": 1.0, "medianMs": 1.0, "percentage": 100.0}]
        Path(options["--exportProfile"]).write_text(json.dumps(rows))


def banner_of(version: tuple[int, ...], program: str = "trtexec") -> str:
    """The end of the lines that begin with ``&&&&``: with the whole command line, whatever it holds."""
    unit = 10_000 if version[0] >= 10 else 1_000
    number = version[0] * unit + version[1] * 100 + version[2]
    return f"TensorRT.{program} [TensorRT v{number}] # {program} {' '.join(sys.argv[2:])}"


def work(options: dict[str, str], version: tuple[int, ...]) -> None:
    time.sleep(float(os.environ.get("STANDIN_SLEEP", "0")))
    for line in ("=== Device Information ===", "Selected Device: Orin", "Compute Capability: 8.7"):
        if "--cpuOnly" not in options:
            log("I", line)
    if os.environ.get("STANDIN_WARN"):
        log("W", os.environ["STANDIN_WARN"])
    if os.environ.get("STANDIN_SAY"):
        raise FailedError(os.environ["STANDIN_SAY"])
    standin_remote.require_runtime(options)
    require_sound(options, version)
    if "--loadEngine" in options:
        host_code = "--versionCompatible" in options
        engine = load(options["--loadEngine"], version, host_code=host_code)
        if "--safe" in options:
            whole = Path(options["--loadEngine"])
            named = options.get("--loadEngineSo")
            standin_remote.require_companion(whole.read_bytes(), whole, version, Path(named) if named else None)
    else:
        engine = build(options, version)
    if "--reference" in options:
        standin_remote.reference(options)
    elif "--skipInference" not in options:
        infer(engine, options, version)


def main() -> int:
    version = tuple(map(int, sys.argv[1].split(".")))
    banner = banner_of(version)
    print(f"&&&& RUNNING {banner}", flush=True)
    if "--help" in sys.argv:
        _, listed = options_of(version)
        print("=== Build Options ===\n" + "".join(f"  {name}=spec      Does something\n" for name in sorted(listed)))
        return 0
    try:
        options, warned = parse(sys.argv[2:], version)
    except FailedError as error:
        log("E", str(error))
        if version < (11, 1):  # 11.1 prints no last line after a parse error
            print(f"&&&& FAILED {banner}")
        return 1
    for line in warned:
        log("W", line)
    try:
        work(options, version)
    except FailedError as error:
        log("E", str(error))
        print(f"&&&& FAILED {banner}")
        return int(os.environ.get("STANDIN_STATUS", "1"))
    print(f"&&&& PASSED {banner}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
