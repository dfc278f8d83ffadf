"""The command-line rules of trtexec, version by version, as the stand-in keeps them: names, values and combinations.

Read in NVIDIA's published option parsers of 8.6.1, 10.0 to 10.16, 11.0 and 11.1. What 11.3 to 11.5 add stands in
documentation and newer sample files only. Nothing of theirs is repeated here but names and messages.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

Version = tuple[int, ...]
DEPRECATED_IN_11 = {"--noDataTransfers", "--useSpinWait", "--useCudaGraph", "--separateProfileRun", "--stronglyTyped"}
POOLS = ("workspace", "dlaSRAM", "dlaLocalDRAM", "dlaGlobalDRAM", "tacticSharedMem")
REPEATED = ("--safetyPlugins", "--staticPlugins", "--dynamicPlugins", "--setPluginsToSerialize", "--plugins")
NUMBERS = {
    **dict.fromkeys(("--iterations", "--avgRuns", "--builderOptimizationLevel", "--maxAuxStreams", "--device"), int),
    **dict.fromkeys(("--useDLACore", "--infStreams", "--avgTiming"), int),
    **dict.fromkeys(("--duration", "--warmUp", "--sleepTime", "--idleTime"), float),
}
CHOICES = {
    "--sparsity": ("Unknown sparsity mode: {}", ("disable", "enable", "force")),
    "--profilingVerbosity": (
        "Unknown profilingVerbosity: {}",
        ("layer_names_only", "none", "detailed", "default", "verbose"),
    ),
    "--useRuntime": ("Unknown useRuntime: {}", ("full", "lean", "dispatch")),
}
SAFETY_PLUGIN = re.compile(r"[^\[\]]+\[(\w*::)?\w+(,(\w*::)?\w+)*\]")
DLA_FORMATS = {"chw16", "chw32", "dla_linear", "dla_hwc4", "chw4"}


class FailedError(Exception):
    """trtexec's own end, with its text."""


def options_of(version: Version) -> tuple[set[str], set[str]]:
    """Options that a version takes, and those that its help page lists."""
    table = json.loads(Path(__file__).with_name("trtexec_options.json").read_text())
    known: set[str] = set()
    for since, change in table["changes"].items():
        if tuple(map(int, since.split("."))) <= version[:2]:
            known = (known | set(change.get("added", ()))) - set(change.get("removed", ()))
    unlisted = {*table["unlisted"]["always"], *table["unlisted"].get(".".join(map(str, version[:2])), ())}
    return known, known - unlisted


