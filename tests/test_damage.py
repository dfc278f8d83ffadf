"""Damaged data: whatever key of a stored record, passport or manifest is dropped or of another type, an error names it.

Where a key may be missing, or a value is free, what is read is of the same types as before: no other type stands in.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import pkgutil
import types
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csa_deploy import records
from csa_deploy.errors import UsageError
from csa_deploy.manifest import Manifest
from csa_deploy.records.passport import Passport
from csa_deploy.records.precision import Int8Graph, PrecisionRecord
from csa_deploy.results import OneOfSeveral, Stored
from csa_deploy.stages import STAGES

STORED = Path(__file__).parent / "stored" / "csa_digits.zip"
KINDS: dict[str, type[Stored]] = {
    **{f"records/{stage.name}.json": stage.result for stage in STAGES.values()},
    "manifest.json": Manifest,
    "engines/csa_digits.fp16.engine.passport.json": Passport,
}
OTHERS = ("x", 5, 1.5, True, None, [], {}, [{}], {"x": 5})


def stored() -> dict[str, Any]:
    with zipfile.ZipFile(STORED) as archive:
        return {name: json.loads(archive.read(name)) for name in KINDS if name in archive.namelist()}


DATA = stored()


def places(data: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key, of lists in the first element only."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*where, key)
            yield from places(value, (*where, key))
    elif isinstance(data, list) and data:
        yield from places(data[0], (*where, 0))


def kinds(value: Any, where: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], str]:
    """The type of each data class in a record, by its place."""
    if dataclasses.is_dataclass(value):
        inside = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {where: type(value).__name__} | kinds(inside, where)
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    return {place: kind for key, item in rows for place, kind in kinds(item, (*where, key)).items()}


def damaged(data: Any, place: tuple[Any, ...], *value: Any) -> Any:
    """A copy without a key, or with another value there."""
    changed = copy.deepcopy(data)
    at = changed
    for key in place[:-1]:
        at = at[key]
    if value:
        at[place[-1]] = value[0]
    else:
        del at[place[-1]]
    return changed


def unnoticed(kind: type[Stored], data: Any) -> list[str]:
    """Damages of which no error names the key, though what is read has another type than before."""
    found, whole = [], kinds(kind.from_json(data)).items()
    for place in places(data):
        for value in ((), *((other,) for other in OTHERS)):
            what = f"{'.'.join(map(str, place))} {value[0] if value else 'dropped'!r}"
            try:
                read = kinds(kind.from_json(damaged(data, place, *value))).items()
            except UsageError as error:
                said = error.message
                found += [] if str(place[-1]).replace("_", " ") in said.replace("_", " ") else [f"{what}: {said}"]
            else:
                found += [f"{what}: {dict(read - whole)}"] if read - whole else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_every_damage_is_named_or_changes_no_type(name: str) -> None:
    assert unnoticed(KINDS[name], DATA[name]) == []


@pytest.mark.parametrize("value", [(), ({},), (5,)])
@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(Int8Graph) if f.default is dataclasses.MISSING])
def test_a_damaged_int8_entry_is_no_graph_of_another_precision(key: str, value: tuple[Any, ...]) -> None:
    place = ("precisions", "int8", key)
    data = DATA["records/precision.json"]
    if value and isinstance(data["precisions"]["int8"][key], type(value[0])):
        return
    with pytest.raises(UsageError, match=rf"^PrecisionRecord: precisions is damaged: int8\.{key}[.:]") as caught:
        PrecisionRecord.from_json(damaged(data, place, *value))
    assert "\n" not in str(caught.value)


def test_a_field_that_a_later_version_adds_to_an_entry_is_no_damage() -> None:
    data = DATA["records/precision.json"]
    later = damaged(data, ("precisions", "int8", "weather"), "fine")
    assert kinds(PrecisionRecord.from_json(later)) == kinds(PrecisionRecord.from_json(data))


def below(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        yield from (sub, *below(sub))


def unions(hint: Any) -> Iterator[tuple[Any, ...]]:
    """The data classes of each union in an annotation."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        yield tuple(kind for kind in arguments if dataclasses.is_dataclass(kind))
    for argument in arguments:
        yield from unions(argument)


def taken_for(kind: Any, other: Any) -> bool:
    """Whether data of a type may pass for the other when they lose or change a key."""
    if issubclass(kind, OneOfSeveral) and issubclass(other, OneOfSeveral):
        return False
    missing = dataclasses.MISSING
    needed = {f.name for f in dataclasses.fields(other) if f.default is missing and f.default_factory is missing}
    return needed <= {item.name for item in dataclasses.fields(kind)}


@dataclasses.dataclass(frozen=True)
class _Narrow:
    a: int


@dataclasses.dataclass(frozen=True)
class _Wide(_Narrow):
    b: int


def test_no_union_has_types_that_can_be_taken_for_each_other() -> None:
    for module in pkgutil.iter_modules(records.__path__):
        importlib.import_module(f"{records.__name__}.{module.name}")
    found = [
        f"{kind.__name__}: {one.__name__} for {other.__name__}"
        for kind in sorted(set(below(Stored)), key=lambda kind: kind.__name__)
        if dataclasses.is_dataclass(kind)
        for hint in typing.get_type_hints(kind).values()
        for members in unions(hint)
        for one in members
        for other in members
        if one is not other and taken_for(one, other)
    ]
    assert found == []
    assert taken_for(_Wide, _Narrow) and not taken_for(_Narrow, _Wide)
    assert list(unions(dict[str, _Wide | _Narrow | None])) == [(_Wide, _Narrow)]
