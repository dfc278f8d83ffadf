"""What a matrix consists of: versions, targets, the cells of both, and which of them can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_deploy.engine.backends import PYTHON_BACKENDS
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.installing import versions
from csa_deploy.naming import split_commas
from csa_deploy.records.matrix import RTX
from csa_deploy.restricted.schema import version_key
from csa_deploy.setting_values import parse_tensorrt
from csa_deploy.trtexec.config import TargetConfig, load_target
from csa_deploy.trtexec.machine import open_machine

HERE = "this machine"


@dataclass(frozen=True)
class Place:
    """A target, or this machine.

    Attributes:
        file: the target's file; None for this machine.
        target: what the file says.
    """

    name: str
    file: Path | None = None
    target: TargetConfig | None = None

    @property
    def host(self) -> str:
        """The machine behind it: several files may be of one, each with another trtexec."""
        return self.target.name if self.target else HERE

    @property
    def platform(self) -> str:
        """Platform as the file states it; empty where it does not."""
        return self.target.platform if self.target and self.target.platform != "other" else ""


@dataclass(frozen=True)
class Spot:
    """One version on one place, for all precisions."""

    tensorrt: str
    place: Place

    @property
    def folder(self) -> str:
        """Its name as a folder."""
        return f"{self.tensorrt}-{self.place.name.replace(' ', '-')}"


def parse_versions(given: Sequence[str]) -> tuple[str, ...]:
    """``["8.6,10.10", "rtx"]`` to versions, each once.

    Raises:
        UsageError: no version, or one that is not served.
    """
    asked = tuple(split_commas(list(given)))
    if not asked:
        raise UsageError("a matrix needs versions", fix="add --tensorrt 8.6,10.10,11.1")
    for version in asked:
        try:
            if version != RTX:
                parse_tensorrt(version)
        except ValueError as error:
            raise UsageError(f"--tensorrt {version}: {error}", fix="or rtx, for TensorRT-RTX here") from None
    return asked


def parse_places(given: Sequence[str]) -> tuple[Place, ...]:
    """Target files to places, named by their files; none is this machine.

    Raises:
        UsageError: a file that cannot be read, or two of one name.
    """
    places = [Place(Path(name).stem, Path(name), load_target(Path(name))) for name in split_commas(list(given))]
    names = [place.name for place in places]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two targets' files are called {twice}", fix="rename one: results go by that name")
    return tuple(places) or (Place(HERE),)


def spots_of(asked: Sequence[str], places: Sequence[Place]) -> tuple[Spot, ...]:
    """Every version on every place; TensorRT-RTX runs on this machine alone."""
    return tuple(Spot(version, place) for version in asked for place in ((Place(HERE),) if version == RTX else places))


def is_of(version: str, asked: str) -> bool:
    """Whether a version begins as one that was asked for: 10.10.1 is of 10.10."""
    wanted = version_key(asked) if asked else ()
    return version_key(version)[: len(wanted)] == wanted


@dataclass(frozen=True)
class Reached:
    """Whether a version is there: settings that build with it, or the reason why not.

    Attributes:
        reason: why nothing can be measured; empty where it can.
        there: False where the place answered and has another version.
    """

    settings: dict[str, Any]
    reason: str = ""
    there: bool = True


def reach(spot: Spot) -> Reached:
    """Ask a place for its version, where its file does not state another one already.

    Raises:
        UsageError: the place is not what its file states.
    """
    if spot.tensorrt == RTX:
        return _python("tensorrt-rtx")
    target, stated = spot.place.target, spot.place.target.tensorrt if spot.place.target else None
    if stated is not None and not (is_of(stated, spot.tensorrt) or is_of(spot.tensorrt, stated)):
        return Reached({}, f"{spot.place.file} states TensorRT {stated}", there=False)
    try:
        with open_machine(target, to_build=True) as machine:
            found = str(machine.version)
    except EnvironmentLacksError as error:
        if target is not None:
            return Reached({}, error.message)
        return _python("tensorrt", spot.tensorrt, f"; {error.message}")
    if not is_of(found, spot.tensorrt):
        said = f"{spot.place.name} has trtexec of TensorRT {found}"
        return Reached({}, said, there=False) if target else _python("tensorrt", spot.tensorrt, f"; {said}")
    settings = {"backend": "trtexec", "target": str(spot.place.file) if spot.place.file else None}
    return Reached(settings)


def _python(name: str, asked: str = "", else_: str = "") -> Reached:
    """A builder that is a Python package of this machine, of a version that begins as ``asked``."""
    backend = next(backend for backend in PYTHON_BACKENDS if backend.name == name)
    version = versions([name])[name]
    if version and not is_of(version, asked):
        return Reached({}, f"this machine has {backend.title} {version}{else_}", there=False)
    if reason := backend.missing():
        return Reached({}, f"{backend.title}: {reason}{else_}", there=False)
    return Reached({"backend": name, "target": None, "builder_option": ()})


def oldest(asked: Sequence[str]) -> str:
    """The oldest version, whose parser the one graph of all cells is for; 10 where there is only TensorRT-RTX."""
    numbered = [version for version in asked if version != RTX]
    return min(numbered, key=version_key) if numbered else "10"
