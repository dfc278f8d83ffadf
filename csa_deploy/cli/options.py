"""Turns the table of settings into the flags of a verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from csa_deploy.cli.answer import JSON, TEXT, Answer, formats
from csa_deploy.cli.console import Console
from csa_deploy.cli.helping import GroupedCommand, show_all
from csa_deploy.options import BY_VERB, EVERY_VERB, OPTIONS

Verb = Callable[..., Any]
_OUTPUT = "output"
_GIVEN = ("settings", "console", "output_format", "as_json")
SHOWING = {
    "verbose": Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; -vv for all.", rich_help_panel=_OUTPUT)
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.", rich_help_panel=_OUTPUT)],
    "log_json": Annotated[
        bool, typer.Option("--log-json", help="Progress as JSON lines on stderr.", rich_help_panel=_OUTPUT)
    ],
    "help_all": Annotated[
        bool,
        typer.Option(
            "--help-all",
            help="Show every option with its explanation and exit.",
            rich_help_panel=_OUTPUT,
            is_eager=True,
            callback=show_all,
        ),
    ],
}


def flags(
    verb: str, *, workspace: bool = True, command_class: type[GroupedCommand] = GroupedCommand
) -> Callable[[Verb], Verb]:
    """Decorator: give a verb the flags that the table lists for it, and those of its output.

    The decorated function receives ``settings``, the flags that the user gave by key, ``console``, and the
    ``output_format`` of its result, as far as it asks for them; its other parameters become command-line parameters of
    their own. Its result goes to ``console.answer``, see there.

    Args:
        workspace: whether it has one.
        command_class: what reads its command line.
    """
    names = (*BY_VERB.get(verb, ()), *(EVERY_VERB if workspace else ()))
    if unknown := set(names) - OPTIONS.keys():
        raise LookupError(f"BY_VERB of csa_deploy/options.py gives {verb} what is no row of OPTIONS: {unknown}")

    def decorate(function: Verb) -> Verb:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in _GIVEN]

        def command(**values: Any) -> Any:
            settings = {name: value for name in names if (value := values.pop(name)) not in (None, [])}
            output_format, short = values.pop("output_format"), values.pop("as_json")
            answer = Answer(JSON if short else output_format)
            verbose, quiet, log_json, _ = (values.pop(name) for name in SHOWING)
            console = Console(verbose, quiet, log_json, answer)
            with answer.given():
                _check_format(verb, output_format, short)
                given = {
                    "settings": settings,
                    "console": console,
                    "output_format": answer.output_format,
                    "as_json": answer.as_json,
                }
                return function(**{n: v for n, v in given.items() if n in signature.parameters}, **values)

        parameters = [
            *own,
            *(_parameter(name) for name in names),
            *_format(verb),
            *(_showing(name) for name in SHOWING),
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.command_class = command_class  # type: ignore[attr-defined]
        return command

    return decorate


def _format(verb: str) -> list[inspect.Parameter]:
    """``--format`` and its short."""
    said = ", ".join(formats(verb))
    chosen = typer.Option("--format", metavar="FORMAT", help=f"The result's format: {said}.", rich_help_panel=_OUTPUT)
    short = typer.Option("--json", help="Short for --format json.", rich_help_panel=_OUTPUT)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter("output_format", keyword, default=TEXT, annotation=Annotated[str, chosen]),
        inspect.Parameter("as_json", keyword, default=False, annotation=Annotated[bool, short]),
    ]


def _check_format(verb: str, output_format: str, short: bool) -> None:
    from csa_deploy.errors import UsageError

    if output_format not in formats(verb):
        raise UsageError(f"--format {output_format}: no such format", fix=f"use one of {', '.join(formats(verb))}")
    if short and output_format not in (TEXT, JSON):
        raise UsageError(f"--json and --format {output_format} exclude each other", fix="give one of them")


def _showing(name: str) -> inspect.Parameter:
    default: Any = 0 if name == "verbose" else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=SHOWING[name])


def _parameter(name: str) -> inspect.Parameter:
    option = OPTIONS[name]
    flag = f"--{name.replace('_', '-')}"
    spelled = [f"{flag}/--no-{flag[2:]}" if option.type is bool and not option.shorthand else flag]
    spelled += [option.short] if option.short else []
    metavar = "TEXT" if option.type == list[str] else None
    info = typer.Option(*spelled, help=option.help, show_default=False, metavar=metavar, rich_help_panel=option.group)
    annotation = Annotated[option.type | None, info]  # type: ignore[name-defined]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
