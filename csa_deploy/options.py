"""Every setting once: its key in a YAML configuration, which is also its flag, its type and its help.

The command line builds its flags from this table and :mod:`csa_deploy.config` validates the same keys, so the two
cannot drift apart. A key ``compute_capability`` is the flag ``--compute-capability``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

CalibrationMethod = Literal["mse", "minmax", "percentile", "entropy", "entropy-published"]
"""How INT8 ranges are made; each has its function in :mod:`csa_deploy.precision.thresholds`."""


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes:
        type: Python type of the flag; ``list[str]`` flags repeat or take comma-separated values.
        help: one sentence for ``--help``.
        group: of :data:`GROUPS`, where the help page shows it.
        shorthand: the flag sets another key (``--fp16`` adds to ``precision``); shorthands are keys as well.
        short: one-letter flag.
        first: whether people need it first, so that also a short help page explains it.
    """

    type: Any
    help: str
    group: str = "network"
    shorthand: bool = False
    short: str | None = None
    first: bool = False


GROUPS = ("network", "restricted mode", "precision", "engine and target", "data and accuracy", "latency", "output")
"""Groups of settings, in the order of the help page."""

_PACKS = Path(__file__).parent / "restricted" / "packs"
_SCOPES = sorted(path.stem.replace("_", "-") for path in _PACKS.glob("[!_]*.toml"))

