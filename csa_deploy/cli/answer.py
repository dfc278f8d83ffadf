"""The result of a command for machines: with ``--format json`` one JSON object on standard output, whatever happened.

A verb hands its result to :meth:`Answer.add`; the object is written when the verb has ended. Where it failed, the
object has ``error`` with ``message``, ``fix`` and ``exit_code``, beside what was found until then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from csa_deploy.cli.failures import failure_of

TEXT, JSON = "text", "json"
VERB_FORMATS: dict[str, tuple[str, ...]] = {
    "check": (TEXT, JSON, "sarif", "junit", "html", "markdown", "model-explorer"),
    "compare": (TEXT, JSON, "markdown"),
    "gate": (TEXT, JSON, "junit", "markdown"),
    "judge": (TEXT, JSON, "junit", "markdown"),
    "profile": (TEXT, JSON, "junit"),
    "report": (TEXT, JSON, "html", "markdown"),
}
"""Formats of the result, of the verbs that know more than text and JSON."""

_ANSWERED = "_csa_deploy_answered"


def formats(verb: str) -> tuple[str, ...]:
    """The formats that a verb's result can take."""
    return VERB_FORMATS.get(verb, (TEXT, JSON))


class Answer:
    """The result of one command, while it is collected."""

    def __init__(self, output_format: str = TEXT) -> None:
        self.output_format = output_format
        self.data: dict[str, Any] = {}

    @property
    def as_json(self) -> bool:
        """Whether standard output is for the JSON object alone."""
        return self.output_format == JSON

    def add(self, data: Mapping[str, Any]) -> None:
        """Add to the result."""
        self.data.update(data)

    def elsewhere(self) -> None:
        """The result went to a file: standard output stays empty."""
        self.output_format = ""

    @contextmanager
    def given(self) -> Iterator[None]:
        """Write the object at the end of the block, also when that raises."""
        try:
            yield
        except BaseException as error:
            setattr(error, _ANSWERED, True)
            if self.as_json:
                _write({**self.data, "error": failure_of(error).to_json()})
            raise
        if self.as_json:
            _write(self.data)


def answer_parser_error(error: BaseException) -> None:
    """The object of a command line that could not be understood, so that no verb was called."""
    words = sys.argv[1:]
    asked = {"--json", "--format=json"} & {*words} or "--format json" in " ".join(words)
    if asked and not hasattr(error, _ANSWERED):
        _write({"error": failure_of(error).to_json()})


@contextmanager
def answer_to_nobody() -> Iterator[None]:
    """Let the reader of standard output leave early: it has what it wanted, and the exit code tells how it ended."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(data: Mapping[str, Any]) -> None:
    from csa_deploy.workspace import dump_json

    with answer_to_nobody():
        sys.stdout.write(dump_json({"schema_version": 1, **data}))
        sys.stdout.flush()
