"""The notebooks of examples/ as pages."""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def notebook_pages() -> dict[str, str]:
    """Path -> page of each notebook: its text and its code, as the file has them."""
    return {f"tutorials/{path.stem}.md": _page(path) for path in sorted(EXAMPLES.glob("*.ipynb"))}


def _page(path: Path) -> str:
    parts = []
    for part in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(part["source"])
        parts.append(text if part["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.append(f"This page is the notebook `examples/{path.name}`; a test runs every cell of it.")
    return "\n\n".join(parts) + "\n"
