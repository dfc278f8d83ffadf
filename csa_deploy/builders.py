"""The choice of a builder for a whole stage: on this machine in a child process, or trtexec here or on a target."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.engine.backends import choose_backend
from csa_deploy.engine.build import build
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import BuildResult
from csa_deploy.engine.timing_cache import held_cache
from csa_deploy.errors import UsageError
from csa_deploy.installing import versions
from csa_deploy.trtexec.builder import planned_job, trtexec_build
from csa_deploy.trtexec.safe.steps import SafeStep, build_steps
from csa_deploy.trtexec.settings import TrtexecOptions, parse_options
from csa_deploy.trtexec.versions import Version, parse_version

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.trtexec.job import Job
    from csa_deploy.trtexec.machine import Machine

Progress = Callable[[int, int], None]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Builder:
    """A builder that is ready.

    Attributes:
        machine: the machine whose trtexec builds; None for the Python builders.
        options: what only trtexec can be asked for.
    """

    machine: Machine | None
    options: TrtexecOptions

    def build(self, graph: Path, out: Path, plan: BuildPlan, progress: Progress, attempt: int = 0) -> BuildResult:
        """One build; see :func:`csa_deploy.engine.build.build`."""
        with held_cache(plan.timing_cache, self._who()):
            if self.machine is None:
                return build(graph, out, plan, progress)
            return trtexec_build(self.machine, graph, out, plan, self.options, progress, attempt=attempt)

    def job(self, graph: Path, plan: BuildPlan) -> Job:
        """What would be run and copied; raises UsageError for the Python builders, which run no command."""
        if self.machine is None:
            raise UsageError(
                "--dry-run prints trtexec's command, and this build does not use it",
                fix="add --backend trtexec or --target",
            )
        return planned_job(self.machine, graph, plan, self.options)

    def steps(self, job: Job) -> tuple[SafeStep, ...]:
        """Where a host builds for the target, every command in order, of both; else none beside the job's."""
        if self.machine is None or self.machine.host is None:
            return ()
        return build_steps(self.machine, job, self.options)

    def _who(self) -> dict[str, Any]:
        """What a timing cache is valid for."""
        if self.machine is not None:
            return {"tensorrt": str(self.machine.version), "machine": self.machine.facts.to_json().get("gpu")}
        devices = [device.name for device in cuda_state().devices]
        return {"tensorrt": versions(["tensorrt"])["tensorrt"], "machine": devices[0] if devices else None}


def uses_trtexec(config: Config) -> bool:
    """Whether trtexec builds."""
    if config.target and config.backend not in ("auto", "trtexec"):
        raise UsageError(f"--target builds with trtexec, not with {config.backend}", fix="leave out --backend")
    return bool(config.target) or config.backend == "trtexec"


def check_settings(config: Config) -> None:
    """Refuse settings that do not go together, and a target's file that cannot be read; reaches nothing.

    Raises:
        UsageError: named.
    """
    from csa_deploy.trtexec.config import load_target

    parse_options(config.builder_option)
    if config.builder_option and not uses_trtexec(config):
        raise UsageError("--builder-option is for trtexec", fix="add --backend trtexec or --target")
    if uses_trtexec(config) and config.target:
        load_target(Path(config.target))


def stated_version(config: Config) -> Version | None:
    """The TensorRT of a target, as far as its file states it; nothing is reached."""
    from csa_deploy.trtexec.config import load_target

    stated = load_target(Path(config.target)).tensorrt if config.target else None
    return parse_version(stated) if stated else None


@contextmanager
def opened_builder(config: Config) -> Iterator[Builder]:
    """The builder that a configuration asks for, its target reached.

    Raises:
        UsageError: builder options without trtexec.
        EnvironmentLacksError: the target cannot be reached, or has no trtexec of a known version.
    """
    check_settings(config)
    options = parse_options(config.builder_option)
    if not uses_trtexec(config):
        yield Builder(None, options)
        return
    from csa_deploy.trtexec.config import load_target
    from csa_deploy.trtexec.machine import open_machine

    with ExitStack() as stack:
        target = load_target(Path(config.target)) if config.target else None
        yield Builder(stack.enter_context(open_machine(target, to_build=True)), options)


@contextmanager
def wording_builder(config: Config) -> Iterator[Builder]:
    """A builder whose commands are only read: a target whose file states its TensorRT is not reached.

    Raises: as :func:`opened_builder`.
    """
    from csa_deploy.trtexec.config import load_target
    from csa_deploy.trtexec.machine import stated_machine

    check_settings(config)
    machine = stated_machine(load_target(Path(config.target))) if config.target else None
    if machine is not None:
        yield Builder(machine, parse_options(config.builder_option))
        return
    if config.target:
        _LOG.warning("%s: asking the target for its TensorRT, as tensorrt: is not stated there", config.target)
    with opened_builder(config) as builder:
        yield builder


def builder_key(config: Config) -> dict[str, Any]:
    """What decides a build besides settings: the builder's version, and what it builds for."""
    if uses_trtexec(config):
        with opened_builder(config) as builder:
            assert builder.machine is not None
            cache = builder.options.calibration_cache
            return {"machine": builder.machine.to_json(), "options": builder.options.to_json(), "cache": _hash(cache)}
    devices = [device.compute_capability for device in cuda_state().devices]
    title = choose_backend(config.backend).title
    return {"backend": title, "version": versions(["tensorrt", "tensorrt-rtx"]), "devices": devices}


def _hash(path: Path | None) -> str | None:
    from csa_deploy.workspace import sha256_of

    return sha256_of(path) if path is not None and path.is_file() else None
