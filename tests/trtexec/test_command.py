"""Command lines against the option names of trtexec's published sources."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

import pytest

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.levels import flag_acts
from csa_deploy.trtexec.command import TimingRequest, build_command, run_command
from csa_deploy.trtexec.safe.options import STATED
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import (
    VERSION_OPTIONS,
    Version,
    has,
    options_of_help,
    parse_version,
    require_known,
    version_of_help,
)

sys.path.insert(0, str(Path(__file__).parent))
from standin_parser import options_of

# Every version that was read, from NVIDIA's own option parsers.
MINORS = ("8.6", *(f"10.{minor}" for minor in range(17)), "11.0", "11.1")
READ = {text: options_of(tuple(map(int, text.split("."))))[0] for text in MINORS}
# 11 still parses these, warns, and does the opposite by default: never passed.
NO_OPS_IN_11 = {"--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--separateProfileRun", "--stronglyTyped"}
PLAN = BuildPlan(backend="trtexec")
HALF = replace(PLAN, precision="fp16")


def version(text: str) -> Version:
    return parse_version(text)


def words(
    plan: BuildPlan, text: str, options: TrtexecOptions | None = None, calibration: str | None = None
) -> list[str]:
    return build_command(plan, options or TrtexecOptions(), version(text), "m.onnx", calibration)


@pytest.mark.parametrize("text", READ)
@pytest.mark.shows("MEA-24")
def test_the_table_is_that_of_the_sources(text: str) -> None:
    ignored = NO_OPS_IN_11 if text.startswith("11") else set()
    for option in VERSION_OPTIONS:
        assert has(option, version(text)) == (option in READ[text] - ignored), option


def test_every_flag_of_an_option_is_in_a_table() -> None:
    flags = {item.metadata["flag"] for item in fields(TrtexecOptions) if item.metadata}
    assert len(flags) > 9 and flags <= STATED


@pytest.mark.parametrize(("text", "precision", "restricted"), product(READ, ("fp32", "fp16", "int8"), (True, False)))
@pytest.mark.shows("MEA-24")
def test_only_options_that_the_version_has_are_passed(text: str, precision: str, restricted: bool) -> None:
    plan = replace(PLAN, precision=precision, restricted=restricted, workspace_mib=512, optimization_level=5)
    plan = replace(plan, timing_cache=Path("t.cache"))
    options = TrtexecOptions(safe=True, sparsity="enable", hardware_compatibility="ampere+", refit=True)
    passed = words(plan, text, options)
    timed = run_command("e", version(text), {"x": "x.raw"}, TimingRequest(transfers=False), outputs=True, layers=True)
    allowed = READ[text] - (NO_OPS_IN_11 if text.startswith("11") else set())
    assert {word.split("=")[0] for word in (*passed, *timed)} <= allowed


@pytest.mark.parametrize(
    ("text", "precision", "calibration", "expected"),
    [
        ("8.6", "fp32", None, set()),
        ("8.6", "fp16", None, {"--fp16"}),
        ("8.6", "int8", None, {"--fp16", "--int8"}),
        ("8.6", "int8", "c.cache", {"--fp16", "--int8", "--calib=c.cache"}),
        ("10.3", "fp16", None, {"--stronglyTyped"}),
        ("10.3", "int8", None, {"--stronglyTyped"}),
        ("10.3", "int8", "c.cache", {"--fp16", "--int8", "--calib=c.cache"}),
        ("11.1", "int8", None, set()),
    ],
)
def test_precision_is_asked_for_in_the_versions_own_way(
    text: str, precision: str, calibration: str | None, expected: set[str]
) -> None:
    passed = words(replace(PLAN, precision=precision), text, calibration=calibration)
    asked = {"--fp16", "--int8", "--stronglyTyped", "--calib=c.cache"}
    assert set(passed) & asked == expected
    assert "--noTF32" in passed


def test_restricted_is_passed_where_trtexec_takes_it() -> None:
    plan = replace(PLAN, restricted=True)
    assert "--restricted" in words(plan, "8.6")
    assert "--restricted" in words(plan, "10.16")  # taken and ignored: the result says so
    assert "--restricted" not in words(plan, "11.0")
    acts = {text: flag_acts(version(text).pair, on_drive=True) for text in ("8.6", "10.15", "10.16", "11.0")}
    assert acts == {"8.6": True, "10.15": True, "10.16": False, "11.0": False}


def test_conditions_are_the_same_where_the_defaults_flipped() -> None:
    def passed(text: str, **conditions: bool) -> set[str]:
        known = {"--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--includeDataTransfers"}
        known |= {"--noCudaGraph", "--noSpinWait"}
        return set(run_command("e", version(text), {}, TimingRequest(**conditions))) & known

    on = {"transfers": True, "cuda_graph": True, "spin_wait": True}
    off = dict.fromkeys(on, False)
    assert passed("10.16", **on) == {"--useCudaGraph", "--useSpinWait"}
    assert passed("11.0", **on) == {"--includeDataTransfers"}
    assert passed("10.16", **off) == {"--noDataTransfers"}
    assert passed("11.0", **off) == {"--noCudaGraph", "--noSpinWait"}


def test_dla_is_refused_where_tensorrt_has_none() -> None:
    options = TrtexecOptions(dla_core=0, gpu_fallback=True)
    assert {"--useDLACore=0", "--allowGPUFallback"} <= set(words(HALF, "8.6", options))
    for text in ("10.8", "11.1"):
        with pytest.raises(UsageError, match="builds for no DLA"):
            words(HALF, text, options)


def test_dla_is_refused_what_it_does_not_compute() -> None:
    options = TrtexecOptions(dla_core=0)
    with pytest.raises(UsageError, match="DLA computes in FP16 or INT8"):
        words(PLAN, "8.6", options)
    int8 = replace(PLAN, precision="int8")
    with pytest.raises(UsageError, match="takes INT8 from a calibration cache, not from Q/DQ"):
        words(int8, "8.6", options)
    assert {"--useDLACore=0", "--int8", "--calib=c.cache"} <= set(words(int8, "8.6", options, calibration="c.cache"))


@pytest.mark.parametrize("text", ["8.6", "10.0", "10.7"])
def test_dla_is_built_weakly_typed(text: str) -> None:
    """trtexec sets the FP16 flag for DLA by itself, which a strongly typed network refuses."""
    options = TrtexecOptions(dla_core=0)
    assert options.weakly_typed(version(text))
    passed = words(HALF, text, options)
    assert "--fp16" in passed and "--stronglyTyped" not in passed
    int8 = replace(PLAN, precision="int8")
    passed = words(int8, text, options, calibration="c.cache")
    assert {"--fp16", "--int8", "--calib=c.cache"} <= set(passed) and "--stronglyTyped" not in passed
    with pytest.raises(UsageError, match="not from Q/DQ"):
        words(int8, text, options)


def test_who_makes_the_precision() -> None:
    cache, dla = TrtexecOptions(calibration_cache=Path("c")), TrtexecOptions(dla_core=0)
    weak = {
        (text, name): options.weakly_typed(version(text))
        for text in ("8.6", "10.0", "10.16", "11.0")
        for name, options in (("plain", TrtexecOptions()), ("cache", cache), ("dla", dla))
    }
    assert [key for key, value in weak.items() if value] == [
        *(("8.6", name) for name in ("plain", "cache", "dla")),
        *((text, name) for text in ("10.0", "10.16") for name in ("cache", "dla")),
    ]


FORMATS = {"input_formats": "fp16:chw16", "output_formats": "fp16:chw16"}
LOADABLES = [
    TrtexecOptions(dla_core=0, dla_standalone=True, **FORMATS),
    TrtexecOptions(dla_core=0, safe=True, **FORMATS),
]


@pytest.mark.parametrize("options", [*LOADABLES, TrtexecOptions(safe=True)])
@pytest.mark.parametrize("text", ["8.6", "10.0", "10.7"])
def test_no_layers_are_asked_of_what_cannot_tell_them(text: str, options: TrtexecOptions) -> None:
    passed = {word.partition("=")[0] for word in words(HALF, text, options)}
    assert not passed & {"--exportLayerInfo", "--profilingVerbosity"}
    other = {word.partition("=")[0] for word in words(HALF, text, TrtexecOptions(dla_core=0))}
    assert {"--exportLayerInfo", "--profilingVerbosity"} <= other


@pytest.mark.parametrize("options", LOADABLES)
@pytest.mark.parametrize("text", READ)
def test_a_loadable_is_run_by_no_trtexec(text: str, options: TrtexecOptions) -> None:
    with pytest.raises(EnvironmentLacksError, match="is a DLA loadable, which trtexec cannot run") as caught:
        run_command("e", version(text), {}, None, options=options)
    assert "dla_safety_runtime" in (caught.value.fix or "")


@pytest.mark.parametrize("text", READ)
def test_a_run_repeats_how_the_engine_is_loaded(text: str) -> None:
    passed = run_command("e", version(text), {}, None, options=TrtexecOptions(version_compatible=True))
    assert "--versionCompatible" in passed
    assert "--versionCompatible" not in run_command("e", version(text), {}, None, options=TrtexecOptions())


@pytest.mark.parametrize("text", READ)
def test_a_safe_engine_has_no_profile(text: str) -> None:
    def timed(options: TrtexecOptions) -> set[str]:
        passed = run_command("e", version(text), {}, TimingRequest(), options=options, layers=True)
        return {word.partition("=")[0] for word in passed}

    assert "--exportProfile" in timed(TrtexecOptions())
    assert not timed(TrtexecOptions(safe=True)) & {"--exportProfile", "--separateProfileRun"}
    assert {"--safe", "--exportTimes"} <= timed(TrtexecOptions(safe=True))


def test_a_safe_build_for_dla_is_a_loadable() -> None:
    with pytest.raises(UsageError, match="formats"):
        TrtexecOptions(dla_core=0, safe=True)
    with pytest.raises(UsageError, match="fall back"):
        TrtexecOptions(dla_core=0, safe=True, gpu_fallback=True, **FORMATS)
    assert TrtexecOptions(safe=True).loadable is TrtexecOptions(dla_core=0).loadable is False


def test_a_dla_loadable_needs_its_formats() -> None:
    with pytest.raises(UsageError, match="formats"):
        TrtexecOptions(dla_core=0, dla_standalone=True)
    options = TrtexecOptions(dla_core=0, dla_standalone=True, input_formats="fp16:chw16", output_formats="fp16:chw16")
    assert "--buildDLAStandalone" in words(HALF, "8.6", options)
    with pytest.raises(UsageError, match="fall back"):
        replace(options, gpu_fallback=True)


@pytest.mark.shows("MEA-24", "ERR-19")
def test_what_a_version_lacks_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"8\.6\.0 has no --stripWeights"):
        words(PLAN, "8.6", TrtexecOptions(strip_weights=True))
    with pytest.raises(UsageError, match="no calibration cache"):
        words(replace(PLAN, precision="int8"), "11.0", calibration="c.cache")
    with pytest.raises(UsageError, match="for INT8"):
        words(PLAN, "8.6", calibration="c.cache")


@pytest.mark.parametrize(("text", "reason"), [("8.5", "older than 8.6"), ("9.2", "not known"), ("12.0", "not known")])
def test_unknown_versions_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(EnvironmentLacksError, match=reason):
        words(PLAN, text)


def test_a_later_minor_version_is_taken_by_its_own_help_page() -> None:
    later = version("11.4.1")
    with pytest.raises(EnvironmentLacksError):
        require_known(later)
    listed = frozenset(READ["11.1"])
    assert build_command(HALF, TrtexecOptions(dla_core=1), later, "m.onnx", listed=listed)[-1] == "--useDLACore=1"
    with pytest.raises(UsageError, match="no --refit"):
        build_command(PLAN, TrtexecOptions(refit=True), later, "m.onnx", listed=listed - {"--refit"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8613] # trtexec --help", "8.6.13"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec", "10.3.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b72] # trtexec", "10.16.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # trtexec", "11.1.0"),
    ],
)
def test_version_of_the_first_line(line: str, expected: str) -> None:
    assert str(version_of_help(line)) == expected


def test_options_of_a_help_page() -> None:
    page = "  --onnx=<file>     A model\n  --versionCompatible, --vc   Mark\n  --help, -h  Print\n     see --other"
    assert options_of_help(page) >= {"--onnx", "--versionCompatible", "--help"}
    assert "--other" not in options_of_help(page)
    assert version_of_help("nothing") is None


def test_a_name_with_a_colon_is_quoted_and_one_with_a_comma_refused() -> None:
    assert "--loadInputs='a:0':a.raw,'b':b.raw" in run_command(
        "e", version("8.6"), {"b": "b.raw", "a:0": "a.raw"}, None
    )
    with pytest.raises(UsageError, match="cannot be given"):
        run_command("e", version("8.6"), {"a,b": "a.raw"}, None)


def test_pools_are_one_option() -> None:
    options = TrtexecOptions(dla_core=0, memory_pools={"dlaSRAM": 1})
    assert "--memPoolSize=dlaSRAM:1,workspace:64" in words(replace(HALF, workspace_mib=64), "8.6", options)


def test_dla_comes_back_with_11_4_1() -> None:
    has_dla = {text: version(text).has_dla for text in ("10.7", "10.8", "11.4.0", "11.4.1", "11.5.0")}
    assert has_dla == {"10.7": True, "10.8": False, "11.4.0": False, "11.4.1": True, "11.5.0": True}


def test_same_compute_capability_is_a_level_from_10_9() -> None:
    options = TrtexecOptions(hardware_compatibility="sameComputeCapability")
    for text in ("8.6", "10.8"):
        with pytest.raises(UsageError, match="has no hardware compatibility 'sameComputeCapability'"):
            words(PLAN, text, options)
    for text in ("10.9", "11.1"):
        assert "--hardwareCompatibilityLevel=sameComputeCapability" in words(PLAN, text, options)
    for text in ("8.6", "10.8", "10.9"):
        ampere = TrtexecOptions(hardware_compatibility="ampere+")
        assert "--hardwareCompatibilityLevel=ampere+" in words(PLAN, text, ampere)


def test_a_safe_build_takes_a_cache_up_to_10_13() -> None:
    int8, safe = replace(PLAN, precision="int8"), TrtexecOptions(safe=True)
    assert {"--safe", "--calib=c.cache"} <= set(words(int8, "10.13", safe, "c.cache"))
    for text in ("10.14", "10.16"):
        with pytest.raises(UsageError, match="takes no calibration cache for it"):
            words(int8, text, safe, "c.cache")
        assert "--calib=c.cache" in words(int8, text, None, "c.cache")


@pytest.mark.parametrize("name", ["tacticSharedMem", "dlaSram"])
def test_a_pool_that_trtexec_has_not_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"memory_pools.{name} cannot be set"):
        TrtexecOptions(memory_pools={name: 1})
