"""Files that other people's tools read: how to cite, and what stays readable."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Misfits

from .conftest import ROOT


def test_the_citation_fits_the_published_schema(tmp_path: Path, misfits: Misfits) -> None:
    right = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for text, fits in ((right, True), (right.replace("authors:", "author:"), False)):
        path = tmp_path / "citation.yaml"
        path.write_text(text, encoding="utf-8")
        assert (misfits("vendor.citation-file-format", path) == "") is fits


def _stated(text: str) -> dict[str, int]:
    """Module -> version, of the table of stored documents."""
    rows = re.findall(r"^\|[^|]+\| (\d+) \| (.+) \|$", text, re.MULTILINE)
    return {path: int(version) for version, paths in rows for path in re.findall(r"`(csa_deploy/[^`]+)`", paths)}


def test_every_stored_document_and_its_version_is_on_the_page() -> None:
    stated = _stated((ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8"))
    written = {}
    for path in sorted((ROOT / "csa_deploy").rglob("*.py")):
        if found := re.search(r"^SCHEMA_VERSION = (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            written[str(path.relative_to(ROOT))] = int(found[1])
    assert len(written) > 6 and written.items() <= stated.items()
    for path, version in stated.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"schema_version\W.*{version}|SCHEMA_VERSION = {version}", text), path
