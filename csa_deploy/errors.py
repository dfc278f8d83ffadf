"""One exception per documented exit code.

A stage raises one of these with a single line that says what is wrong, where, and how to fix it; the
command line prints that line and exits with :attr:`CsaDeployError.exit_code`. Anything else that reaches
the command line is a defect of csa-deploy and exits with 1. The worst stand first: of several parts that fail, the exit
code of the whole is that of the class that stands above the others.
"""

from __future__ import annotations

EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130


class CsaDeployError(Exception):
    """Base of every error a user can cause or meet.

    Args:
        message: what is wrong and where, in one line.
        fix: what to do about it, in one line; shown after the message.
    """

    exit_code = EXIT_INTERNAL

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} | fix: {self.fix}" if self.fix else self.message


class BuildFailedError(CsaDeployError):
    """The engine builder refused or crashed (exit 5)."""

    exit_code = 5


class OperationRejectedError(CsaDeployError):
    """An operation is not allowed in the requested safety scope (exit 4)."""

    exit_code = 4


class AccuracyGateError(CsaDeployError):
    """A numerical or accuracy budget is broken (exit 6)."""

    exit_code = 6


class PerformanceGateError(CsaDeployError):
    """A latency or memory budget is broken (exit 7)."""

    exit_code = 7


class PolicyGateError(CsaDeployError):
    """A project's acceptance policy is not met, or what it asks is not shown (exit 8)."""

    exit_code = 8


class UsageError(CsaDeployError):
    """Wrong argument, configuration or input file (exit 2)."""

    exit_code = 2


class EnvironmentLacksError(CsaDeployError):
    """The machine lacks something; ``fix`` says what to install (exit 3)."""

    exit_code = 3


class NotProvedError(CsaDeployError):
    """Nothing shows whether two graphs compute the same: what the proof needs is missing (exit 3)."""

    exit_code = 3


_WORST_FIRST: tuple[type[CsaDeployError], ...] = (CsaDeployError, *CsaDeployError.__subclasses__())
"""In the order of this file: what speaks against a network, then what says nothing of it."""


def badness(code: int) -> int:
    """Rank of an exit code among those of several parts, of which the lowest is the whole's; 0 is above all."""
    return next((rank for rank, kind in enumerate(_WORST_FIRST) if kind.exit_code == code), len(_WORST_FIRST))


def failure_with(code: int, message: str, *, fix: str | None = None) -> CsaDeployError:
    """The error of an exit code."""
    return next((kind for kind in _WORST_FIRST if kind.exit_code == code), CsaDeployError)(message, fix=fix)
