"""Names that are like others, and files of keys and values."""

import difflib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean, nearest, unknown
from csa_deploy.validation import invalid, read_mapping

WORDS = st.lists(st.text("abcx_", min_size=1, max_size=6), unique=True, max_size=8)


@given(st.text("abcx_", min_size=1, max_size=6), WORDS)
def test_the_nearest_are_the_likest_of_at_least_half(name: str, known: list[str]) -> None:
    """By going through all of them."""
    likeness = {word: difflib.SequenceMatcher(None, word, name).ratio() for word in known}
    found = nearest(name, known, most=3)
    assert [likeness[word] for word in found] == sorted((r for r in likeness.values() if r >= 0.5), reverse=True)[:3]
    assert bool(did_you_mean(name, known)) == any(r >= 0.5 for r in likeness.values())


def test_what_is_said() -> None:
    assert did_you_mean("hots", ["host", "port"]) == "did you mean 'host'?"
    assert did_you_mean("ab", ["abc", "abd", "xyz"], most=2) == "did you mean 'abd' or 'abc'?"
    assert did_you_mean("qqq", ["host"], "known: host") == "known: host"
    assert unknown("key", "hots", ["host"]) == "unknown key 'hots', did you mean 'host'?"
    assert unknown("key", "qqq", ["host"]) == "unknown key 'qqq'"


class _Inner(BaseModel, extra="forbid"):
    count: int = Field(gt=2)


class _Model(BaseModel):
    inner: _Inner


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"inner": {"count": 2}}, "f: inner.count: Input should be greater than 2 (got 2) "
         "| fix: correct 'inner.count'"),
        ({"inner": {"count": 3, "colour": 1}}, "f: inner.colour: unknown key (got 1) | fix: correct 'inner.colour'"),
        ({"inner": {}}, "f: inner.count: Field required | fix: correct 'inner.count'"),
        ({"inner": {"count": "x"}}, "f: inner.count: Input should be a valid integer, unable to parse string as an "
         "integer (got 'x') | fix: correct 'inner.count'"),
    ],
)  # fmt: skip
def test_a_defect_is_one_line_with_key_and_value(data: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Model(**data)  # type: ignore[arg-type]
    assert str(invalid(caught.value, "f")) == said
    _Model(inner=_Inner(count=3))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such thing file | fix: name one"),
        (b"a: [", "not valid YAML"),
        (b"- 1", "a thing is a mapping of keys | fix: write a: 1"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_mapping(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_mapping(path, "thing", example="write a: 1", missing="name one")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_mapping_and_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1\n2: [b]\n")
    assert read_mapping(path, "thing", example="") == {"a": 1, "2": ["b"]}
    path.write_text("# nothing\n")
    assert read_mapping(path, "thing", example="") == {}
