"""Every ``csa-deploy ...`` that a message, a help page or the documentation names can be typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import csa_models
import pytest
import typer

import csa_deploy
from csa_deploy.cli.main import app

PACKAGES = [Path(module.__file__ or "").parent for module in (csa_deploy, csa_models)]
ROOT = PACKAGES[0].parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/**/*.md")])
# "csa-deploy" as the subject or object of a sentence, not as a command.
PROSE = {
    *(
        "about",
        "accuracy",
        "and",
        "as",
        "can",
        "command",
        "computes",
        "does",
        "exports",
        "exported",
        "has",
        "in",
        "is",
        "itself",
        "knows",
    ),
    *("made", "makes", "must", "need", "needs", "of", "on", "or", "reads", "runs", "states", "that", "the", "to"),
    *("understands", "uses", "was", "with", "works", "writes", "wrote"),
}
COMMAND: Any = typer.main.get_command(app)
VERBS: dict[str, Any] = COMMAND.commands


def sources() -> list[Path]:
    kinds = ("*.py", "*.j2", "*.toml")
    return sorted(path for folder in PACKAGES for kind in kinds for path in folder.rglob(kind))


def literals(path: Path) -> Iterator[tuple[str, bool]]:
    """The texts of a file, and whether they are for its readers only; what a program fills in stands as a word."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text, False
        return
    tree = ast.parse(text)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    documented = {
        id(body[0].value)
        for node in ast.walk(tree)
        if (body := getattr(node, "body", None)) and isinstance(body, list) and isinstance(body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "FILLED" for v in node.values), False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value, id(node) in documented


def problem(words: str, *, mention: bool) -> str:
    """What is wrong with a command line without its first word; empty: nothing.

    Args:
        words: the rest.
        mention: whether a flag may stand at the end without its value, as in a sentence about that flag.
    """
    words = re.split(r"\s(?:#|\||&&|>|;)|\s\.\.\.|\$\(", words.replace("\\\n", " "))[0]
    given = [word.strip("[]") for word in shlex.split(words.replace("...", "")) if word.strip("[]")]
    verb, rest = given[0].replace("VERB", "run"), given[1:]
    if verb.startswith("-"):
        verb, rest = "", given
    elif verb not in VERBS:
        return f"no verb {verb}"
    command = VERBS.get(verb, COMMAND)
    if not rest:
        return ""  # the verb is named, not a whole command
    context = command.context_class(command, info_name=verb)
    try:
        values, left, _ = command.make_parser(context).parse_args(list(rest))
    except Exception as error:  # of the parser that typer brings, whichever its version has
        if not hasattr(error, "format_message"):
            raise
        lacking = type(error).__name__ == "BadOptionUsage" and mention and rest[-1].startswith("-")
        return "" if lacking else str(error.format_message())
    if left and verb:
        return f"too many arguments: {left}"
    arguments = [p for p in command.params if p.param_type_name == "argument" and p.required]
    missing = [str(p.name) for p in arguments if values.get(str(p.name)) is None and not mention]
    return f"{', '.join(missing)} missing" if missing else ""


def test_the_judge_of_commands_tells_right_from_wrong() -> None:
    assert problem("run csa_digits --fp16 --samples 3", mention=False) == ""
    assert problem("check --explain", mention=True) == "" != problem("check --explain", mention=False)
    for wrong in ("extract net.onnx", "run --sampels 3", "run a b", "compare deploy/a", "export --batch"):
        assert problem(wrong, mention=False), wrong


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_message_names_a_command_that_exists(path: Path) -> None:
    for text, docstring in literals(path):
        quoted = re.findall(r"`csa-deploy ([^`]+)`", text)
        wrong = {words: said for words in quoted if (said := problem(words, mention=docstring))}
        assert not wrong, wrong
        for word, flags in re.findall(r"(?<![`\w])csa-deploy ([a-z][a-z-]*)((?: --[a-z-]+)*)", text):
            assert word in VERBS or word in PROSE, f"csa-deploy {word}"
            known = {flag for p in getattr(VERBS.get(word), "params", []) for flag in (*p.opts, *p.secondary_opts)}
            assert word in PROSE or set(flags.split()) <= known, flags


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_a_command_that_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    inline = re.findall(r"`csa-deploy ([^`]+)`", text)
    typed = re.findall(r"^(?:    |\t|\$ )?csa-deploy +((?:[^\n\\]|\\\n)+)$", text, flags=re.MULTILINE)
    wrong = {words: said for words in inline if (said := problem(words, mention=True))}
    wrong |= {words: said for words in typed if words[0] != "-" and (said := problem(_plain(words), mention=False))}
    assert not wrong, wrong


def _plain(words: str) -> str:
    """Without what follows a failure or stands in a column of its own, and with alternatives as one word."""
    words = words.split(" || ")[0]
    return re.sub(r"\|", "-or-", re.split(r"\s{3,}", words)[0] if "#" not in words else words)
