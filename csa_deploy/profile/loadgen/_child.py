"""The measuring process: ``python -m csa_deploy.profile.loadgen._child`` with the request as JSON on standard input.

The load generator cannot be interrupted, and an exception in its threads ends the process. The last line of standard
output is a JSON object: the shapes of the outputs, or ``error`` with ``fix`` and ``exit_code``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from csa_deploy.config import Config
from csa_deploy.errors import CsaDeployError
from csa_deploy.processes import end_with_parent
from csa_deploy.profile.bench import Bench
from csa_deploy.profile.loadgen.drive import drive
from csa_deploy.profile.loadgen.samples import SentSamples
from csa_deploy.profile.loadgen.settings import LoadgenSettings
from csa_deploy.runners.base import Runner

_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")


def _ending(call: Callable[_Arguments, _Returned]) -> Callable[_Arguments, _Returned]:
    """A call whose failure ends the process: the load generator would wait for its answer for ever."""

    @functools.wraps(call)
    def called(*given: _Arguments.args, **named: _Arguments.kwargs) -> _Returned:
        try:
            return call(*given, **named)
        except Exception as error:  # whatever it is, nobody above could catch it
            _say_error(error)
            os._exit(1)

    return called


class _Answering:
    """A runner that the load generator's threads may call."""

    def __init__(self, runner: Runner) -> None:
        self.input_specs, self.output_specs = runner.input_specs, runner.output_specs
        self.run = _ending(runner.run)


class _EndingSamples(SentSamples):
    """Likewise samples."""

    feeds = _ending(SentSamples.feeds)


def main() -> None:
    """Measure, and say how it ended."""
    end_with_parent()
    request = json.load(sys.stdin)
    try:
        with contextlib.ExitStack() as held:
            runner = _Answering(_opened(request, held))
            settings = LoadgenSettings(**request["settings"])
            given: SentSamples = pickle.loads(Path(request["samples"]).read_bytes())  # noqa: S301 (the parent's own)
            samples = _EndingSamples(given.seed, given.data, given.sample)
            drive(runner, settings, Path(request["folder"]), samples, warmup=request["warmup"])
            _say(outputs=[[spec.name, spec.shape, spec.dtype] for spec in runner.output_specs])
    except CsaDeployError as error:
        _say_error(error)


def _opened(request: dict[str, Any], held: contextlib.ExitStack) -> Runner:
    bench = Bench(Path(request["root"]), Config(threads=request["threads"], seed=request["seed"]), held)
    subject = request["subject"]
    bench.open(**subject | {"graph": subject["graph"] and Path(subject["graph"])})
    if bench.not_measured:
        raise CsaDeployError(bench.not_measured[0].reason)
    return next(iter(bench.subjects.values())).runner


def _say_error(error: Exception) -> None:
    known = error if isinstance(error, CsaDeployError) else CsaDeployError(f"{type(error).__name__}: {error}")
    _say(error=known.message, fix=known.fix, exit_code=known.exit_code)


def _say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
