"""The policy file: what is taken, and one line for what is not; the JSON Schema says the same as the reader."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from csa_deploy.errors import UsageError
from csa_deploy.policy.schema import Policy, json_schema, read_policy
from csa_deploy.results import dump_json

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker())

FULL: dict[str, Any] = {
    "schema_version": 1,
    "name": "all keys",
    "own_gates": "pass",
    "scopes": {"drive-os-6": {"verdict": "allowed", "level": "validator"}},
    "errata": {"severity": "high", "not_ruled_out": True},
    "budgets": {"fp16": {"snr_db": 40, "boxes.snr_db": 45.5}},
    "measured_on": "engine",
    "limits": {"engine fp16": {"p99_ms": 5}},
    "accepted": [{"id": "a.b", "reason": "why", "expires": "2027-03-31", "networks": ["net"]}],
    "signatures": [{"method": "ssh", "trusted": "signers", "signer": "me"}],
}


def written(folder: Path, data: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_every_key_is_taken(tmp_path: Path) -> None:
    assert set(FULL) == set(Policy.model_fields), "the example has every key"
    policy = read_policy(written(tmp_path, FULL))
    assert policy.accepted[0].expires == date(2027, 3, 31) and policy.scopes["drive-os-6"].level == "validator"
    SCHEMA.validate(FULL)


def _put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        *path, last = [int(part) if part.isdigit() else part for part in key.split("/")]
        inner: Any = data
        for part in path:
            inner = inner[part]
        inner[last] = value

    return edit


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("scope", {}, "unknown key 'scope' | fix: did you mean 'scopes'?"),
        ("scopes/drive-os-6/levle", "static", "unknown key 'levle' in scopes.drive-os-6 | fix: did you mean 'level'?"),
        ("accepted/0/expiry", "2027-01-01", "unknown key 'expiry' in accepted.0 | fix: did you mean 'expires'?"),
        ("schema_version", 2, "schema_version: Input should be 1"),
        ("schema_version", "1", "schema_version: Input should be 1"),
        ("name", "  ", "name: "),
        ("name", 3, "name: Input should be a valid string"),
        ("own_gates", True, "own_gates: "),
        ("scopes/drive-os-6/level", "strong", "scopes.drive-os-6.level: it is no level of evidence; known: static"),
        ("scopes/drive-os-6/verdict", "unknown", "scopes.drive-os-6.verdict: "),
        ("scopes", ["drive-os-6"], "scopes: Input should be a valid dictionary"),
        ("errata/not_ruled_out", "yes", "errata.not_ruled_out: Input should be a valid boolean"),
        ("errata/severity", "grave", "errata.severity: "),
        ("budgets/fp16/snr_db", "40", "budgets.fp16.snr_db: Input should be a valid number"),
        ("budgets/int4", {}, "budgets.int4"),
        ("budgets/int8", {}, "budgets.int8: Dictionary should have at least 1 item"),
        ("limits/engine int8", {}, "limits.engine int8: Dictionary should have at least 1 item"),
        ("measured_on", "gpu", "measured_on: "),
        ("limits/engine fp16/p99_ms", None, "limits.engine fp16.p99_ms: "),
        ("accepted/0/expires", "2027-02-30", "accepted.0.expires: it is no day, such as 2027-03-31"),
        ("accepted/0/expires", "soon", "accepted.0.expires: it is no day"),
        ("accepted/0/expires", 20270331, "accepted.0.expires: it is no day"),
        ("accepted/0/reason", "", "accepted.0.reason: "),
        ("accepted/0/networks", "net", "accepted.0.networks: "),
        ("signatures/0/method", "pgp", "signatures.0.method: "),
    ],
)
@pytest.mark.shows("MEA-45")
def test_what_is_wrong_is_one_line_with_file_and_key_and_the_schema_refuses_it_as_well(
    tmp_path: Path, key: str, value: Any, said: str
) -> None:
    data = copy.deepcopy(FULL)
    _put(key, value)(data)
    path = written(tmp_path, data)
    with pytest.raises(UsageError) as caught:
        read_policy(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and said in text and "\n" not in text and caught.value.exit_code == 2
    assert not SCHEMA.is_valid(data)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_put("scopes", {"drive-os-66": {}}), "drive-os-66"),
        (_put("budgets/fp16/snr", 40), "unknown metric 'snr', did you mean 'snr_db'"),
        (_put("budgets/fp16/top1_drop", 5), "is a share from 0 to 1"),
        (_put("limits/engine fp16/p98_ms", 5), "unknown quantity 'p98_ms'"),
        (_put("limits/motor", {"p99_ms": 5}), "unknown graph or engine 'motor'"),
        (_put("limits/engine fp16/p99_ms", float("inf")), "finite"),
        (lambda data: data["accepted"].append(dict(data["accepted"][0])), "'a.b' is accepted twice"),
    ],
)
def test_names_that_only_the_packs_and_tables_know(tmp_path: Path, edit: Callable[..., None], said: str) -> None:
    data = copy.deepcopy(FULL)
    edit(data)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_policy(written(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "a policy is a mapping"),
        ("name: [\n", "not valid YAML"),
        ("schema_version: 1\nname: a\nname: b\n", "'name' stands twice"),
        ("schema_version: 1\nname: a\nbudgets:\n  fp16: {snr_db: 9}\n  fp16: {snr_db: 1}\n", "'fp16' stands twice"),
        ("name: a\n", "schema_version: Field required"),
        ("", "schema_version: Field required"),
    ],
)
def test_files_that_are_no_policy(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        read_policy(written(tmp_path, text))
    assert "policy.yaml" in caught.value.message


def test_a_day_in_yaml_needs_no_quotes(tmp_path: Path) -> None:
    text = "schema_version: 1\nname: a\naccepted: [{id: a, reason: b, expires: 2027-03-31}]\n"
    assert read_policy(written(tmp_path, text)).accepted[0].expires == date(2027, 3, 31)
    with pytest.raises(UsageError, match="it is no day"):
        read_policy(written(tmp_path, text.replace("2027-03-31", "2027-03-31T10:00:00")))


def test_the_published_schema_and_the_example_of_the_page_are_those_of_the_reader(tmp_path: Path) -> None:
    published = ROOT / "docs" / "schemas" / "gate-policy.schema.json"
    assert published.read_text(encoding="utf-8") == dump_json(json_schema()), "run: python -m tools.schemas"
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    assert read_policy(written(tmp_path, example)).signatures[0].signer == "release@example.com"
    SCHEMA.validate(json.loads(json.dumps(yaml.safe_load(example), default=str)))
    assert all(f"`{key}`" in page for key in Policy.model_fields if key not in ("schema_version", "name"))


def test_a_day_that_the_calendar_lacks_is_one_line(tmp_path: Path) -> None:
    """YAML reads an unquoted day by itself."""
    path = tmp_path / "policy.yaml"
    path.write_text("schema_version: 1\nname: x\naccepted: [{id: a, reason: b, expires: 2027-02-30}]\n")
    with pytest.raises(UsageError, match="day is out of range"):
        read_policy(path)
