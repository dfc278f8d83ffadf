"""Workspaces that the benchmarks measure: made by the command line itself, outside the timed regions."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

CLI = Path(sys.executable).with_name("csa-deploy")
_FOLDER = tempfile.TemporaryDirectory(prefix="csa-deploy-bench-")


@cache
def deployed(network: str) -> tuple[Path, dict[str, Any]]:
    """Run a network through the pipeline on a few samples; its workspace and report."""
    root = Path(_FOLDER.name) / network
    subprocess.run([CLI, "run", network, "--samples", "8", "--workspace", root, "--quiet"], check=True)
    return root, json.loads((root / "report.json").read_text())