OPTIONS: dict[str, Option] = {
    "workspace": Option(
        str, "Directory of artifacts and results; default ./deploy/<network>.", short="-w", group="output", first=True
    ),
    "checkpoint": Option(str, "Weights to load into the network (.safetensors, .pth, .pt)."),
    "checkpoint_key": Option(str, "Entry of the checkpoint file that holds the weights, such as model_ema."),
    "size": Option(str, "Input size in pixels: one side, or HEIGHTxWIDTH; default: the network's own."),
    "batch": Option(int, "Static batch size of graph and engine; default: that of example_inputs, else 1."),
    "input_shape": Option(
        list[str],
        "Of an ONNX file: fixed shape of an input, NAME=1x3x224x224 (repeatable); without NAME= for a single input.",
    ),
    "sample": Option(
        str,
        "What one sample is: batched (a row of axis 0 of every input and output) or whole (all that one inference "
        "takes); default: found.",
    ),
    "state": Option(
        list[str],
        "Recurrent state OUTPUT:INPUT (repeatable): that output feeds that input on the next frame; data: sequences.",
    ),
    "state_init": Option(
        str, "State at the start of a sequence: .npz of arrays under the inputs' names; default zeros."
    ),
    "tensorrt": Option(
        str,
        "TensorRT the graph is meant for, such as 8.6, 10 or 10.13.3: decides opset and known problems; default: the "
        "target's, else 10. A version such as 8.6.13 or 11.4.1 also chooses the safety scopes.",
    ),
    "opset": Option(int, "ONNX opset; default: chosen by --tensorrt; an ONNX file is converted to it, with proof."),
    "mean": Option(str, "Of an ONNX file: per channel, what is subtracted after --scale, such as 0.485,0.456,0.406."),
    "std": Option(str, "Of an ONNX file: per channel, what is divided by after --mean, such as 0.229,0.224,0.225."),
    "scale": Option(str, "Of an ONNX file: what a pixel of 0 to 255 is multiplied by before --mean; default 1/255."),
    "channels": Option(str, "Of an ONNX file: rgb, bgr or grey, the order of its input's channels."),
    "layout": Option(str, "Of an ONNX file: nchw or nhwc, the axes of its input; default: found by the shape."),
    "crop": Option(float, "Of an ONNX file: share of the resized image that the centre crop keeps, above 0 up to 1."),
    "interpolation": Option(str, "Of an ONNX file: nearest, bilinear or bicubic, how images are resized."),
    "fit": Option(
        str, "Of an ONNX file: crop, letterbox, pad or resize, how images get the input's size; default crop."
    ),
    "fill": Option(str, "Of an ONNX file: pixel beside a padded image, 0 to 255, one or per channel, such as 114."),
    "anchor": Option(str, "Of an ONNX file: center or corner (top left), where a padded image lies."),
    "exporter": Option(str, "auto, dynamo or torchscript; auto falls back to torchscript and says so."),
    "export_tolerance": Option(
        float, "Largest export error, relative to the output's range; default 1e-4.", group="data and accuracy"
    ),
    "restricted": Option(
        bool,
        "Gate on the restricted-mode check and set the builder's flag where it acts.",
        group="restricted mode",
    ),
    "safe": Option(
        bool,
        "Build a safety engine with trtexec, on DRIVE OS or for it; short for --builder-option safe.",
        group="restricted mode",
        shorthand=True,
    ),
    "scope": Option(
        list[str],
        f"Safety scope (repeatable): {', '.join(_SCOPES)}; see csa-deploy rules.",
        group="restricted mode",
        first=True,
    ),
    "strict": Option(
        bool, "Count unknown (restricted mode) and undecided (accuracy) as failed.", group="restricted mode"
    ),
    "max_fallback": Option(
        list[str],
        "Accept a scope of DLA although so much falls back to the GPU: nodes=3, subgraphs=2, bytes=1KiB (repeatable); "
        "default: nothing may.",
        group="restricted mode",
    ),
    "fix": Option(
        bool,
        "Repair exactly what the scopes need and can be; every later stage works on the repaired graph.",
        group="restricted mode",
    ),
    "errata": Option(
        bool,
        "Name known problems of this TensorRT that the graph meets; --no-errata does not; default: in run and build.",
        group="restricted mode",
    ),
    "fail_on": Option(
        str,
        "Exit 4 on a known problem of TensorRT of this severity or worse: high, medium or low; default: they inform.",
        group="restricted mode",
    ),
    "precision": Option(
        list[str],
        "Precisions to build: fp32, fp16, int8 (repeatable); default fp32 and fp16.",
        group="precision",
        first=True,
    ),
    "fp32": Option(bool, "Shorthand: build FP32.", shorthand=True, group="precision"),
    "fp16": Option(bool, "Shorthand: build FP16.", shorthand=True, group="precision"),
    "int8": Option(bool, "Shorthand: build INT8, calibrated on --calib.", shorthand=True, group="precision"),
    "fp16_io": Option(
        bool,
        "Make inputs and outputs of the FP16 graph FP16 as well (with --target-dla those of the INT8 graph, too); "
        "default: they stay FP32.",
        group="precision",
    ),
    "keep_fp32": Option(list[str], "Node of the FP16 and INT8 graphs that stays FP32 (repeatable).", group="precision"),
    "split": Option(
        list[str],
        "Tensor to cut the network at (repeatable): what it needs is the encoder, what is left falls into heads.",
        group="precision",
    ),
    "part": Option(
        list[str],
        "Precision and target of a part of the split network, NAME=PRECISION@TARGET (repeatable), such as "
        "encoder=fp16@gpu, heads=int8@dla0, or OUTPUT+OUTPUT=int8@dla1; default fp16@gpu.",
        group="precision",
    ),
    "calib": Option(
        str,
        "Images to calibrate INT8 on: a folder, tar shards, a .csv, an .npz, a named set (csa-deploy models), or "
        "random; default: the network's training set.",
        group="precision",
        first=True,
    ),
    "calib_method": Option(
        str, f"INT8 ranges: {', '.join(get_args(CalibrationMethod))}; default mse.", group="precision"
    ),
    "calib_samples": Option(int, "Calibrate on at most this many images; default 512.", group="precision"),
    "search": Option(
        bool, "Return INT8 layers to floating point until the accuracy budget holds; default: yes.", group="precision"
    ),
    "target_dla": Option(
        bool,
        "INT8 for DLA of TensorRT 11.4.1 (Jetson AGX Orin): Q/DQ on every tensor of what DLA runs; the "
        "search is one of ranges.",
        group="precision",
    ),
    "techniques": Option(
        list[str],
        "Ways to better INT8 that are tried, and kept where they pay: equalization, clip-equalization, "
        "range-choice, weight-rounding, bias-correction; auto (default) tries all, none none.",
        group="precision",
    ),
    "backend": Option(
        str,
        "auto, tensorrt, tensorrt-rtx or trtexec; auto takes TensorRT when a GPU is there.",
        group="engine and target",
    ),
    "target": Option(
        str,
        "YAML file of a target: build and run engines there, over ssh, with its own trtexec.",
        group="engine and target",
    ),
    "builder_option": Option(
        list[str], "Option for trtexec NAME=VALUE, such as dla_core=0 (repeatable).", group="engine and target"
    ),
    "timing_cache": Option(
        str, "File of TensorRT's timings to read and update; one per version and GPU.", group="engine and target"
    ),
    "builds": Option(
        int,
        "Build so many times and report how engines, tactics, outputs and latency spread.",
        group="engine and target",
    ),
    "reproducible": Option(
        bool, "Build at least twice and fail unless the engines are the same bytes.", group="engine and target"
    ),
    "min_share": Option(
        list[str],
        "Share of the multiply-accumulates that must obtain a precision, such as fp16=0.95 (repeatable), else exit 5; "
        "default: not none of them.",
        group="engine and target",
    ),
    "compute_capability": Option(
        list[str],
        "GPU to build for, such as 8.6 (repeatable); default: every one the builder knows but Turing (7.5).",
        group="engine and target",
    ),
    "data": Option(
        str,
        "Images to compare on, or for --loadgen to send: a folder by class, an .npz, or a named set (csa-deploy "
        "models).",
        group="data and accuracy",
        first=True,
    ),
    "task": Option(
        str,
        "Targets of the data: classification, segmentation or detection; default: the network's, else the data's.",
        group="data and accuracy",
    ),
    "decode": Option(
        str,
        "How the outputs of one sample become boxes: file.py:function that returns boxes, scores and classes; default: "
        "the network's own postprocessing.",
        group="data and accuracy",
    ),
    "score_threshold": Option(
        float,
        "Boxes with a lower score are dropped; of a map of one probability, where class 1 begins.",
        group="data and accuracy",
    ),
    "nms_iou": Option(
        float, "Overlap, 0 to 1, above which the weaker box of a class is dropped.", group="data and accuracy"
    ),
    "samples": Option(int, "Use at most this many samples; default: all.", group="data and accuracy"),
    "localize": Option(
        bool,
        "Explain the error of every graph, module by module, however long it takes; --no-localize explains none; "
        "default: graphs that fail, for about a minute.",
        group="data and accuracy",
    ),
    "candidate": Option(
        list[str], "ONNX graph to compare beside the workspace's own (repeatable).", group="data and accuracy"
    ),
    "seed": Option(int, "Seed of every random choice; default 0.", group="data and accuracy"),
    "budget": Option(
        list[str],
        "Accuracy budget PRECISION.METRIC=VALUE, such as fp16.snr_db=40, or PRECISION.OUTPUT.METRIC=VALUE "
        "(repeatable); METRIC=VALUE bounds FP16 and INT8, with top1-drop in percentage points; with a precision, "
        "shares and drops are from 0 to 1.",
        group="data and accuracy",
    ),
    "metric": Option(
        list[str],
        "Metric of the task beside those of the outputs: file.py:Name (repeatable); its name is that of budgets.",
        group="data and accuracy",
    ),
    "iterations": Option(
        int, "Timed inferences per graph; default 100. To pass, a limit on p95 needs 104, on p99 528.", group="latency"
    ),
    "seconds": Option(float, "Time each graph for so many seconds instead of --iterations.", group="latency"),
    "warmup": Option(int, "Inferences before timing starts; default 5.", group="latency"),
    "limit": Option(
        list[str],
        "Latency or memory limit LABEL.QUANTITY=VALUE, such as engine-fp16.p99_ms=5 (repeatable).",
        group="latency",
    ),
    "baseline": Option(
        str, "Workspace of an earlier run: exit 7 when this one is slower by more than noise.", group="latency"
    ),
    "max_slowdown": Option(
        float, "Smallest change between two runs that counts, as a share; default 0.02.", group="latency"
    ),
    "loadgen": Option(
        bool,
        "Measure with MLPerf's load generator as well; --no-loadgen where a workspace remembers it.",
        group="latency",
    ),
    "scenario": Option(
        list[str],
        "Of --loadgen: single-stream, offline or constant-stream (repeatable); default single-stream.",
        group="latency",
    ),
    "frame_rate": Option(
        float, "Of --loadgen: frames per second of a constant stream; default 15, one every 66.7 ms.", group="latency"
    ),
    "loadgen_settings": Option(
        str,
        "Of --loadgen: short (3 s, default), full (600 s, 99.9th percentile) or a file in the load generator's format.",
        group="latency",
    ),
    "provider": Option(
        str, "Where ONNX Runtime executes graphs: cpu, cuda or tensorrt; default cpu.", group="data and accuracy"
    ),
    "int8_arithmetic": Option(
        str,
        "How INT8 graphs compute here: float (dequantized values), or as an engine of gpu or dla with integer sums; "
        "default float.",
        group="data and accuracy",
    ),
    "threads": Option(int, "CPU threads of ONNX Runtime; default: the machine's cores.", group="latency"),
    "cluster": Option(
        str,
        "Run samples on workers of Dask, with the same results: local, local:N processes, or a scheduler "
        "tcp://host:8786.",
        group="data and accuracy",
    ),
}

