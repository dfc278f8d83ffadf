"""Names as people write them: several in one word, and what was meant by one that is not there."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable
from typing import Any

_LIKE = 0.5
"""Least likeness of a name that is offered, of 0 to 1."""


def unused(name: str, taken: Collection[str], between: str) -> str:
    """The name, or with the first number from 2 on behind it that makes it another one than those taken."""
    numbered = (f"{name}{between}{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that are like a name, the likest first, ``most`` at most."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=_LIKE)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """``did you mean 'x' or 'y'?`` where known names are like a name, else ``otherwise``."""
    near = nearest(name, known, most)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """``unknown key 'hots', did you mean 'host'?``"""
    meant = did_you_mean(name, known)
    return f"unknown {what} '{name}'{f', {meant}' if meant else ''}"


def named_values(items: list[str], what: str, form: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping; a text without a name has the name ``""``.

    Raises:
        ValueError: a name is given twice.
    """
    pairs = [item.strip().rpartition("=")[::2] for item in items]
    twice = [name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1]
    if twice:
        raise ValueError(f"{what} '{twice[0]}' is given twice; write one {form} per {what}")
    return dict(pairs)


def split_commas(value: Any) -> Any:
    """Lists may be written ``a,b`` as well; order kept, duplicates dropped."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)):
        parts = [p.strip() if isinstance(p, str) else p for v in value for p in (str(v).split(","))]
        return list(dict.fromkeys(p for p in parts if p))
    return value
