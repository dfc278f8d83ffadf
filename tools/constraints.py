"""Makes requirements/constraints.txt: ``make constraints`` asks pip what it would install, and this writes it down.

``python -m tools.constraints REPORT.json`` takes the answer of ``pip install --dry-run --ignore-installed --report``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "requirements" / "constraints.txt"
_HEAD = "# Versions the project is tested with; the Makefile installs these. pyproject.toml itself stays open.\n"
_OWN = "csa-deploy"


def lines(report: dict[str, Any]) -> str:
    """The file: a line per distribution, by name; builds of one version (``+cpu``) are the same version."""
    found = {
        item["metadata"]["name"]: item["metadata"]["version"].partition("+")[0]
        for item in report["install"]
        if item["metadata"]["name"] != _OWN
    }
    return _HEAD + "\n".join(sorted((f"{name}=={version}" for name, version in found.items()), key=str.lower)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8")
