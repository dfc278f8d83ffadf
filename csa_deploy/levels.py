"""Levels of evidence that a network fits a safety scope, from the weakest to the strongest. Imports nothing."""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})

LEVELS: dict[str, str] = {
    "static": "rules, no build",
    "validator": "NVIDIA's safety-scope validator accepted it",
    "restricted-build": "built with the safety-scope flag where it acts",
    "safety-build": "built as a safety engine",
    "consistency-checked": "and NVIDIA's consistency checker accepted that engine",
    "reference-checked": "and NVIDIA's reference checker computed its kernels again, from 11.3",
}
"""Level -> what it means."""


def flag_acts(tensorrt: tuple[int, int], *, on_drive: bool) -> bool:
    """Whether the safety-scope flag checks anything in a build; one answer for every builder.

    In 8.6 it does in builds for DRIVE only. NvInfer.h says the same of 10.0 to 10.15, where the check was seen on other
    machines too; whoever builds elsewhere is told by the log if it was skipped. From 10.16 it is accepted and ignored.
    """
    return tensorrt < (10, 16) and (tensorrt >= (10, 0) or on_drive)


def is_at_least(level: str, other: str) -> bool:
    """Whether a level is as strong as another."""
    names = list(LEVELS)
    return names.index(level) >= names.index(other)


def next_level(level: str, out_of_reach: Container[str] = ()) -> str | None:
    """The next level above that is within reach; None where there is none."""
    names = list(LEVELS)
    return next((name for name in names[names.index(level) + 1 :] if name not in out_of_reach), None)


def why_not(level: str, reason: str, out_of_reach: Mapping[str, str] = _NOTHING) -> str:
    """``NEXT: REASON``, as every record says it, and what is between and out of reach; empty at the strongest level.

    Args:
        reason: what the next one takes.
        out_of_reach: level -> why nothing can reach it here.
    """
    above = next_level(level, out_of_reach)
    said = [f"{above}: {reason}"] if above else []
    names = list(LEVELS)
    between = names[names.index(level) + 1 : names.index(above) if above else None]
    for why in dict.fromkeys(out_of_reach[name] for name in between):
        said.append(f"not {', '.join(name for name in between if out_of_reach[name] == why)}: {why}")
    return "; ".join(said)
