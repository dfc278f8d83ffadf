"""Which options of the safety flow trtexec and trtexec_safe have in which version.

Read in the public sources of 8.6.1, 10.0 - 10.16, 11.0 and 11.1; what is newer stands in NVIDIA's documentation and in
newer sample files, and a help page that lists it decides.
"""

from __future__ import annotations

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.versions import VERSION_OPTIONS, Version, require_known

Pair = tuple[int, int]
_ONWARDS: Pair = (99, 0)

FIRST_REMOTE: Pair = (10, 13)
FIRST_CPU_ONLY: Pair = (10, 15)
FIRST_RUNNER: Pair = (10, 15)  # first public source of trtexec_safe
FIRST_PAIR: Pair = (11, 3)  # a safe engine may come with a companion library, and there is a reference checker
FIRST_NAMED: Pair = (11, 5)  # trtexec takes the companion's path
_REMOTE, _REMOTE_LATER = "--remoteAutoTuningConfig", "--remoteConfig"

# Option -> the ranges of versions that have it.
_OPTIONS: dict[str, tuple[tuple[Pair, Pair], ...]] = {
    "--consistency": (((8, 6), (8, 6)), ((10, 0), (10, 3)), ((10, 13), _ONWARDS)),
    _REMOTE: ((FIRST_REMOTE, _ONWARDS),),
    "--dumpKernelText": ((FIRST_REMOTE, _ONWARDS),),
    "--safetyPlugins": ((FIRST_REMOTE, _ONWARDS),),
    "--reference": ((FIRST_PAIR, _ONWARDS),),
    **dict.fromkeys(("--saveEngineSo", "--loadEngineSo"), ((FIRST_NAMED, _ONWARDS),)),
}
_NEW_NAMES = {_REMOTE: _REMOTE_LATER, "--dumpKernelText": "--dumpCheckerBlob"}  # from 11.3; the old ones are aliases


STATED = frozenset([*_OPTIONS, *VERSION_OPTIONS, "--cpuOnly"])
"""Stands in for a help page that was not read: the tables alone say what a version has."""


def safe_option(option: str, version: Version, listed: frozenset[str]) -> str | None:
    """How this version spells an option of the safety flow; None where it has none.

    Args:
        option: by its older name.
        listed: options of its help page.
    """
    if not any(first <= version.pair <= last for first, last in _OPTIONS[option]):
        return None
    if option in listed:
        return option
    later = _NEW_NAMES.get(option)
    return later if later in listed else None


def remote_option(version: Version, listed: frozenset[str]) -> str:
    """The option that takes the text of remote tuning.

    Raises:
        UsageError: this version builds on the target itself.
    """
    require_known(version, listed)
    found = safe_option(_REMOTE, version, listed)
    if found is None:
        raise UsageError(
            f"trtexec of TensorRT {version} has no remote tuning ({_REMOTE}, from 10.13): it builds on the target",
            fix="leave out build: host, or use the target's TensorRT 10.13 or later on this machine",
        )
    return found


def require_cpu_only(version: Version, listed: frozenset[str]) -> None:
    """Refuse a build without a GPU in the host where trtexec has none.

    10.15 takes ``--cpuOnly`` without listing it. What becomes of it after 11.3 is open, so the help page decides there.

    Raises:
        EnvironmentLacksError: with the reason.
    """
    if version.pair < FIRST_CPU_ONLY:
        raise EnvironmentLacksError(
            f"TensorRT {version} tunes remotely with a GPU in the host only (--cpuOnly is there from 10.15), and this "
            "machine has none",
            fix="build on a host with a GPU, or with a TensorRT from 10.15 on host and target",
        )
    if version.pair >= FIRST_PAIR and "--cpuOnly" not in listed:
        raise EnvironmentLacksError(
            f"trtexec of TensorRT {version} lists no --cpuOnly, and this machine has no GPU (what became of that "
            "option after 11.3 is not public)",
            fix="build on a host with a GPU, or set cpu_only: false in the target's file if that trtexec needs none",
        )


def why_no_consistency(version: Version, listed: frozenset[str]) -> str:
    """Why a build cannot ask NVIDIA's consistency checker; empty where it can."""
    if safe_option("--consistency", version, listed) is None:
        return f"trtexec of TensorRT {version} has no --consistency"
    if version.pair == (10, 15):
        return "--consistency of TensorRT 10.15 fails always in its public sources, after the whole build"
    return ""


def why_no_reference(version: Version, listed: frozenset[str]) -> str:
    """Why the reference checker cannot be asked; empty where it can."""
    if safe_option("--reference", version, listed) is None:
        return f"trtexec of TensorRT {version} has no reference checker (from 11.3, as documented)"
    return ""