IMAGE_INPUT = ("mean", "std", "scale", "channels", "layout", "crop", "interpolation", "fit", "fill", "anchor")
EXPORT = (
    *("checkpoint", "checkpoint_key", "size", "batch", "input_shape", "sample", "state", "state_init", *IMAGE_INPUT),
    *("tensorrt", "opset", "exporter", "export_tolerance", "seed"),
)
CHECK = ("scope", "strict", "max_fallback", "errata", "fail_on")
INT8 = ("calib", "calib_method", "calib_samples", "search", "target_dla", "techniques")
PRECISION = ("precision", "fp32", "fp16", "int8", "fp16_io", "keep_fp32", "split", "part", *INT8)
BUILD = (
    *("restricted", "safe", "backend", "compute_capability"),
    *("target", "builder_option", "timing_cache", "builds", "reproducible", "min_share"),
)
_TASK = ("task", "decode", "score_threshold", "nms_iou", "metric")
VERIFY = ("data", *_TASK, "samples", "budget")
_RUNS = ("candidate", "localize", "provider", "int8_arithmetic")
LOADGEN = ("loadgen", "scenario", "frame_rate", "loadgen_settings")
_PROFILE = ("iterations", "seconds", "warmup", "threads", "limit", "baseline", "max_slowdown", *LOADGEN)
EVERY_VERB = ("workspace",)

