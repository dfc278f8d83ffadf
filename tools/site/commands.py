"""Reference pages of the command line and of the configuration, from the options themselves."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any, get_args

import typer

from csa_deploy import errors
from csa_deploy.cli.answer import formats
from csa_deploy.cli.main import VERBS, app
from csa_deploy.options import BY_VERB, EVERY_VERB, GROUPS, OPTIONS
from tools.site.markdown import cell, code, page, table

_COMMAND: Any = typer.main.get_command(app)


def command_pages() -> dict[str, str]:
    """Path -> page: one of each verb, and their list."""
    pages = {f"reference/cli/{verb}.md": _verb(verb) for verb in VERBS}
    rows = [(f"[`{verb}`]({verb}.md)", cell(_first(_COMMAND.commands[verb].help))) for verb in VERBS]
    pages["reference/cli/index.md"] = page(
        "Command line",
        "The main job is one command: `csa-deploy run NETWORK`. Each stage is a command too.",
        table(("command", "does"), rows),
        "Exit codes are the same for all: [exit codes](../exit-codes.md).",
    )
    return pages


def _first(text: str | None) -> str:
    return inspect.cleandoc(text or "").split("\n\n")[0]


def _verb(verb: str) -> str:
    command = _COMMAND.commands[verb]
    context = command.context_class(command, info_name=f"csa-deploy {verb}")
    grouped: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        if record := param.get_help_record(context):
            group = "arguments" if param.param_type_name == "argument" else "options"
            group = "output" if param.name == "help" else getattr(param, "rich_help_panel", None) or group
            grouped.setdefault(group, []).append((code(record[0]), cell(record[1])))
    order = [*(name for name in ("arguments", "options") if name in grouped), *(g for g in GROUPS if g in grouped)]
    # Options of the library that completes commands stand in no group of ours.
    order += [name for name in grouped if name not in order]
    parts: list[Any] = [textwrap.dedent(inspect.cleandoc(command.help or ""))]
    parts.append(f"Formats of the result: {', '.join(f'`{name}`' for name in formats(verb))}.")
    for name in order:
        head = ("argument" if name == "arguments" else "option", "meaning")
        parts += [f"## {name.capitalize()}", table(head, grouped[name])]
    return page(f"csa-deploy {verb}", *parts)


def type_words(kind: Any) -> str:
    """``list[str]`` -> ``list of text``."""
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if kind in plain:
        return plain[kind]
    inner = get_args(kind)
    return f"list of {type_words(inner[0])}" if inner and isinstance(inner[0], type) else "text"


def configuration_page() -> str:
    """Every key of a YAML file with its type, meaning and commands."""
    parts: list[Any] = [
        "A key is also a flag: `compute_capability` in YAML is `--compute-capability` on the command line. An",
        "unknown key is refused by name.",
        "How files, flags and the workspace work together: [Configuration](../configuration.md).",
    ]
    for group in GROUPS:
        rows = [
            (code(key), type_words(option.type), cell(option.help), ", ".join(_taking(key)))
            for key, option in OPTIONS.items()
            if option.group == group
        ]
        parts += [f"## {group.capitalize()}", table(("key", "type", "meaning", "commands"), rows)]
    return page("Configuration keys", *parts)


def _taking(key: str) -> list[str]:
    verbs = [verb for verb in VERBS if key in (*BY_VERB.get(verb, ()), *EVERY_VERB)]
    return ["all"] if key in EVERY_VERB else [f"[{verb}](cli/{verb}.md)" for verb in verbs]


def exit_codes_page() -> str:
    """Every exit code, from the classes that carry it."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CsaDeployError) and kind is not errors.CsaDeployError
    ]
    rows = [("0", "", "Done."), ("1", "", "Internal error: a defect of csa-deploy. Please report it.")]
    rows += [
        (str(kind.exit_code), f"`{kind.__name__}`", cell(_first(kind.__doc__).partition(" (exit")[0] + "."))
        for kind in sorted(kinds, key=lambda kind: kind.exit_code)
    ]
    rows += [("130", "", "Interrupted by ctrl-C or SIGTERM. The same command goes on where it was.")]
    return page(
        "Exit codes",
        "An error is one line: what is wrong, where, and how to fix it. The exit code says which kind it is. From",
        "Python, the same error is the exception of `csa_deploy.errors` in the second column.",
        table(("code", "exception", "meaning"), rows),
    )
