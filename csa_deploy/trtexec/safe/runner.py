"""Runs a safety engine on its target: timed by trtexec_safe, its values through the proxy runtime or 11.0's dump."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from csa_deploy.engine.parts import parts_folder
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.records.build import Part
from csa_deploy.records.device import ClockReadings, TargetTiming
from csa_deploy.runners.base import check_feeds
from csa_deploy.spec import Arrays, TensorSpec
from csa_deploy.trtexec.command import TimingRequest
from csa_deploy.trtexec.job import Finished, Job, run_job
from csa_deploy.trtexec.machine import Machine
from csa_deploy.trtexec.runner import LOOP, TrtexecRunner, clock_notes, file_stem
from csa_deploy.trtexec.safe.commands import DUMPED, dumps_outputs, runner_command
from csa_deploy.trtexec.safe.layout import layout_of, pack, unpack
from csa_deploy.trtexec.safe.verdict import latencies_of, why_not_passed
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import Version

_BESIDE = ("companion", "plugin-run", "other")
_EVIDENCE = (
    "the target, timed by its own trtexec_safe, one inference after another: the computation on the device, and the "
    "time from the launch until its end is known; no copies, the inputs are on the device already"
)
# Runs a program with the directory $1 first among its libraries; $2: a directory to make before.
_WITH_LIBRARIES = """LD_LIBRARY_PATH="$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; export LD_LIBRARY_PATH
[ -z "$2" ] || mkdir -p "$2" || exit 73
shift 2; exec "$@"
"""


class Tools(Protocol):
    """What a target or its file states about running safety engines."""

    @property
    def trtexec(self) -> str | None:
        """Path of a trtexec there that runs them through the proxy runtime."""

    @property
    def trtexec_safe(self) -> str | None:
        """Path of trtexec_safe there."""


def dumps_by_runner(tools: Tools, version: Version) -> bool:
    """Whether values come from trtexec_safe; else they come through the proxy runtime, where there is one."""
    return not tools.trtexec and bool(tools.trtexec_safe) and dumps_outputs(version)


def why_no_values(tools: Tools, version: Version) -> EnvironmentLacksError | None:
    """Why the values of a safety engine cannot be compared; None where they can."""
    if tools.trtexec or dumps_by_runner(tools, version):
        return None
    return EnvironmentLacksError(
        f"not compared: trtexec_safe of TensorRT {version} gives no outputs back (11.0 alone does)",
        fix="state trtexec: in the target's file where the proxy runtime is (DRIVE Linux, QNX standard), or build "
        "runtime/ of the bundle on the target, which compares with the bundle's samples",
    )


class SafeRunner(TrtexecRunner):
    """An engine that a host built for its target; see :class:`csa_deploy.trtexec.runner.TrtexecRunner`.

    Args:
        machine: context manager that reaches the target.
        parts: what belongs to the engine; companion and plugin libraries lie beside it on the target.
        lib_path: directory of TensorRT's libraries there.
        options: what it was built with.
        version: TensorRT that built it.
    """

    def __init__(
        self,
        engine: Path,
        machine: AbstractContextManager[Machine],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        parts: Sequence[Part],
        lib_path: str,
        options: TrtexecOptions,
        version: str,
        name: str,
    ) -> None:
        super().__init__(engine, machine, inputs, outputs, options=options, version=version, name=name)
        self._parts = [part for part in parts if part.role in _BESIDE]
        self._lib_path, self._built = lib_path, options

    def describe(self) -> dict[str, Any]:
        """What executes."""
        by = "trtexec_safe" if self._machine.trtexec_safe else "trtexec"
        return {**super().describe(), "executes": f"{super().describe()['executes']}, by {by}"}

    def run_all(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Arrays]:
        """Execute once per sample, in one job.

        Raises:
            EnvironmentLacksError: nothing there gives values back.
        """
        if error := why_no_values(self._machine, self._machine.version):
            raise error
        if self._machine.trtexec:
            return super().run_all(samples)
        for feeds in samples:
            check_feeds(self._inputs, feeds)
        with tempfile.TemporaryDirectory(prefix="csa-run-") as folder:
            into = Path(folder)
            self._run_safe(self._dumping_job(samples, into), into, len(samples))
            return self._values(into, len(samples))

    def measure(self, feeds: Mapping[str, np.ndarray], timing: TimingRequest, *, layers: bool = True) -> TargetTiming:
        """Time inferences, the latency as the host sees it, without layers.

        Raises:
            EnvironmentLacksError: neither trtexec_safe nor trtexec there.
        """
        machine = self._machine
        if not machine.trtexec_safe:
            if not machine.trtexec:
                raise _untimed()
            return super().measure(feeds, timing, layers=False)
        check_feeds(self._inputs, feeds)
        with tempfile.TemporaryDirectory(prefix="csa-run-") as folder:
            into = Path(folder)
            files = self._files([feeds], into)
            named = {spec.name: f"in.{k}" for k, spec in enumerate(self._inputs)}
            words = runner_command(machine.version, named, timing, self._parts)
            before = machine.clocks()
            log = self._run_safe(Job(self._safe(words), files, (), machine.environment), into, 1).log
            after = machine.clocks()
        found = latencies_of(log)
        return TargetTiming(
            samples_ms=tuple(found.host),
            compute_ms=tuple(found.gpu),
            evidence=_EVIDENCE,
            conditions={**timing.to_json(), "iterations": len(found.gpu), "transfers": False},
            clocks=ClockReadings(dict(before), dict(after)),
            notes=clock_notes(before, after),
        )

    def _files(self, samples: Sequence[Mapping[str, np.ndarray]], folder: Path) -> dict[str, Path]:
        packed = [
            {
                spec.name: pack(feeds[spec.name], layout_of(self._built.input_formats, place))
                for place, spec in enumerate(self._inputs)
            }
            for feeds in samples
        ]
        beside = {part.file: parts_folder(self._engine) / part.file for part in self._parts}
        return {**super()._files(packed, folder), **beside}

    def _safe(self, words: Sequence[str], make: str = "") -> list[str]:
        runner = self._machine.trtexec_safe
        assert runner is not None
        return ["sh", "-c", _WITH_LIBRARIES, "csa-deploy", self._lib_path, make, runner, *words]

    def _dumping_job(self, samples: Sequence[Mapping[str, np.ndarray]], folder: Path) -> Job:
        files = self._files(samples, folder)
        loop = folder / "loop.sh"
        loop.write_text(LOOP, encoding="utf-8")
        sizes = [str(files[f"in.{k}"].stat().st_size // len(samples)) for k in range(len(self._inputs))]
        patterns = [f"{DUMPED}/{file_stem(spec.name)}.bin" for spec in self._outputs]
        named = {spec.name: f"in.{k}" for k, spec in enumerate(self._inputs)}
        words = runner_command(self._machine.version, named, TimingRequest(), self._parts, dump=True, above=True)
        argv = ["sh", "./loop.sh", str(len(samples)), *sizes, "--", *patterns, "--", *self._safe(words, DUMPED)]
        outputs = [f"out.{k}" for k in range(len(self._outputs))]
        return Job(argv, {**files, "loop.sh": loop}, outputs, self._machine.environment)

    def _run_safe(self, job: Job, into: Path, runs: int) -> Finished:
        finished = run_job(self._machine.transport, self._machine.workdir, job, into)
        error: CsaDeployError | None = why_not_passed(finished.log, finished.status, runs)
        if error is not None:
            raise type(error)(f"{self._engine.name} on {self._machine.name}: {error.message}", fix=error.fix)
        return finished

    def _values(self, into: Path, samples: int) -> list[Arrays]:
        columns = {}
        for place, spec in enumerate(self._outputs):
            shape = tuple(int(extent or 1) for extent in spec.shape)
            raw = np.fromfile(into / f"out.{place}", dtype=spec.dtype)
            layout = layout_of(self._built.output_formats, place)
            columns[spec.name] = [unpack(part, shape, layout) for part in np.split(raw, samples)]
        return [{name: column[i] for name, column in columns.items()} for i in range(samples)]


def _untimed() -> EnvironmentLacksError:
    return EnvironmentLacksError(
        "not timed: the target's file states neither trtexec_safe: nor trtexec:",
        fix="state trtexec_safe: there, the program that comes with DRIVE OS's safety runtime",
    )
