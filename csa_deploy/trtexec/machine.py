"""A target that is ready for work: reached, asked what it is, and with a trtexec of a known version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.config import TargetConfig
from csa_deploy.trtexec.files import persistently
from csa_deploy.trtexec.transport import Transport, open_transport, run_script
from csa_deploy.trtexec.versions import (
    OPTIONS,
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
        transport: the way to it.
        name: how messages call it.
        platform: what its file calls it.
        workdir: directory for jobs.
        environment: variables for trtexec.
        facts: what it is.
        trtexec: path of trtexec there.
        version: TensorRT's version, as trtexec states it.
        listed: options on trtexec's own help page.
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

    def clocks(self) -> Mapping[str, str]:
        """Clock readings now."""
        return _ask(self.transport, "", "")[0].clocks

    def to_json(self) -> dict[str, Any]:
        """JSON form for records: what it is, not how it is reached."""
        return {"platform": self.platform, "tensorrt": str(self.version), **self.facts.to_json()}


@contextmanager
def open_machine(config: TargetConfig | None, *, root: str = "") -> Iterator[Machine]:
    """Reach a target, find out what it is, and hold the connection.

    Args:
        config: the target; None is this machine.
        root: prefix of the paths that are looked at.

    Raises:
        EnvironmentLacksError: it cannot be reached, has no trtexec, or one of an unknown version.
        UsageError: its TensorRT or power mode is not the one that its file states.
    """
    with open_transport(config) as transport:
        stated = config.trtexec if config and config.trtexec else ""
        facts, help_page = _ask(transport, stated, root)
        trtexec = facts.values.get("trtexec")
        if trtexec is None:
            where = stated or "on PATH or in /usr/src/tensorrt/bin"
            raise EnvironmentLacksError(
                f"{transport.name}: no trtexec {where}",
                fix="install NVIDIA's TensorRT package there, or set trtexec: in the target's file",
            )
        version = _version(transport, trtexec, help_page, config)
        if config is not None:
            _require_power_mode(config, facts)
        values = {key: value for key, value in facts.values.items() if key != "trtexec"}
        yield Machine(
            transport=transport,
            name=transport.name,
            platform=config.platform if config else "this machine",
            workdir=config.workdir if config else f"{tempfile.gettempdir()}/csa-deploy-{os.getuid()}",
            environment=config.environment if config else {},
            facts=Facts(values, facts.clocks),
            trtexec=trtexec,
            version=version,
            listed=options_of_help(help_page),
        )


def stated_machine(config: TargetConfig) -> Machine | None:
    """A target as its own file describes it, not reached: good for wording commands, not for running them.

    Returns:
        None where the file does not state the version of TensorRT, which decides the words.

    Raises:
        EnvironmentLacksError: an unknown version, or no ssh on this machine.
    """
    if config.tensorrt is None:
        return None
    version = parse_version(config.tensorrt)
    require_known(version)
    return Machine(
        transport=open_transport(config),
        name=config.name,
        platform=config.platform,
        workdir=config.workdir,
        environment=config.environment,
        facts=Facts(),
        trtexec=config.trtexec or "trtexec",
        version=version,
        listed=frozenset(OPTIONS),  # no help page was read: the table alone says what the version has
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
    if config is not None and config.tensorrt is not None:
        stated = parse_version(config.tensorrt)
        exact = config.tensorrt.count(".") > 1
        if stated.pair != found.pair or (exact and stated.patch != found.patch):
            raise UsageError(
                f"{transport.name} has TensorRT {found}, its file states {config.tensorrt}",
                fix="correct tensorrt: in the target's file, or look whether this is the target that is meant",
            )
    require_known(found, options_of_help(help_page))
    return found


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
