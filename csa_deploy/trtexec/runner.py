"""Runs an engine with trtexec on a target, and compares nothing: arrays in, arrays out, measurements as trtexec's own.

Outputs travel as raw files, since trtexec's JSON holds six digits. Many inputs go in one job: one file per input with
all of them one after another, cut on the target.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import Sample
from csa_deploy.records.device import ClockReadings, LayerAverage, TargetTiming
from csa_deploy.runners.base import check_feeds
from csa_deploy.spec import Arrays, TensorSpec
from csa_deploy.trtexec.command import PROFILE, TIMES, TimingRequest, require_runnable, run_command
from csa_deploy.trtexec.job import Job, run_job
from csa_deploy.trtexec.machine import Machine
from csa_deploy.trtexec.messages import explain
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import Version

_ENGINE = "engine.plan"
# From this version trtexec keeps the first and the last characters of a file name that is too long.
_CUTS_NAMES, _LONGEST_NAME, _KEPT = (10, 13), 150, 73
_MOST_OF_TYPE = len("Unknown_.raw")  # at least as long as any TYPE.raw
# Runs trtexec once per sample. Arguments: samples, then bytes per input up to "--", one file pattern per output up to
# "--", then the command. A pattern that fits no file or several ends it. The file in.K holds all samples of input K,
# out.K gets all of output K.
LOOP = """one() { [ $# = 1 ] && cat "$1"; }
samples=$1; shift
sizes=; while [ "$1" != -- ]; do sizes="$sizes $1"; shift; done; shift
patterns=; while [ "$1" != -- ]; do patterns="$patterns $1"; shift; done; shift
i=0
while [ "$i" -lt "$samples" ]; do
  mkdir run || exit 70
  k=0
  for size in $sizes; do
    dd if=in.$k of=run/in.$k bs="$size" skip="$i" count=1 2>/dev/null || exit 71
    k=$((k + 1))
  done
  (cd run && "$@") || exit $?
  k=0
  for pattern in $patterns; do
    one run/$pattern >> out.$k || exit 72
    k=$((k + 1))
  done
  rm -rf run
  i=$((i + 1))
done
"""


class TrtexecRunner:
    """An engine on a target; see :class:`csa_deploy.runners.base.Runner`.

    Args:
        engine: path of the engine here; it is sent when it is needed.
        machine: context manager that reaches the target; entered by ``__enter__``.
        inputs: the engine's inputs with static shapes.
        outputs: the engine's outputs with static shapes.
        options: what it was built with, where that decides how it runs.
        version: TensorRT that built it; another one there is refused.

    Raises:
        UsageError: no such engine, or names that trtexec cannot keep apart.
        EnvironmentLacksError: a DLA loadable, which trtexec cannot run.
    """

    def __init__(
        self,
        engine: Path,
        machine: AbstractContextManager[Machine],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        options: TrtexecOptions | None = None,
        version: str | None = None,
        name: str = "trtexec",
    ) -> None:
        if not engine.is_file():
            raise UsageError(f"no such engine: {engine}", fix="run `csa-deploy build` first")
        require_runnable(options or TrtexecOptions(), engine.name)
        self.name = name
        self.sample: Sample | None = None
        self._engine, self._opening, self._options = engine, machine, options
        self._reached: Machine | None = None
        self._version = version
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        if len({file_stem(spec.name) for spec in outputs}) != len(outputs):
            raise UsageError(f"{name}: trtexec writes two outputs to one file", fix="export them under other names")

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the engine."""
        return self._inputs

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the engine."""
        return self._outputs

    def describe(self) -> dict[str, Any]:
        """What executes."""
        return {
            "backend": "trtexec",
            "version": str(self._machine.version),
            "provider": self._machine.name,
            "threads": None,
            "executes": f"the engine {self._engine.name}, on {self._machine.name}",
        }

    @property
    def host_threads(self) -> int:
        """None that matter: it runs on a GPU, here or on a target."""
        return 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once."""
        return self.run_all([feeds])[0]

    def run_all(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Arrays]:
        """Execute once per sample, in one job.

        Raises:
            UsageError: inputs that do not fit.
            CsaDeployError: trtexec failed; its known messages are translated.
        """
        for feeds in samples:
            check_feeds(self._inputs, feeds)
        with tempfile.TemporaryDirectory(prefix="csa-run-") as folder:
            into = Path(folder)
            job = self._job(samples, into)
            self._finish(job, into)
            return self._read(into, len(samples))

    def measure(self, feeds: Mapping[str, np.ndarray], timing: TimingRequest, *, layers: bool = True) -> TargetTiming:
        """Time inferences as trtexec does."""
        check_feeds(self._inputs, feeds)
        with tempfile.TemporaryDirectory(prefix="csa-run-") as folder:
            into = Path(folder)
            files = self._files([feeds], into)
            named = {spec.name: f"in.{k}" for k, spec in enumerate(self._inputs)}
            command = self._command(_ENGINE, named, timing, layers=layers)
            before = self._machine.clocks()
            self._finish(Job(command, files, (TIMES, PROFILE), self._machine.environment), into)
            after = self._machine.clocks()
            rows = _json(into / TIMES)
            profile = _json(into / PROFILE) if (into / PROFILE).is_file() else []
        return TargetTiming(
            samples_ms=tuple(row["latencyMs"] for row in rows),
            compute_ms=tuple(row["computeMs"] for row in rows),
            layers=tuple(
                LayerAverage(row["name"], row["averageMs"], row["percentage"]) for row in profile if "name" in row
            ),
            conditions=timing.to_json(),
            clocks=ClockReadings(dict(before), dict(after)),
            notes=clock_notes(before, after),
        )

    @property
    def _machine(self) -> Machine:
        if self._reached is None:
            raise UsageError(f"{self.name} is closed", fix="use it inside its with block")
        return self._reached

    def __enter__(self) -> TrtexecRunner:
        """Reach the target, and see that it has the TensorRT that built the engine."""
        machine = self._opening.__enter__()
        if self._version is not None and str(machine.version) != self._version:
            self._opening.__exit__(None, None, None)
            raise EnvironmentLacksError(
                f"{self._engine.name} was built by TensorRT {self._version}, {machine.name} has {machine.version}",
                fix="run `csa-deploy build` with this target",
            )
        self._reached = machine
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the target."""
        self._reached = None
        self._opening.__exit__(kind, error, trace)

    def _command(
        self, engine: str, named: Mapping[str, str], timing: TimingRequest | None, **wanted: bool
    ) -> list[str]:
        machine = self._machine
        arguments = run_command(
            engine, machine.version, named, timing, options=self._options, listed=machine.listed, **wanted
        )
        return [machine.trtexec, *arguments]

    def _files(self, samples: Sequence[Mapping[str, np.ndarray]], folder: Path) -> dict[str, Path]:
        files = {_ENGINE: self._engine}
        for k, spec in enumerate(self._inputs):
            path = folder / f"send.{k}"
            with path.open("wb") as stream:
                for feeds in samples:
                    stream.write(np.ascontiguousarray(feeds[spec.name]).tobytes())
            files[f"in.{k}"] = path
        return files

    def _job(self, samples: Sequence[Mapping[str, np.ndarray]], folder: Path) -> Job:
        files = self._files(samples, folder)
        loop = folder / "loop.sh"
        loop.write_text(LOOP, encoding="utf-8")
        named = {spec.name: f"in.{k}" for k, spec in enumerate(self._inputs)}
        sizes = [str(files[f"in.{k}"].stat().st_size // len(samples)) for k in range(len(self._inputs))]
        patterns = [file_pattern(spec, self._machine.version) for spec in self._outputs]
        if len(set(patterns)) != len(patterns):
            raise UsageError(
                f"{self.name}: trtexec writes two outputs to one file", fix="export them under other names"
            )
        command = self._command(f"../{_ENGINE}", named, None, outputs=True)
        argv = ["sh", "./loop.sh", str(len(samples)), *sizes, "--", *patterns, "--", *command]
        outputs = [f"out.{k}" for k in range(len(self._outputs))]
        return Job(argv, {**files, "loop.sh": loop}, outputs, self._machine.environment)

    def _finish(self, job: Job, into: Path) -> None:
        finished = run_job(self._machine.transport, self._machine.workdir, job, into)
        if finished.status:
            what = f"running {self._engine.name} on {self._machine.name}"
            raise explain(finished.log, finished.status, what, "the message with -vv")
        missing = [name for name in job.outputs if name not in finished.files and name != PROFILE]
        if missing:
            raise EnvironmentLacksError(
                f"{self._machine.name}: trtexec wrote no {', '.join(missing)}", fix="run the command again with -vv"
            )

    def _read(self, into: Path, samples: int) -> list[Arrays]:
        columns = {}
        for k, spec in enumerate(self._outputs):
            shape = list(spec.static_shape)
            data = np.fromfile(into / f"out.{k}", dtype=spec.dtype)
            if data.size != samples * int(np.prod(shape)):
                raise UsageError(
                    f"{self.name}: output {spec.name!r} has {data.size} values for {samples} samples of {shape}",
                    fix="the engine is not of this graph, or its outputs are not linear: build it again",
                )
            columns[spec.name] = data.reshape(samples, *shape)
        return [{name: column[i] for name, column in columns.items()} for i in range(samples)]


def file_pattern(spec: TensorSpec, version: Version) -> str:
    """A shell pattern of the one file that trtexec writes an output to: ``NAME.output.DIMS.TYPE.raw``.

    From 10.13 a file name of more than 150 characters is cut in its middle. Where exactly depends on the type's
    spelling, so the pattern holds what stays in any case.
    """
    stem, dims = file_stem(spec.name), ".".join(str(extent) for extent in spec.static_shape)
    head = f"{stem}.output.{dims}."
    if version.pair < _CUTS_NAMES or len(head) + _MOST_OF_TYPE <= _LONGEST_NAME:
        return f"{stem}.output.*"
    return f"{head[:_KEPT]}*{head[_MOST_OF_TYPE - _KEPT :]}*"


def file_stem(name: str) -> str:
    """What trtexec makes of a tensor's name in a file's name, byte by byte."""
    return re.sub(rb"[^A-Za-z0-9._,-]", b"_", name.encode()).decode()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        text = path.read_text(encoding="utf-8", errors="replace")
        if re.search(r":\s*-?nan\b", text):  # an average over nothing
            raise UsageError(f"trtexec's {path.name}: nothing was timed", fix="ask for more iterations") from None
        raise UsageError(f"trtexec's {path.name} is no JSON: {error}", fix="run the command again") from None


def clock_notes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Clocks that changed during a measurement, one line each."""
    if not before:
        return ("clocks: not measured: the target does not show them",)
    return tuple(
        f"{name} changed during the measurement, from {value} to {after.get(name, 'nothing')}: lock the clocks"
        for name, value in before.items()
        if after.get(name) != value
    )
