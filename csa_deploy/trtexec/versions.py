"""Which options trtexec has in which TensorRT version; facts read from its published sources, 8.6.1 to 11.1.

The command line is made from this table, so an option that a version lacks is never passed. Versions between those
read are taken like the one before them; a version outside is refused, unless its own ``--help`` lists every option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from csa_deploy.errors import EnvironmentLacksError, UsageError

FIRST, LAST = (8, 6), (11, 1)  # the versions that were read
_LAST_WEAK = (10, 16)
LAST_OPSET_OF_8 = 17  # of ONNX, by the operator list of 8.6's parser

# Option -> first and last version that has it.
VERSION_OPTIONS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    **dict.fromkeys(
        (
            *("--onnx", "--saveEngine", "--loadEngine", "--skipInference", "--noTF32", "--safe", "--device"),
            *("--useDLACore", "--buildDLAStandalone", "--allowGPUFallback", "--memPoolSize", "--timingCacheFile"),
            *("--builderOptimizationLevel", "--sparsity", "--hardwareCompatibilityLevel", "--versionCompatible"),
            *("--refit", "--profilingVerbosity", "--inputIOFormats", "--outputIOFormats"),
            *("--exportLayerInfo", "--exportTimes", "--exportOutput", "--exportProfile", "--dumpRawBindingsToFile"),
            *("--loadInputs", "--iterations", "--duration", "--warmUp", "--avgRuns"),
        ),
        (FIRST, LAST),
    ),
    # Parsed by 11 as well, with a warning that they do nothing: its defaults are the other way round.
    **dict.fromkeys(
        ("--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--separateProfileRun"), (FIRST, (10, 16))
    ),
    **dict.fromkeys(("--includeDataTransfers", "--noCudaGraph", "--noSpinWait"), ((11, 0), LAST)),
    **dict.fromkeys(("--fp16", "--int8", "--calib", "--restricted"), (FIRST, _LAST_WEAK)),
    "--stronglyTyped": ((10, 0), _LAST_WEAK),  # does nothing in 11, where every network is
    "--stripWeights": ((10, 0), LAST),
}


@dataclass(frozen=True, order=True)
class Version:
    """A TensorRT version."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def digits(self) -> str:
        """As NvInferVersion.h counts and calibration caches state it: 8612, 100300."""
        return str((1_000 if self.major < 10 else 10_000) * self.major + 100 * self.minor + self.patch)

    @property
    def pair(self) -> tuple[int, int]:
        """Major and minor."""
        return self.major, self.minor

    @property
    def weakly_typed(self) -> bool:
        """Whether precision flags exist (up to 10.16)."""
        return self.pair <= _LAST_WEAK

    @property
    def strongly_typed(self) -> bool:
        """Whether networks can take their types from the graph (from 10.0)."""
        return self.major >= 10

    @property
    def has_dla(self) -> bool:
        """Whether DLA can be built for: up to 10.7, and again from 11.4.1 on Jetson AGX Orin."""
        return self.pair <= (10, 7) or self >= Version(11, 4, 1)

    @property
    def safe_is_typed(self) -> bool:
        """Whether trtexec makes safe builds strongly typed by itself (from 10.14)."""
        return self.pair >= (10, 14)

    @property
    def hardware_levels(self) -> tuple[str, ...]:
        """What ``--hardwareCompatibilityLevel`` takes."""
        return ("none", "ampere+", *(["sameComputeCapability"] if self.pair >= (10, 9) else []))


def parse_version(text: str) -> Version:
    """``"10.3"``, ``"8.6.13"`` or ``"10.3.0.26"`` to a version.

    Raises:
        UsageError: not a version.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)*", text.strip())
    if not match:
        raise UsageError(f"{text!r} is no TensorRT version", fix="write it as 8.6.12 or 10.3")
    return Version(int(match[1]), int(match[2]), int(match[3] or 0))


def version_of_help(text: str) -> Version | None:
    """The version that trtexec states in its first line: ``[TensorRT v8611]``, ``[TensorRT v100300]``."""
    match = re.search(r"TensorRT v(\d+)", text)
    if not match:
        return None
    number = int(match[1])
    unit = 10_000 if number >= 10_000 else 1_000  # NvInferVersion.h counts both ways
    return Version(number // unit, number % unit // 100, number % 100)


def options_of_help(text: str) -> frozenset[str]:
    """Every option that trtexec's help page lists."""
    found = re.findall(r"^ {1,4}(?:-\w, )?(--\w+)(?:, (--\w+))?", text, re.MULTILINE)  # further lines are indented more
    return frozenset(name for pair in found for name in pair if name)


def require_known(version: Version, listed: frozenset[str] | None = None) -> None:
    """Refuse a version whose options are not known.

    Args:
        listed: options of its own help page, which stand in for a minor version that was not read.

    Raises:
        EnvironmentLacksError: outside what was read, with the reason.
    """
    known_major = version.major in (8, 10, 11) and version.pair >= FIRST
    if known_major and (version.pair <= LAST or listed):
        return
    reason = (
        "its options are not known: the sources of 8.6, 10.0 - 10.16 and 11.0 - 11.1 were read"
        if version.pair >= FIRST
        else "it is older than 8.6, the oldest that is served"
    )
    raise EnvironmentLacksError(f"trtexec of TensorRT {version} is refused: {reason}", fix="use one of these versions")


def has(option: str, version: Version, listed: frozenset[str] | None = None) -> bool:
    """Whether this version of trtexec acts on an option."""
    first, last = VERSION_OPTIONS[option]
    if listed is not None and option not in listed:
        return False
    return first <= version.pair <= last or (last == LAST and version.pair > LAST)
