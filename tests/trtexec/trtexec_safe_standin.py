"""A stand-in for trtexec_safe, for tests only: ``trtexec_safe_standin.py VERSION [its arguments]``.

It keeps the rules of NVIDIA's published runner: the options of each version, its standard output and error, status 0
for FAILED, abort on what it does not catch. It computes true outputs with ONNX Runtime and says nothing about TensorRT.

STANDIN_SAFE_SAY makes it print that error and FAILED, STANDIN_SAFE_ABORT abort after a text, STANDIN_SAFE_QUIET keep
its [I] lines to itself as a build for NVIDIA's log does.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import standin_remote
from standin_parser import FailedError
from trtexec_standin import banner_of, load, safe, session

TAKES = {
    *("--loadEngine", "--iterations", "--duration", "--avgRuns", "--warmUp", "--idleTime", "--sleepTime"),
    *("--percentile", "--threads", "--device", "--spin", "--useScratch", "--ioProfileId", "--loadInputs"),
    *("--safetyPlugins", "--separateProfileRun", "--verbose", "--debug", "--useCudaGraph"),
}
NUMBERS = {"--iterations": 10, "--duration": 3.0, "--avgRuns": 10, "--warmUp": 1, "--sleepTime": 2.0}


def say(severity: str, text: str) -> None:
    """[E] and the lines with &&&& go to standard error, the others to standard output."""
    if severity != "E" and os.environ.get("STANDIN_SAFE_QUIET"):
        return
    print(f"[11/23/2026-04:00:00] [{severity}] {text}", file=sys.stderr if severity == "E" else sys.stdout, flush=True)


def abort(text: str) -> None:
    """An exception that it does not catch."""
    say("E", text)
    os.kill(os.getpid(), signal.SIGABRT)


def parse(arguments: list[str], version: tuple[int, ...]) -> dict[str, str]:
    takes = TAKES | ({"--noCudaGraph"} if version >= (11,) else set())
    takes |= {"--dumpOutputDir"} if version[:2] == (11, 0) else set()
    options: dict[str, str] = {}
    for word in arguments:
        name, _, value = word.partition("=")
        if name not in takes:
            say("E", f"Invalid Argument: {word}")
            sys.exit(1)
        options[name] = value
    for name, default in NUMBERS.items():
        try:
            options[name] = str(type(default)(options.get(name, default)))
        except ValueError:
            abort("terminate called after throwing an instance of 'std::invalid_argument'")
    if "--useCudaGraph" in options and version >= (11,):
        say("W", "--useCudaGraph is deprecated, it is on by default")
    return options


def places(shape: tuple[int, ...], layout: str) -> tuple[int, list[int]]:
    """How many values a layout has, and at which of them each value of a C-ordered array lies.

    Counted element by element, by TensorRT's definition of each format.
    """
    import numpy as np

    width = int(re.sub(r"\D", "", layout) or 1)
    if layout == "chw":
        count = int(np.prod(shape))
        return count, list(range(count))
    *outer, c, h, w = shape
    blocks = -(-c // width)
    batches = int(np.prod(outer))
    found = []
    for n, k, y, x in itertools.product(range(batches), range(c), range(h), range(w)):
        if layout.startswith("hwc"):
            found.append(((n * h + y) * w + x) * blocks * width + k)
        else:
            found.append((((n * blocks + k // width) * h + y) * w + x) * width + k % width)
    return batches * blocks * width * h * w, found


def formats_of(net, option: str, count: int) -> list[str]:
    stated = net.get_modelmeta().custom_metadata_map.get(option, "")
    items = [item.rpartition(":")[2] for item in stated.split(",")] if stated else ["chw"]
    return items * count if len(items) == 1 else items


def inputs_of(net, options: dict[str, str]) -> dict:
    import numpy as np

    files = dict(re.findall(r"'([^']*)':([^,]+)", options.get("--loadInputs", "")))
    feeds = {}
    layouts = formats_of(net, "--inputIOFormats", len(net.get_inputs()))
    for value, layout in zip(net.get_inputs(), layouts, strict=True):
        dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[value.type]
        shape = tuple(value.shape)
        if value.name not in files:
            feeds[value.name] = np.zeros(shape, dtype)
            continue
        count, where = places(shape, layout)
        data, size = Path(files[value.name]).read_bytes(), count * np.dtype(dtype).itemsize
        bad = len(data) != size
        if bad:
            say("E", f"File size mismatch for {files[value.name]}. Expected: {size} bytes, got: {len(data)} bytes")
        say("I", f"Loaded input data from {files[value.name]} for tensor {value.name}")  # even so
        if bad:
            abort("SAFE API Error: [graph->executeAsync]: UNSUPPORTED_STATE")
        feeds[value.name] = np.frombuffer(data, dtype)[where].reshape(shape)
    return feeds


def dump(net, outputs: list, folder: str) -> None:
    import numpy as np

    layouts = formats_of(net, "--outputIOFormats", len(outputs))
    for value, array, layout in zip(net.get_outputs(), outputs, layouts, strict=True):
        count, where = places(array.shape, layout)
        raw = np.zeros(count, array.dtype)
        raw[where] = array.ravel()
        (Path(folder) / f"{safe(value.name)}.bin").write_bytes(raw.tobytes())


def run(options: dict[str, str], version: tuple[int, ...]) -> None:
    path = Path(options.get("--loadEngine") or "sample.engine")
    if not path.is_file():
        raise FailedError(f"Error opening engine file: {path}")
    try:
        engine = load(str(path), version, host_code=False)
    except FailedError as error:
        raise FailedError(f"SAFE API Error: [createTRTGraph]: INVALID_ARGUMENT ({error})") from None
    standin_remote.require_companion(path.read_bytes(), path, version)
    if plugin := options.get("--safetyPlugins"):
        library = Path(plugin.partition("[")[0])
        if not library.is_file():
            raise FailedError(f"Unable to open library: {library}")
    net = session(engine[36:])
    feeds = inputs_of(net, options)
    say("I", "Running on CUDA device number: 0 (20 SMs, 256 bits, Compute Capability 11.0)")
    say("I", "Starting inference...")
    if text := os.environ.get("STANDIN_SAFE_ABORT"):
        abort(text)
    times = []
    for _ in range(int(options["--iterations"])):
        start = time.perf_counter()
        for _ in range(int(options["--avgRuns"])):
            outputs = net.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3 / int(options["--avgRuns"]))
    say("I", "=== Trace details ===")
    delay = float(options["--sleepTime"])
    for ms in times:
        gpu, host = f"GPU latency: {ms:g} ms", f"Host latency: {ms + delay + 0.01:g} ms (enqueue 0.005 ms)"
        say("I", f"Average over {options['--avgRuns']} runs - {gpu} - {host}")
    say("I", "=== Performance summary ===")
    say("I", "GPU Compute Time:  min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms")
    if "--dumpOutputDir" in options:
        dump(net, outputs, options["--dumpOutputDir"])


def main() -> int:
    version = tuple(map(int, sys.argv[1].split(".")))
    options = parse(sys.argv[2:], version)
    banner = banner_of(version, "trtexec_safe")
    print(f"&&&& RUNNING {banner}", file=sys.stderr, flush=True)
    Path("TRTErrors.log").write_text("")  # it opens one in its working directory
    try:
        if text := os.environ.get("STANDIN_SAFE_SAY"):
            raise FailedError(text)
        run(options, version)
    except FailedError as error:
        say("E", str(error))
        print(f"&&&& FAILED {banner}", file=sys.stderr)
        return 0
    print(f"&&&& PASSED {banner}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
