"""Conditions of rules: a small declarative language, evaluated in three-valued (Kleene) logic.

A condition is a table from fact to test; every entry must hold. Three keys combine tables: ``all`` and ``any``
(lists of tables) and ``not`` (one table). A test is

- a scalar: equal; a list: one of;
- a table of operators, all of which must hold: ``eq ne gt ge lt le in not_in multiple_of is any known``.

A fact that is a list is tested element by element, and *each* element must pass; ``any = {...}`` asks for some
element, ``is = [...]`` compares the whole list, ``known = false`` asks whether the fact is missing. An operand
``"$fact"`` refers to another fact (list against list: element by element). A fact that is missing, or an element
that is None, makes the test *undecided* (None), never true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Mapping
from math import prod
from typing import Any

from csa_deploy.restricted.vocabulary import AGGREGATES, FACTS

Facts = Mapping[str, Any]
Condition = Mapping[str, Any]

_COMBINERS = ("all", "any", "not")


def _multiple_of(value: Any, factor: Any) -> bool:
    return bool(value % factor == 0)


def _one_of(value: Any, choices: Any) -> bool:
    return value in choices


def _none_of(value: Any, choices: Any) -> bool:
    return value not in choices


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "in": _one_of,
    "not_in": _none_of,
    "multiple_of": _multiple_of,
}
_SPECIAL = ("is", "any", "known")


def every(results: Iterable[bool | None]) -> bool | None:
    """Kleene conjunction: False if any is False, else None if any is None, else True."""
    undecided = False
    for result in results:
        if result is False:
            return False
        undecided |= result is None
    return None if undecided else True


def some(results: Iterable[bool | None]) -> bool | None:
    """Kleene disjunction: True if any is True, else None if any is None, else False."""
    return negate(every(negate(result) for result in results))


def negate(result: bool | None) -> bool | None:
    """Kleene negation; undecided stays undecided."""
    return None if result is None else not result


def lookup(facts: Facts, path: str) -> Any:
    """Value of a fact path such as ``kernel.max`` or ``in_shape.0.1``; None when it is not known."""
    name, *suffixes = path.split(".")
    value = facts.get(name)
    for suffix in suffixes:
        if not isinstance(value, list | tuple):
            return None
        value = _apply_suffix(value, suffix)
    return value


def _apply_suffix(value: list[Any] | tuple[Any, ...], suffix: str) -> Any:
    if suffix == "len":
        return len(value)
    if suffix.isdigit():
        return value[int(suffix)] if int(suffix) < len(value) else None
    if not value:
        return 1 if suffix == "prod" else None
    if suffix == "last":
        return value[-1]
    if any(item is None for item in value):
        return None
    functions: dict[str, Callable[[Any], Any]] = {"min": min, "max": max, "prod": prod}
    return functions[suffix](value)


def evaluate(condition: Condition, facts: Facts) -> bool | None:
    """Whether ``facts`` fulfil ``condition``: True, False, or None when a fact it needs is missing."""
    return every(_entry(key, test, facts) for key, test in condition.items())


def _entry(key: str, test: Any, facts: Facts) -> bool | None:
    if key == "not":
        return negate(evaluate(test, facts))
    if key == "all":
        return every(evaluate(part, facts) for part in test)
    if key == "any":
        return some(evaluate(part, facts) for part in test)
    return _test(lookup(facts, key), test, facts)


def _test(value: Any, test: Any, facts: Facts) -> bool | None:
    if isinstance(test, Mapping):
        return every(_operator(value, name, operand, facts) for name, operand in test.items())
    return _operator(value, "in" if isinstance(test, list) else "eq", test, facts)


def _operator(value: Any, name: str, operand: Any, facts: Facts) -> bool | None:
    if name == "known":
        return (value is not None) == operand
    if value is None:
        return None
    if isinstance(operand, str) and operand.startswith("$"):
        operand = lookup(facts, operand[1:])
        if operand is None:
            return None
    if name == "is":
        return None if None in value else list(value) == list(operand)
    if name == "any":
        return some(_test(item, operand, facts) for item in value)
    return _compare(value, name, operand)


def _compare(value: Any, name: str, operand: Any) -> bool | None:
    if value is None or operand is None:
        return None
    if not isinstance(value, list | tuple):
        try:
            return bool(_OPERATORS[name](value, operand))
        except (TypeError, ArithmeticError):  # a fact of another type than the rule expects decides nothing
            return None
    if name in ("in", "not_in") or not isinstance(operand, list | tuple):
        return every(_compare(item, name, operand) for item in value)
    if len(operand) != len(value):
        return None
    return every(_compare(item, name, other) for item, other in zip(value, operand, strict=True))


def problems(condition: Condition, known: Container[str] = FACTS) -> list[str]:
    """What is wrong with a condition as written: unknown facts, suffixes and operators; empty when nothing is.

    Args:
        condition: as a file states it.
        known: facts that there are.
    """
    found: list[str] = []
    for key, test in condition.items():
        if key in _COMBINERS:
            parts = [test] if key == "not" else test
            for part in parts:
                found += (
                    problems(part, known) if isinstance(part, Mapping) else [f"'{key}' holds {part!r}, not a table"]
                )
        else:
            found += _path_problems(key, known) + _test_problems(key, test, known)
    return found


def _path_problems(path: str, known: Container[str]) -> list[str]:
    name, *suffixes = path.split(".")
    if name not in known:
        return [f"unknown fact '{name}'"]
    return [f"unknown suffix '.{s}' in '{path}'" for s in suffixes if not s.isdigit() and s not in AGGREGATES]


def _test_problems(key: str, test: Any, known: Container[str]) -> list[str]:
    if isinstance(test, str) and test.startswith("$"):
        return _path_problems(test[1:], known)
    if not isinstance(test, Mapping):
        return []
    found: list[str] = []
    for name, operand in test.items():
        if name not in _OPERATORS and name not in _SPECIAL:
            found.append(f"unknown operator '{name}' on '{key}'")
        elif name == "any" or (isinstance(operand, str) and operand.startswith("$")):
            found += _test_problems(key, operand, known)
    return found
