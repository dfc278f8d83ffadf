"""A target that is ready for work: reached, asked what it is, and with a trtexec of a known version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.config import TargetConfig
from csa_deploy.trtexec.files import persistently
from csa_deploy.trtexec.safe.host import Host, find_host, stated_host
from csa_deploy.trtexec.safe.options import STATED
from csa_deploy.trtexec.safe.tuning import require_target
from csa_deploy.trtexec.transport import Transport, open_transport, run_script
from csa_deploy.trtexec.versions import (
    VERSION_OPTIONS,
    Version,
    options_of_help,
    parse_version,
    require_known,
    version_of_help,
)

_SCRIPT = Path(__file__).with_name("detect.sh.j2")  # plain sh; the suffix is the one that packages carry


@dataclass(frozen=True)
class Facts:
    """What a target said about itself; a key that is absent was not found there.

    Attributes:
        values: system, board, l4t, drive_os, tensorrt_package, cuda, driver, gpu, compute_capability, power_mode,
            power_limit.
        clocks: clock and governor readings by name, at one moment.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    clocks: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON form of what does not change from moment to moment."""
        return dict(self.values)


@dataclass(frozen=True)
class Machine:
    """A target and its trtexec.

    Attributes:
        platform: what its file calls it.
        workdir: directory for jobs.
        version: TensorRT's version, as trtexec states it.
        listed: options on trtexec's own help page.
        host: this machine, where it builds for the target; None where the target builds itself.
        trtexec_safe: path of trtexec_safe there, where one runs its engines.
    """

    transport: Transport
    name: str
    platform: str
    workdir: str
    environment: Mapping[str, str]
    facts: Facts
    trtexec: str
    version: Version
    listed: frozenset[str]
    host: Host | None = None
    trtexec_safe: str | None = None

    def clocks(self) -> Mapping[str, str]:
        """Clock readings now."""
        return _ask(self.transport, "", "")[0].clocks

    def to_json(self) -> dict[str, Any]:
        """JSON form for records: what it is, not how it is reached."""
        built = self.host.to_json() if self.host else {}
        return {"platform": self.platform, "tensorrt": str(self.version), **built, **self.facts.to_json()}


@contextmanager
def open_machine(config: TargetConfig | None, *, root: str = "", to_build: bool = False) -> Iterator[Machine]:
    """Reach a target, find out what it is, and hold the connection.

    Args:
        config: the target; None is this machine.
        root: prefix of the paths that are looked at.
        to_build: also ask this machine's trtexec, where it builds for the target.

    Raises:
        EnvironmentLacksError: it cannot be reached, has no trtexec, or one of an unknown version.
        UsageError: its TensorRT or power mode is not the one that its file states.
    """
    with open_transport(config) as transport:
        facts, help_page = _ask(transport, config.trtexec or "" if config else "", root)
        if config is not None:
            _require_power_mode(config, facts)
        if config is not None and config.build == "host":
            yield _built_for(config, transport, facts, help_page, to_build)
            return
        trtexec = facts.values.get("trtexec")
        if trtexec is None:
            where = (config and config.trtexec) or "on PATH or in /usr/src/tensorrt/bin"
            raise EnvironmentLacksError(
                f"{transport.name}: no trtexec {where}",
                fix="install NVIDIA's TensorRT package there, or set trtexec: in the target's file",
            )
        version = _version(transport, trtexec, help_page, config)
        yield _machine(config, transport, facts, version, options_of_help(help_page))


def _machine(
    config: TargetConfig | None,
    transport: Transport,
    facts: Facts,
    version: Version,
    listed: frozenset[str],
    host: Host | None = None,
) -> Machine:
    values = {key: value for key, value in facts.values.items() if key != "trtexec"}
    return Machine(
        transport=transport,
        name=transport.name,
        platform=config.platform if config else "this machine",
        workdir=config.workdir if config else f"{tempfile.gettempdir()}/csa-deploy-{os.getuid()}",
        environment=config.environment if config else {},
        facts=Facts(values, facts.clocks),
        trtexec=(config.trtexec or "") if config and config.build == "host" else facts.values.get("trtexec", ""),
        version=version,
        listed=listed,
        host=host,
        trtexec_safe=config.trtexec_safe if config else None,
    )


def _built_for(config: TargetConfig, transport: Transport, facts: Facts, help_page: str, to_build: bool) -> Machine:
    """A target that a host builds for: it may have no trtexec, and its TensorRT must be the host's."""
    host = find_host(config) if to_build else None
    told = version_of_help(help_page) if "trtexec" in facts.values else None
    remote = config.tuned_by
    folders = (remote.exec_path if host else remote.lib_path, remote.lib_path)  # to run, nothing is tuned
    found = require_target(transport, folders, config.trtexec_safe, told, host.version if host else None)
    version = found or (host.version if host else parse_version(config.tensorrt or "0.0"))
    if config.tensorrt is None and found is None:
        raise EnvironmentLacksError(
            f"{transport.name}: nothing there tells its TensorRT version",
            fix="state tensorrt: in the target's file",
        )
    _require_stated(transport.name, version, config)
    if found is None:
        facts = replace(facts, values={**facts.values, "tensorrt_from": "its file: nothing there tells it"})
    listed = options_of_help(help_page) if told else frozenset(VERSION_OPTIONS)
    return _machine(config, transport, facts, version, listed, host)


