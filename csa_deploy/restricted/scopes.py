"""Which safety scopes decide about a deployment, and why: what was asked for, or what fits the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import UsageError
from csa_deploy.restricted.schema import Pack, load_pack, scopes, version_key

if TYPE_CHECKING:
    from csa_deploy.config import Config

# What `--restricted` holds a network against when neither --scope nor a target says more: the GPU scopes of DRIVE OS.
GATE_SCOPES = ("drive-os-6", "drive-os-7")
FAMILIES = ("8.6", "10", "11")
"""What ``--tensorrt`` names where it names no version."""


@dataclass(frozen=True)
class Platform:
    """The machine that an engine is for, as far as scopes are concerned.

    Attributes:
        platform: ``platform`` of its file (``drive-orin``, ..., ``other``).
        tensorrt: its TensorRT version ('' not stated).
        dla: whether its DLA is to run the network.
    """

    name: str
    platform: str = "other"
    tensorrt: str = ""
    dla: bool = False

    @property
    def words(self) -> str:
        """``orin.local (drive-orin, TensorRT 8.6.12)``."""
        parts = [self.platform, *([f"TensorRT {self.tensorrt}"] if self.tensorrt else [])]
        return f"{self.name} ({', '.join(parts)})"

    def fits(self, pack: Pack) -> bool:
        """Whether a scope speaks about what this machine builds."""
        if pack.platforms and self.platform not in (*pack.platforms, "other"):
            return False
        if not self.tensorrt or not pack.builders:
            return True
        version = version_key(self.tensorrt)
        first, beyond = (version_key(bound) for bound in pack.builders)
        stated = len(version) if version[-1] else len(version) - 1  # 8.6 and 8.6.0 leave the patch open
        return first[:stated] <= version[: len(first)] and version < beyond


@dataclass(frozen=True)
class Gates:
    """The scopes that decide.

    Attributes:
        why: why these scopes, in a few words.
    """

    scopes: tuple[str, ...]
    why: str


def choose_gates(asked: Sequence[str], platform: Platform | None = None) -> Gates:
    """The scopes that decide: those asked for, else those that fit the target, else both GPU scopes of DRIVE OS.

    None decides where none fits the target.

    Raises:
        UsageError: a scope that was asked for does not fit the target.
    """
    if asked:
        if platform is not None:
            require_fit(asked, platform)
        return Gates(tuple(asked), "asked for with --scope")
    if platform is None:
        names = tuple(name for name in GATE_SCOPES if name in scopes())
        return Gates(names, "neither --scope nor a target was named")
    if not platform.tensorrt and not platform.dla:
        names = tuple(name for name in GATE_SCOPES if platform.fits(load_pack(name)))
        return Gates(names, f"fit {platform.words}, whose file states no TensorRT version")
    kind = "dla" if platform.dla else "gpu"
    packs = [pack for pack in fitting(platform) if pack.kind == kind]
    if not packs:
        return Gates((), f"no scope of {'DLA' if platform.dla else 'the GPU'} fits {platform.words}")
    best = _best(packs, platform)
    return Gates((best.scope,), f"fits {platform.words}")


def gates_of(config: Config, platform: Platform | None = None) -> Gates:
    """The scopes that decide about a configuration; ``platform`` is its target where more is known than its file says.

    Raises:
        UsageError: a scope that was asked for does not fit the target, or none fits and ``restricted`` asks for one.
    """
    gates = choose_gates(config.scope, platform or platform_of(config))
    if config.restricted and not gates.scopes:
        raise UsageError(
            f"--restricted: {gates.why}",
            fix="leave out --restricted, or correct platform: and tensorrt: in the target's file",
        )
    return gates


def gates_of_whole(config: Config, platform: Platform | None = None) -> Gates:
    """Those of them that decide about the whole network: where it is split, scopes of DLA decide about parts alone.

    Raises: as :func:`gates_of`.
    """
    gates = gates_of(config, platform)
    parted = [name for name in gates.scopes if config.split and load_pack(name).kind == "dla"]
    if not parted:
        return gates
    kept = tuple(name for name in gates.scopes if name not in parted)
    return Gates(kept, f"{gates.why}; {', '.join(parted)} decides about the parts that are for DLA")


def fitting(platform: Platform) -> list[Pack]:
    """The packs of all scopes that speak about what a machine builds."""
    return [pack for pack in map(load_pack, scopes()) if platform.fits(pack)]


def require_fit(asked: Sequence[str], platform: Platform) -> None:
    """Refuse scopes that say nothing about a target.

    Raises:
        UsageError: names the first that does not fit, and those that do.
    """
    for name in asked:
        pack = load_pack(name)
        if not platform.fits(pack):
            known = ", ".join(found.scope for found in fitting(platform)) or "none"
            raise UsageError(
                f"scope {name} ({pack.title}) says nothing about {platform.words}",
                fix=f"use a scope that fits the target ({known}), or leave out --scope",
            )


def _best(packs: Sequence[Pack], platform: Platform) -> Pack:
    """The newest rules that are not newer than the target's version; of an open patch, the oldest rules."""
    ordered = sorted(packs, key=lambda pack: version_key(pack.tensorrt))
    parts = version_key(platform.tensorrt) if platform.tensorrt else ()
    return ordered[-1] if len(parts) > 2 and parts[2] else ordered[0]


def platform_of(config: Config) -> Platform | None:
    """The target that a configuration names, as its file describes it; reaches nothing. Without one, what
    ``--tensorrt`` says; None where that is no version.

    Raises:
        UsageError: its file cannot be read.
    """
    if not config.target:
        return version_asked(config)
    from csa_deploy.trtexec.config import load_target

    target = load_target(Path(config.target))
    return Platform(target.name, target.platform, target.tensorrt or "", _asks_for_dla(config))


def version_asked(config: Config) -> Platform | None:
    """What is known of the machine by ``--tensorrt`` alone; None where that names no version, but 8.6, 10 or 11."""
    if config.tensorrt in FAMILIES:
        return None
    return Platform("--tensorrt", "other", config.tensorrt, _asks_for_dla(config))


def judged_scopes(config: Config) -> list[str]:
    """The scopes that a check shows: those asked for, else all that fit ``--tensorrt``; none stands for all there are.

    Raises:
        UsageError: none fits.
    """
    version = None if config.target else version_asked(config)
    if config.scope or version is None:
        return list(config.scope)
    found = [pack.scope for pack in fitting(version)]
    if not found:
        raise UsageError(
            f"no scope fits {version.words}", fix="`csa-deploy rules` lists what there is; name one: --scope"
        )
    return found


def _asks_for_dla(config: Config) -> bool:
    return any(option.replace("-", "_").startswith("dla_core") for option in config.builder_option)
