"""The report as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render(data: Mapping[str, Any]) -> str:
    """The report as indented JSON with a final line break."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
