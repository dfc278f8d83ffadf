"""Files of others: YAML as a mapping, XML without entities, and what pydantic finds wrong in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from csa_deploy.errors import UsageError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")


def read_mapping(
    path: Path, what: str, *, example: str, missing: str = "check the path", shown: Callable[[str], str] = str
) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Args:
        what: it is, in words (``"configuration"``).
        example: how to write one.
        missing: what to do where there is no such file.
        shown: how a piece of the file is shown.

    Raises:
        UsageError: the file is missing or not readable, no YAML, a key that stands twice, or no mapping.
    """
    import yaml

    class Unique(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML would silently take the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Unique)  # noqa: S506 - a safe loader
    except FileNotFoundError:
        raise UsageError(f"{path}: no such {what} file", fix=missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", fix="give a readable YAML text file") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a day such as 2027-02-30
        said = shown(" ".join(str(error).split()))
        raise UsageError(f"{path}: not valid YAML ({said})", fix="correct that line") from None
    if data is not None and not isinstance(data, dict):
        raise UsageError(f"{path}: a {what} is a mapping of keys", fix=example)
    return {str(key): value for key, value in (data or {}).items()}


def read_toml(path: Path, kind: type[M], what: str, *, fix: str) -> M:
    """A TOML file as its pydantic model.

    Raises:
        UsageError: it cannot be read, is no TOML, or not of that form (``fix``); names the place and the defect.
    """
    import tomllib

    from pydantic import ValidationError

    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{what}: {error}", fix="repair the TOML file") from error
    except ValidationError as error:
        raise invalid(error, what, fix=fix) from error


def invalid(
    error: ValidationError, where: str = "", *, fix: str | None = None, shown: Callable[[Any], str] = repr
) -> UsageError:
    """The first thing that pydantic found: ``WHERE: KEY: reason (got VALUE)``, the value where one was given.

    Args:
        where: what was read.
        fix: what to do; the default names the key.
        shown: how the value is shown.
    """
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    given = f" (got {shown(first['input'])})" if key and first["type"] != "missing" else ""
    reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    said = [part for part in (where, key, f"{reason}{given}") if part]
    return UsageError(": ".join(said), fix=fix or f"correct '{key}'")


def read_xml(path: Path, what: str, *, missing: str, broken: str) -> Element:
    """The root of an XML file that declares no entities: what could grow or reach out when it is read is refused.

    Args:
        what: it holds, in words (``"annotations"``).
        missing, broken: what to do where there is no such file, and where it is no XML.

    Raises:
        UsageError: the file cannot be read, is no XML, or declares a document type.
    """
    from xml.etree import ElementTree
    from xml.parsers import expat

    def refuse(*_: object) -> None:
        raise UsageError(f"{path}: declares a document type, which {what} do not need", fix="remove <!DOCTYPE")

    try:
        content = path.read_bytes()
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = refuse
        guard.Parse(content, True)
        return ElementTree.fromstring(content)  # noqa: S314 - what makes XML dangerous was refused
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", fix=missing) from error
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise UsageError(f"{path}: no XML: {error}", fix=broken) from error
