"""Entry point: assembles the verbs, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from csa_deploy import __version__
from csa_deploy.cli.answer import answer_parser_error, answer_to_nobody
from csa_deploy.cli.failures import INTERRUPTED, failure_of
from csa_deploy.errors import EXIT_INTERNAL, EXIT_INTERRUPTED

_HELP = """From a PyTorch vision network to verified TensorRT engines, with evidence for each claim.

The main job is one command: csa-deploy run NETWORK. The stages are commands too, and share a workspace
(./deploy/NETWORK): export, check, optimize, quantize, build, verify, profile, report. NETWORK is a registry name
(see csa-deploy models), file.py:factory, package.module:factory or a file.onnx; without one it is convselfattn.

Exit codes: 0 done, 1 internal error, 2 usage, 3 something is missing on this machine, 4 operation rejected,
5 build failed, 6 accuracy gate, 7 latency or memory gate, 8 acceptance policy, 130 interrupted.
"""

VERBS = {
    "run": "stages",
    "export": "stages",
    "check": "check",
    "optimize": "stages",
    "quantize": "quantize",
    "build": "stages",
    "verify": "verify",
    "profile": "stages",
    "report": "stages",
    "judge": "judge",
    "gate": "gate",
    "evaluate": "evaluate",
    "compare": "compare",
    "diff": "diff",
    "prove": "prove",
    "inspect": "inspect",
    "bundle": "bundle",
    "verify-bundle": "bundle",
    "matrix": "matrix",
    "fleet": "fleet",
    "watch": "watch",
    "train": "train",
    "new": "new",
    "rules": "check",
    "errata": "errata",
    "models": "environment",
    "doctor": "environment",
    "kit": "kit",
}
"""Verb -> the module of this package that defines it as a function of its name; in the order of the help page."""

_LONGEST = 2000


def _version(value: bool) -> None:
    if value:
        typer.echo(f"csa-deploy {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Root of the command line."""


def command_line(verbs: Iterable[str]) -> typer.Typer:
    """The command line of some verbs of :data:`VERBS`; all have theirs without the others, and it is made sooner."""
    made = typer.Typer(
        name="csa-deploy", help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    made.callback()(root)
    for verb in verbs:
        function = getattr(importlib.import_module(f"csa_deploy.cli.{VERBS[verb]}"), verb.replace("-", "_"))
        made.command(verb, cls=function.command_class)(function)
    return made


app: typer.Typer
"""The command line of all verbs, made when it is asked for."""


if not TYPE_CHECKING:

    def __getattr__(name):
        if name != "app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault("app", command_line(VERBS))


def main() -> None:
    """Run the command line; the only place that decides exit codes."""
    calm_threads()
    words = sys.argv[1:2]
    try:
        code = command_line(words if words and words[0] in VERBS else VERBS)(standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # the command-line library caught ctrl-C
            interrupted()
    except Exception as error:  # nothing may reach the user as a traceback
        code = report_error(error)
    except KeyboardInterrupt:
        code = interrupted()
    with answer_to_nobody():
        sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def calm_threads() -> None:
    """Let PyTorch's idle OpenMP threads wait busily for microseconds only; before PyTorch is loaded.

    By default they do for milliseconds; beside other work on the machine that makes small networks a hundred times
    slower (measured: 480 ms instead of 3 ms per image on two busy cores). Not at all costs as well: an update of
    csa_digits' training on two idle cores takes 64 ms then, 38 ms with 1,000 rounds, 35 ms with the default.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = "1000"  # of GNU's OpenMP, which comes with PyTorch; overrides the policy


def interrupted() -> int:
    """Say so, and return the exit code."""
    _line(INTERRUPTED, code=EXIT_INTERRUPTED)
    return EXIT_INTERRUPTED


def report_error(error: Exception) -> int:
    """Print the one line of an error and return its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error}\n")  # the help page
        return 2
    answer_parser_error(error)
    failure = failure_of(error)
    if failure.exit_code == EXIT_INTERRUPTED:
        return interrupted()
    if failure.exit_code == EXIT_INTERNAL:
        import logging

        logging.getLogger("csa_deploy").debug("traceback", exc_info=error)
        _line(failure.message, failure.fix, code=failure.exit_code)
    else:
        _line(f"error: {failure.message}", failure.fix, code=failure.exit_code)
    return failure.exit_code


def _line(message: str, fix: str | None = None, *, code: int) -> None:
    text = " ".join(message.split())
    if len(text) > _LONGEST:  # names come from files
        text = f"{text[:_LONGEST]}..."
    if "--log-json" in sys.argv:
        import json
        import time

        event = {"time": round(time.time(), 3), "event": "error", "message": text, "fix": fix, "exit_code": code}
        sys.stderr.write(json.dumps(event) + "\n")
        return
    sys.stderr.write(f"csa-deploy: {text}" + (f" | fix: {fix}" if fix else "") + "\n")
