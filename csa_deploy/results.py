"""Results as data classes: JSON and back; those of the Python API also as a line of text, a table or a data frame.

The fields of a result are its JSON form; graphs and engines are no part of it. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from csa_deploy.errors import EnvironmentLacksError, UsageError

if TYPE_CHECKING:
    from typing import Self

SCHEMA_VERSION = 1
NOT_JSON = {"json": False}
"""Metadata of a field that stays out of the JSON form: a graph, an engine, where it came from."""
IF_KNOWN = {"if known": True}
"""Metadata of a field that stays out of the JSON form where it has its default."""

_MOST_ROWS = 200


class Stored:
    """A frozen data class with a JSON form: its fields, and the properties that follow from them.

    Attributes:
        derived: names of these properties; they are written for other readers, and not read.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    derived: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        fields = [item for item in dataclasses.fields(self) if item.metadata.get("json", True)]
        found = {item.name: getattr(self, item.name) for item in fields}
        for item in fields:
            if item.metadata.get("if known") and found[item.name] == item.default:
                del found[item.name]
        return {name: jsonable(value) for name, value in found.items()} | {
            name: jsonable(getattr(self, name)) for name in self.derived
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` wrote.

        Raises:
            UsageError: other data, or damaged ones.
        """
        _require_mapping(cls.__name__, data)
        required, adapters = _adapters(cls)  # type: ignore[arg-type]
        fields: dict[str, Any] = {}
        for key, adapter in adapters:
            if key in data:
                try:
                    fields[key] = adapter.validate_python(data[key])
                except ValueError as error:
                    raise UsageError(
                        f"{cls.__name__}: {key} is damaged: {_said(error, data[key])}", fix="make it again"
                    ) from None
            elif key in required:
                raise UsageError(f"{cls.__name__}: these data are not complete: no {key}", fix="make it again")
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class NumbersBut:
    """Of a mapping of numbers and of texts under a few keys: numbers that are not finite are texts in JSON.

    Attributes:
        texts: keys of texts, which stay what they are: a sample may be called ``nan``.
    """

    texts: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def numbers(data: Any) -> Any:
            if not isinstance(data, Mapping):
                return data
            # The one NaN of the module math: in a container it is equal to itself.
            known = {str(number): number for number in (math.nan, math.inf, -math.inf)}
            texts = {key: value for key, value in data.items() if isinstance(value, str) and key not in self.texts}
            return {**data, **{key: known.get(value, value) for key, value in texts.items()}}

        return core_schema.no_info_before_validator_function(numbers, handler(source))


class OneOfSeveral(Stored):
    """A family of types of which any may stand in one place: a key of another one of them is refused.

    So a damaged one is never read as another. Keys that no type of the family has are left out, as everywhere.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        own, family = _names(cls), cls.mro()[cls.mro().index(OneOfSeveral) - 1]
        others = {name for kind in _kinds(family) for name in _names(kind)} - own

        def require_own(data: Any) -> Any:
            if isinstance(data, Mapping) and (foreign := sorted(others & data.keys())):
                raise ValueError(f"a {cls.__name__} has no {', '.join(foreign)}")
            return data

        return core_schema.no_info_before_validator_function(require_own, handler(source))


def _kinds(family: Any) -> list[Any]:
    return [family, *(kind for below in family.__subclasses__() for kind in _kinds(below))]


def _names(kind: Any) -> set[str]:
    return {*kind.derived, *(item.name for item in dataclasses.fields(kind))}


@dataclasses.dataclass(frozen=True)
class NotMeasured:
    """What was not done, and why."""

    what: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRecord(Stored):
    """What a stage states; the same for the same inputs.

    Attributes:
        schema_version: of its JSON form; records of before it was stated have none.
        unstated: fields of this class that its JSON form does not have.
        notes: what a user must know.
        not_measured: what was not done, and why.
    """

    stage: ClassVar[str]
    schema_version: ClassVar[int] = SCHEMA_VERSION
    unstated: ClassVar[tuple[str, ...]] = ("notes", "not_measured")
    summary: str
    notes: tuple[str, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the workspace holds them."""
        stated = {"schema_version": self.schema_version, **super().to_json()}
        return {name: value for name, value in stated.items() if name not in self.unstated}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` wrote, in this version or an earlier one.

        Raises:
            UsageError: other data, damaged ones, or those of a later version.
        """
        _require_mapping(cls.__name__, data)
        _require_version(
            f"the record of {cls.stage}", data.get("schema_version", cls.schema_version), cls.schema_version
        )
        return super().from_json(data)


class Result(Stored):
    """What a function of the Python API returns; see the module.

    Attributes:
        columns: of its table, also where that has no rows; columns that depend on the result follow.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    @property
    def summary(self) -> str:
        """The result in one line."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """The result as a table: one mapping per row, all of the same columns; empty where it has none."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Plain data, with ``schema_version`` and the name of the result; numbers that are not finite are texts."""
        return {"schema_version": SCHEMA_VERSION, "result": type(self).__name__, **plain(super().to_json())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The result that :meth:`to_json` wrote, without graph or engine.

        Raises:
            UsageError: other data, or those of another version.
        """
        _require_mapping(cls.__name__, data)
        name, version = data.get("result"), data.get("schema_version")
        if name != cls.__name__:
            fix = f"read them with {name}.from_json" if name else f"give what {cls.__name__}.to_json() returned"
            raise UsageError(f"these data are {f'a {name}' if name else 'no result'}, not a {cls.__name__}", fix=fix)
        _require_version(str(name), version, SCHEMA_VERSION)
        return super().from_json(data)

    def to_pandas(self) -> Any:
        """The table as a pandas data frame; without rows it has its columns still. What is not known is NaN.

        Raises:
            EnvironmentLacksError: pandas, which csa-deploy does not need, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise EnvironmentLacksError("a data frame needs pandas", fix="pip install pandas") from None
        rows = self.rows()
        frame = pandas.DataFrame(rows, columns=list(rows[0] if rows else self.columns))
        # Texts are never None: a column of nothing else is one of numbers, and pandas would make it one of objects.
        return frame.astype({name: float for name in frame if rows and all(row[name] is None for row in rows)})

    def __str__(self) -> str:
        return " ".join(self.summary.split())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _repr_html_(self) -> str:
        """For notebooks: the line, and the table."""
        rows = self.rows()
        more = f"<p>{len(rows) - _MOST_ROWS} more rows</p>" if len(rows) > _MOST_ROWS else ""
        return f"<p><b>{type(self).__name__}</b> {escape(str(self))}</p>{_table(rows[:_MOST_ROWS])}{more}"


def _said(error: Any, data: Any) -> str:
    """Pydantic's error in one line; where several types could stand, that of the type that fits down to the deepest."""
    placed = [
        (_place(found["loc"], data, missing=found["type"] == "missing"), found["msg"]) for found in error.errors()
    ]
    place, said = max(placed, key=lambda item: len(item[0]))
    return ": ".join(filter(None, (".".join(place), said)))[:300]


def _place(location: tuple[str | int, ...], data: Any, *, missing: bool) -> list[str]:
    """Where in the data an error is, without the types that were tried on the way, which pydantic puts in between."""
    place = []
    for part in location:
        inside = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part in inside:
            data = inside[part]
            place.append(str(part))
    return [*place, str(location[-1])] if missing else place


def _require_mapping(name: str, data: Any) -> None:
    if not isinstance(data, Mapping):
        raise UsageError(f"{name}: these data are no mapping, but {data!r:.40}", fix="make it again")


def _require_version(what: str, version: Any, known: int) -> None:
    if version != known:
        raise UsageError(
            f"{what}: schema version {version}, this csa-deploy reads {known}",
            fix="read it with the csa-deploy that wrote it",
        )


def shallow(value: Any) -> dict[str, Any]:
    """The fields of a data class by name, each as it is: to make a larger one of it."""
    return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}


def jsonable(value: Any) -> Any:
    """The same as lists, mappings by text and values; of data classes their fields."""
    if isinstance(value, Stored):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    return [jsonable(item) for item in value] if isinstance(value, (list, tuple)) else value


def plain(data: Any) -> Any:
    """Data as a JSON file holds them: lists, mappings by text, no number that is not finite."""
    return json.loads(dump_json(data))


def dump_json(data: Any) -> str:
    """Stable, readable JSON; non-finite numbers become strings, since JSON has none."""
    return json.dumps(_finite(data), indent=2, sort_keys=True, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = _line("th", rows[0])
    return f"<table><thead>{head}</thead><tbody>{''.join(_line('td', row.values()) for row in rows)}</tbody></table>"


def _line(tag: str, cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(_cell(cell))}</{tag}>' for cell in cells)}</tr>"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@cache
def _adapters(cls: type[Stored]) -> tuple[frozenset[str], tuple[tuple[str, Any], ...]]:
    """Fields that must be there; of each field what makes it of plain data."""
    from pydantic import TypeAdapter

    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [item for item in dataclasses.fields(cls) if item.metadata.get("json", True)]
    missing = dataclasses.MISSING
    required = frozenset(f.name for f in fields if f.default is missing and f.default_factory is missing)
    return required, tuple((item.name, TypeAdapter(hints[item.name])) for item in fields)
