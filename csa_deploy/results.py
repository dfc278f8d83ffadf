"""What every result of the Python API can do: JSON and back, one line of text, a table in a notebook, a data frame.

The fields of a result are its JSON form; graphs and engines are no part of it. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from csa_deploy.errors import EnvironmentLacksError, UsageError

if TYPE_CHECKING:
    from typing import Self

SCHEMA_VERSION = 1
NOT_JSON = {"json": False}
"""Metadata of a field that stays out of the JSON form: a graph, an engine, where it came from."""

_MOST_ROWS = 200


class Result:
    """A frozen data class with these methods; see the module."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def summary(self) -> str:
        """The result in one line."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """The result as a table: one mapping per row, all of the same columns; empty where it has none."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Plain data, with ``schema_version`` and the name of the result; numbers that are not finite are texts."""
        fields = {
            name: adapter.dump_python(getattr(self, name), mode="json") for name, adapter in _adapters(type(self))
        }
        return {"schema_version": SCHEMA_VERSION, "result": type(self).__name__, **plain(fields)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The result that :meth:`to_json` wrote, without graph or engine.

        Raises:
            UsageError: other data, or those of another version.
        """
        name, version = data.get("result"), data.get("schema_version")
        if name != cls.__name__:
            raise UsageError(f"these data are a {name}, not a {cls.__name__}", fix=f"read them with {name}.from_json")
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{name}: schema version {version}, this csa-deploy reads {SCHEMA_VERSION}",
                fix="read it with the csa-deploy that wrote it",
            )
        try:
            fields = {key: adapter.validate_python(data[key]) for key, adapter in _adapters(cls)}
        except (KeyError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise UsageError(f"{name}: these data are not complete or damaged: {said}", fix="make them again") from None
        return cls(**fields)

    def to_pandas(self) -> Any:
        """The table as a pandas data frame; empty where the result has no table.

        Raises:
            EnvironmentLacksError: pandas, which csa-deploy does not need, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise EnvironmentLacksError("a data frame needs pandas", fix="pip install pandas") from None
        return pandas.DataFrame(self.rows())

    def __str__(self) -> str:
        return " ".join(self.summary.split())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _repr_html_(self) -> str:
        """For notebooks: the line, and the table."""
        rows = self.rows()
        more = f"<p>{len(rows) - _MOST_ROWS} more rows</p>" if len(rows) > _MOST_ROWS else ""
        return f"<p><b>{type(self).__name__}</b> {escape(str(self))}</p>{_table(rows[:_MOST_ROWS])}{more}"


def plain(data: Any) -> Any:
    """Data as a JSON file holds them: lists, mappings by text, no number that is not finite."""
    from csa_deploy.workspace import dump_json

    return json.loads(dump_json(data))


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


def _adapters(cls: type[Result]) -> tuple[tuple[str, Any], ...]:
    """Field and what turns it into plain data and back."""
    from pydantic import TypeAdapter

    hints = typing.get_type_hints(cls)
    fields = [item for item in dataclasses.fields(cls) if item.metadata.get("json", True)]
    return tuple((item.name, TypeAdapter(hints[item.name])) for item in fields)
