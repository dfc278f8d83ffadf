"""Keeps what a search has measured so far in a file, so that an interrupted one goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csa_deploy.workspace import write_atomic

_LOG = logging.getLogger(__name__)
Figures = dict[str, Any]


class MeasurementCache:
    """Figures by name, measured once under a key.

    Args:
        path: file to keep them in; None for memory alone.
        key: what the figures depend on; a file of another key is ignored.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self._found: dict[str, Figures] = {}
        if path is None or not path.is_file():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["key"] == key:
                self._found = dict(stored["found"])
                _LOG.info("the search goes on after %d measurements", len(self._found))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.info("an interrupted search is not resumed: %s cannot be read (%s)", path, error)

    def of(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """What was measured under a name, now or before."""
        if name not in self._found:
            self._found[name] = measure()
            self._save()
        return self._found[name]

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            write_atomic(self._path, json.dumps({"key": self._key, "found": self._found}).encode())
        except OSError as error:
            _LOG.warning("an interrupted search could not be resumed: %s cannot be written (%s)", self._path, error)
            self._path = None
