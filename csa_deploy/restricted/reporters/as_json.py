"""The report as JSON, for programs."""

from __future__ import annotations

import json

from csa_deploy.records.check import Inspected


def render(data: Inspected) -> str:
    """The report as indented JSON with a final line break."""
    return json.dumps(data.to_json(), indent=2, allow_nan=False) + "\n"
