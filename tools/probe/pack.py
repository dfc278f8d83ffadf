"""Write the derived rules as the rule pack of the scope drive-os-7."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csa_deploy.restricted.schema import PACK_FOLDER
from tools.probe.derive import DerivedRule
from tools.probe.evidence import Evidence
from tools.probe.limits import REPAIRS

PACK_FILE = PACK_FOLDER / "drive_os_7.toml"
_FIXED_RULES = Path(__file__).with_name("fixed_rules.toml")


def dumps(rules: Sequence[DerivedRule], evidence: Evidence) -> str:
    """Return the pack's text: what was not probed (``fixed_rules.toml``), then one table per derived rule."""
    judged = sum(finding.has_verdict for finding in evidence.findings)
    head = _FIXED_RULES.read_text(encoding="utf-8")
    head = head.replace("{probes}", str(len(evidence.findings))).replace("{judged}", str(judged))
    head = head.replace("{version}", evidence.version)
    return head + "".join(_rule(rule, evidence.version) for rule in rules)


def _rule(rule: DerivedRule, version: str) -> str:
    source = f"TensorRT-RTX {version}, safety-scope validation: {rule.count} probes, of which the first are named"
    if rule.count == len(rule.probes):
        source = f"TensorRT-RTX {version}, safety-scope validation: all probes named"
    lines = {
        "id": rule.id,
        "layer": rule.layer,
        "when": rule.when,
        "unless": rule.unless,
        "verdict": rule.verdict,
        "message": rule.message,
        "evidence": "validator-probe",
        "source": source,
        "instead": rule.instead,
        "repair": REPAIRS.get(rule.id, ""),
        "probes": list(rule.probes),
    }
    text = "\n".join(f"{key} = {_toml(value)}" for key, value in lines.items() if value not in ({}, ""))
    return f"\n[[rules]]\n{text}\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else f'"{key}"'
