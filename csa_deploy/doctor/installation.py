"""``csa-deploy doctor --fix``: installs what doctor names, with the pip of this environment, and changes nothing else.

What is installed keeps its version, so that a package more never moves another one. PyTorch comes from its CPU index:
the wheel of the public index for Linux brings some gigabytes of CUDA, and the CPU build is all that is needed.
"""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from csa_deploy.doctor.diagnosis import Probe
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.installing import NAME, sources
from csa_deploy.restricted.validator_install import INSTALL_COMMAND, install_validator
from csa_deploy.results import Stored

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_NEEDS_DEVICE = ("TensorRT", "CUDA bindings")
_PIP = "pip install "
_NO_DEPS = "pip install --no-deps "


@dataclass(frozen=True)
class Installation(Stored):
    """One command.

    Attributes:
        what: the probes that it is for.
        command: as a person types it, without what holds the other packages where they are.
    """

    what: tuple[str, ...]
    command: str


def fixes(probes: Sequence[Probe], platform: str = sys.platform) -> tuple[list[Installation], dict[str, str]]:
    """What can be installed from here, and what cannot: name of the probe -> why.

    Engines of TensorRT and CUDA's bindings are of no use without a device, so they wait for one.
    """
    device = any(probe.name == "CUDA device" and probe.state == "ok" for probe in probes)
    named: dict[str, list[str]] = {}
    data: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    for probe in (probe for probe in probes if probe.fix):
        if probe.fix.startswith(_NO_DEPS):
            for package in shlex.split(probe.fix.removeprefix(_NO_DEPS)):
                data.setdefault(package, []).append(probe.name)
        elif probe.state != "missing" or not (probe.fix.startswith(_PIP) or probe.fix == INSTALL_COMMAND):
            left[probe.name] = probe.fix
        elif probe.name in _NEEDS_DEVICE and not device:
            left[probe.name] = f"of no use without a CUDA device; with one: {probe.fix}"
        else:
            named.setdefault(_of_torch(probe, platform), []).append(probe.name)
    if data:
        users = dict.fromkeys(name for names in data.values() for name in names)
        named[_NO_DEPS + shlex.join(data)] = [*users]
    return [Installation(tuple(names), command) for command, names in named.items()], left


def _of_torch(probe: Probe, platform: str) -> str:
    on_linux = probe.name == "torch" and platform.startswith("linux")
    return f"{probe.fix} --index-url {CPU_INDEX}" if on_linux else probe.fix


def apply(fix: Installation, *, quiet: bool = False) -> None:
    """Run one command in this environment; pip speaks on stderr.

    Raises:
        EnvironmentLacksError: pip is not here, or could not do it.
    """
    if fix.command == INSTALL_COMMAND:
        install_validator()
        return
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentLacksError("this environment has no pip", fix=f"{sys.executable} -m ensurepip")
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "constraints.txt"
        held.write_text("\n".join(constraints(sources())) + "\n", encoding="utf-8")
        rest = shlex.split(fix.command.removeprefix(_PIP))
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-c", str(held)]
        words = [*pip, *(["--quiet"] if quiet else []), *rest]
        done = subprocess.run(words, stdout=sys.stderr.fileno(), check=False)
    if done.returncode:
        raise EnvironmentLacksError(f"pip could not do it: {fix.command}", fix="read its message above")


def constraints(folder: Path | None) -> list[str]:
    """What pip must keep to: the versions that are installed, and for all else those that the project is tested with.

    Args:
        folder: the project's sources; None where it was installed from a wheel.
    """
    found = reversed([*metadata.distributions()])  # of two of one name the first on the path counts, as for an import
    stated = ([item.metadata.get_all(key) for key in ("Name", "Version")] for item in found)
    here = {_plain(name[0]): f"{name[0]}=={version[0]}" for name, version in stated if name and version}
    tested: dict[str, str] = {}
    for file in ("constraints.txt", "data.txt"):
        path = folder / "requirements" / file if folder else None
        if path is not None and path.is_file():
            tested |= {_plain(line.partition("==")[0]): line for line in _lines(path.read_text(encoding="utf-8"))}
    if "torch" in tested and sys.platform.startswith("linux"):
        tested["torch"] += "+cpu"
    return sorted(line for name, line in {**tested, **here}.items() if name != NAME)


def _lines(text: str) -> Iterable[str]:
    return filter(None, (line.partition("#")[0].strip() for line in text.splitlines()))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