def parse(arguments: list[str], version: Version) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and what the parser warns of.

    Raises:
        FailedError: a name, value or combination that this version refuses.
    """
    known, _ = options_of(version)
    options: dict[str, str] = {}
    for word in arguments:
        name, _, value = word.partition("=")
        if name not in known or (name in options and name not in REPEATED):
            raise FailedError(f"Unknown option: {name} {value}")
        options[name] = value
    _require_values(options, version)
    _require_combinations(options)
    warned = [f"{name} flag has been deprecated" for name in sorted(DEPRECATED_IN_11 & set(options))]
    warned = warned if version >= (11,) else []
    if options.get("--sparsity") == "force" and version >= (10,):
        warned.append("--sparsity=force has been deprecated. Please rewrite the weights and use --sparsity=enable")
    return options, warned


def _require_values(options: dict[str, str], version: Version) -> None:
    for name, kind in NUMBERS.items():
        try:
            kind(options.get(name, "0"))
        except ValueError:
            raise FailedError(f"Invalid value for {name}: {options[name]}") from None
    for name, (message, choices) in CHOICES.items():
        if name in options and options[name] not in choices:
            raise FailedError(message.format(options[name]))
    _require_lists(options, version)


def _require_lists(options: dict[str, str], version: Version) -> None:
    """Formats, pools, levels and plugins."""
    for option in ("--inputIOFormats", "--outputIOFormats"):
        if option in options:
            _require_formats(options[option], version)
    level = options.get("--hardwareCompatibilityLevel", "none").lower()
    if level not in ("none", "ampere+") and (level != "samecomputecapability" or version < (10, 9)):
        raise FailedError(f"Unknown hardwareCompatibilityLevel option: {level}")
    for pool in filter(None, options.get("--memPoolSize", "").split(",")):
        name, _, size = pool.partition(":")
        if name not in POOLS or (name == "tacticSharedMem" and version < (10,)):
            raise FailedError(f"Unknown memory pool: {name}")
        if size.startswith("-"):
            raise FailedError(f"Negative memory pool size: {size}")
    if "--safetyPlugins" in options and not SAFETY_PLUGIN.fullmatch(options["--safetyPlugins"]):
        raise FailedError(f"Invalid Safety plugin library option: {options['--safetyPlugins']}")


def _require_formats(value: str, version: Version) -> None:
    """The grammar of I/O formats."""
    for item in value.split(","):
        if version < (11,) and ":" not in item:
            raise FailedError(f"Invalid IOFormat {item}")
        layouts = item if version >= (11,) else item.split(":", 1)[1]
        for layout in layouts.split("+"):
            if not re.fullmatch(r"chw(2|4|16|32)?|d?hwc8?|hwc16|cdhw32|dla_(linear|hwc4)", layout):
                raise FailedError(f"Invalid TensorFormat {layout}")


def _require_combinations(options: dict[str, str]) -> None:
    """Combinations that the parser refuses; one that a version cannot know was refused by name."""
    has = options.keys()
    safe = "--safe" in has
    texts = {options[name] for name in ("--remoteAutoTuningConfig", "--remoteConfig") if name in has}
    for refused, message in (
        (not {"--onnx", "--loadEngine"} & has, "Model missing or format not recognized"),
        ({"--loadEngine", "--saveEngine"} <= has, "Incompatible load and save engine options selected"),
        ({"--fp8", "--int8"} <= has, "Invalid usage, fp8 and int8 aren't allowed to be enabled together."),
        ({"--best", "--stronglyTyped"} <= has, "--best and --stronglyTyped cannot be both set."),
        (
            {"--dumpKernelText", "--dumpCheckerBlob"} & has and not safe,
            "--dumpKernelText requires --safe to be enabled.",
        ),
        (
            texts and not safe,
            "Remote auto tuning is not supported in standard build. Use --safe flag to enable it.",
        ),
        (len(texts) > 1, "--remoteConfig and --remoteAutoTuningConfig are given different values"),
        ("--cpuOnly" in has and not safe, "CPU-only mode (--cpuOnly) requires --safe flag to be enabled."),
        (
            "--cpuOnly" in has and not texts,
            "CPU-only mode (--cpuOnly) requires --remoteAutoTuningConfig to be specified.",
        ),
        ("--loadCheckerBlob" in has and "--reference" not in has, "--loadCheckerBlob requires --reference"),
        (
            "--reference" in has and not (safe and texts and "--loadEngine" in has),
            "--reference requires --safe, --loadEngine and --remoteConfig",
        ),
    ):
        if refused:
            raise FailedError(message)
    _require_dla(options)


def _require_dla(options: dict[str, str]) -> None:
    """DLA, of which a safe build makes a loadable."""
    has = options.keys()
    if "--useDLACore" not in has or not {"--buildDLAStandalone", "--safe"} & has:
        return
    for name in ("--inputIOFormats", "--outputIOFormats"):
        layouts = {x for item in options.get(name, "").split(",") for x in item.rpartition(":")[2].split("+")}
        if not layouts <= DLA_FORMATS:
            raise FailedError("I/O formats for safe DLA capability are restricted to fp16:chw16, int8:chw32")
    if "--allowGPUFallback" in has:
        raise FailedError("GPU fallback (--allowGPUFallback) not allowed for DLA standalone mode")
