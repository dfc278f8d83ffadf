"""The measuring process: ``python -m csa_deploy.profile.loadgen._child`` with the request as JSON on standard input.

The load generator cannot be interrupted, and an exception in its threads ends the process. The last line of standard
output is a JSON object: the shapes of the outputs, or ``error``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from csa_deploy.config import Config
from csa_deploy.errors import CsaDeployError
from csa_deploy.processes import end_with_parent
from csa_deploy.profile.bench import Bench
from csa_deploy.profile.loadgen.drive import drive
from csa_deploy.profile.loadgen.settings import LoadgenSettings
from csa_deploy.runners.base import Runner
from csa_deploy.spec import Arrays


class _Ending:
    """A runner whose failure ends the process: the load generator would wait for the answer for ever."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.input_specs, self.output_specs = runner.input_specs, runner.output_specs

    def run(self, feeds: Arrays) -> Arrays:
        """See :class:`csa_deploy.runners.base.Runner`."""
        try:
            return self._runner.run(feeds)
        except Exception as error:  # whatever it is, nobody above could catch it
            _say(error=getattr(error, "message", f"{type(error).__name__}: {error}"))
            os._exit(1)


def main() -> None:
    """Measure, and say how it ended."""
    end_with_parent()
    request = json.load(sys.stdin)
    try:
        with contextlib.ExitStack() as held:
            runner = _Ending(_opened(request, held))
            settings = LoadgenSettings(**request["settings"])
            drive(runner, settings, Path(request["folder"]), seed=request["seed"], warmup=request["warmup"])
            _say(outputs=[[spec.name, spec.shape, spec.dtype] for spec in runner.output_specs])
    except CsaDeployError as error:
        _say(error=error.message)


def _opened(request: dict[str, Any], held: contextlib.ExitStack) -> Runner:
    bench = Bench(Path(request["root"]), Config(threads=request["threads"], seed=request["seed"]), held)
    subject = request["subject"]
    bench.open(**subject | {"graph": subject["graph"] and Path(subject["graph"])})
    if bench.not_measured:
        raise CsaDeployError(bench.not_measured[0].reason)
    return next(iter(bench.subjects.values())).runner


def _say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
