"""Turns the table of settings into the flags of a verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.options import BY_VERB, EVERY_VERB, OPTIONS

Verb = Callable[..., Any]
OUTPUT = "Output"
SHOWING = {
    "verbose": Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; -vv for all.", rich_help_panel=OUTPUT)
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.", rich_help_panel=OUTPUT)],
    "log_json": Annotated[
        bool, typer.Option("--log-json", help="Progress as JSON lines on stderr.", rich_help_panel=OUTPUT)
    ],
}


def flags(verb: str) -> Callable[[Verb], Verb]:
    """Decorator: give a verb the flags that the table lists for it.

    The decorated function receives ``settings``, the flags that the user gave by key, and ``console``; its other
    parameters become command-line parameters of their own.
    """
    names = (*BY_VERB.get(verb, ()), *EVERY_VERB)

    def decorate(function: Verb) -> Verb:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in ("settings", "console")]

        def command(**values: Any) -> Any:
            settings = {name: value for name in names if (value := values.pop(name)) not in (None, [])}
            console = Console(*(values.pop(name) for name in SHOWING))
            return function(settings=settings, console=console, **values)

        parameters = [*own, *(_parameter(name) for name in names), *(_showing(name) for name in SHOWING)]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        return command

    return decorate


def _showing(name: str) -> inspect.Parameter:
    default: Any = 0 if name == "verbose" else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=SHOWING[name])


def _parameter(name: str) -> inspect.Parameter:
    option = OPTIONS[name]
    flag = f"--{name.replace('_', '-')}"
    spelled = [f"{flag}/--no-{flag[2:]}" if option.type is bool and not option.shorthand else flag]
    spelled += [option.short] if option.short else []
    metavar = "TEXT" if option.type == list[str] else None
    info = typer.Option(*spelled, help=option.help, show_default=False, metavar=metavar)
    annotation = Annotated[option.type | None, info]  # type: ignore[name-defined]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
