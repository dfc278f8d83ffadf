"""What an error means to the user: one line, a cure and the exit code."""

from __future__ import annotations

from dataclasses import dataclass

from csa_deploy.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, CsaDeployError
from csa_deploy.results import Stored

INTERRUPTED = "interrupted; what was finished is kept, the next run goes on from there"


@dataclass(frozen=True)
class Failure(Stored):
    """How a command failed.

    Attributes:
        message: what is wrong and where, in one line.
        exit_code: as documented.
    """

    message: str
    fix: str | None
    exit_code: int


def failure_of(error: BaseException) -> Failure:
    """The failure behind an exception of any kind."""
    if isinstance(error, CsaDeployError):
        return _failure(error.message, error.fix, error.exit_code)
    # "Abort" is what the command-line library makes of ctrl-C.
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return _failure(INTERRUPTED, None, EXIT_INTERRUPTED)
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # the command-line parser's own errors
        return _failure(error.format_message(), "see --help", 2)
    if isinstance(error, OSError):
        from csa_deploy.cli.oserrors import explain

        return _failure(*explain(error), 3)
    said = f"internal error: {type(error).__name__}: {error}"
    return _failure(said, "run again with -vv and report this with the traceback", EXIT_INTERNAL)


def _failure(message: str, fix: str | None, code: int) -> Failure:
    return Failure(" ".join(message.split()), fix, code)