BY_VERB: dict[str, tuple[str, ...]] = {
    "export": EXPORT,
    "check": (*EXPORT, *CHECK, "target", "builder_option"),
    "optimize": EXPORT,
    "quantize": (*EXPORT, "scope", "fix", *PRECISION, *VERIFY, "threads", "cluster"),
    "build": (*EXPORT, *CHECK, "fix", *PRECISION, *BUILD, "data", *_TASK, "budget"),
    "verify": (*EXPORT, *PRECISION, *VERIFY, *_RUNS, "strict", "threads", "target", "cluster"),
    "profile": (*EXPORT, *PRECISION, *_PROFILE, "data", "samples", "target"),
    "evaluate": (
        *("data", *_TASK, "samples", "seed", "checkpoint", "checkpoint_key", "size", "batch", "threads", "provider"),
        *("target", "input_shape", "sample", "state", "state_init", *IMAGE_INPUT, "cluster"),
    ),
    "judge": ("metric", "budget", "strict"),
    "gate": ("metric",),
    "report": (),
    "prove": ("data", "samples", "seed"),
    "compare": ("metric", "iterations", "threads", "max_slowdown"),
    "matrix": (
        *(key for key in EXPORT if key != "tensorrt"),
        *("restricted", "safe", "scope", "strict", "max_fallback", "fail_on", "builder_option", "min_share"),
        *(key for key in PRECISION if key not in ("split", "part")),
        *VERIFY,
        *(key for key in _PROFILE if key not in ("baseline", *LOADGEN)),
    ),
    "fleet": ("cluster", "strict"),
    "run": (*EXPORT, *CHECK, "fix", *PRECISION, *BUILD, *VERIFY, *_RUNS, *_PROFILE, "cluster"),
}


def flag_words(key: str, value: Any) -> list[str]:
    """A setting of a configuration as the command line takes it."""
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if key == "size":
        items = ["x".join(str(side) for side in value)]
    elif key == "input_shape":
        items = [f"{name}={'x'.join(str(side) for side in shape)}" for name, shape in value.items()]
    elif key == "part":
        items = [f"{name}={said}" for name, said in value.items()]
    elif isinstance(value, dict):  # bounds by precision or label
        items = [
            f"{of.replace(' ', '-')}.{name}={bound!r}"
            for of, named in value.items()
            for name, bound in (named.items() if isinstance(named, dict) else ())
        ] or [f"{name}={bound!r}" for name, bound in value.items()]
    elif key == "techniques":
        items = [name.replace("_", "-") for name in value] or ["none"]
    elif isinstance(value, (list, tuple)):
        items = [str(item) for item in value]
        items = items if OPTIONS[key].type == list[str] else [",".join(items)]
    else:
        items = [str(value)]
    return [word for item in items for word in (flag, item)]