def stated_machine(config: TargetConfig) -> Machine | None:
    """A target as its own file describes it, not reached: good for wording commands, not for running them.

    Returns:
        None where the file does not state the version of TensorRT, which decides the words.

    Raises:
        EnvironmentLacksError: an unknown version, or no ssh on this machine.
    """
    if config.tensorrt is None:
        return None
    host = stated_host(config) if config.build == "host" else None
    version = parse_version(config.tensorrt)
    if host is None:
        require_known(version)
    return replace(
        _machine(config, open_transport(config), Facts(), version, STATED, host),
        name=config.name,
        trtexec=config.trtexec or ("" if host else "trtexec"),
    )


def _ask(transport: Transport, trtexec: str, root: str) -> tuple[Facts, str]:
    script = _SCRIPT.read_text(encoding="utf-8")
    text = persistently(lambda: run_script(transport, script, trtexec, root), transport).text
    head, _, help_page = text.partition("\nhelp\n")
    values: dict[str, str] = {}
    for line in head.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, value.strip())
    smi = [part.strip() for part in values.pop("smi", "").split(",")]
    if len(smi) == 3:
        values |= {"driver": smi[0], "gpu": smi[1], "compute_capability": smi[2]}
    clocks = {key: values.pop(key) for key in sorted(values) if key.startswith(("clock_", "governor_"))}
    return Facts(values, clocks), help_page


def _version(transport: Transport, trtexec: str, help_page: str, config: TargetConfig | None) -> Version:
    found = version_of_help(help_page)
    if found is None:
        said = " ".join(help_page.split())[:200] or "nothing"
        raise EnvironmentLacksError(
            f"{transport.name}: {trtexec} does not tell its version; it says: {said}",
            fix="check that it starts there; LD_LIBRARY_PATH can be set under environment: in the target's file",
        )
    if config is not None:
        _require_stated(transport.name, found, config)
    require_known(found, options_of_help(help_page))
    return found


def _require_stated(name: str, found: Version, config: TargetConfig) -> None:
    if config.tensorrt is None:
        return
    stated = parse_version(config.tensorrt)
    exact = config.tensorrt.count(".") > 1
    if stated.pair != found.pair or (exact and stated.patch != found.patch):
        raise UsageError(
            f"{name} has TensorRT {found}, its file states {config.tensorrt}",
            fix="correct tensorrt: in the target's file, or look whether this is the target that is meant",
        )


def _require_power_mode(config: TargetConfig, facts: Facts) -> None:
    if config.power_mode is None:
        return
    found = facts.values.get("power_mode")
    if found is None:
        raise EnvironmentLacksError(
            f"{config.name}: its power mode cannot be read (no nvpmodel there), its file states {config.power_mode}",
            fix="leave out power_mode: in the target's file",
        )
    if found.lower() != config.power_mode.lower():
        raise UsageError(
            f"{config.name} is in power mode {found}, its file states {config.power_mode}",
            fix="set it there with `sudo nvpmodel -m`, or correct power_mode: in the target's file",
        )
