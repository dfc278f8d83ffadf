"""Plugin libraries of safety engines, as trtexec and trtexec_safe take them: ``LIBRARY[NS::NAME,NAME2]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.errors import UsageError

# samples/common/safeCommon.h: the brackets are literal and needed, NS:: may be empty or missing.
_PLUGIN = re.compile(r"(?P<library>[^\[\]]+)\[(?P<names>(?:\w*::)?\w+(?:,(?:\w*::)?\w+)*)\]")


@dataclass(frozen=True)
class SafetyPlugin:
    """One plugin, in the two builds that it needs.

    Attributes:
        build: library on this machine, which the builder loads.
        run: library on this machine, built for the target, which goes there with the engine.
        names: creators in it, ``NS::NAME`` each.
    """

    build: Path
    run: Path
    names: str

    def of_build(self) -> str:
        """The option's value for the build."""
        return f"{self.build}[{self.names}]"


def parse_plugin(item: Mapping[str, str]) -> SafetyPlugin:
    """``{"build": "libp.so[NS::N]", "run": "libp_safe.so[NS::N]"}`` to a plugin.

    Raises:
        UsageError: other keys, brackets missing, or other creators in the two libraries.
    """
    if set(item) != {"build", "run"}:
        raise UsageError(
            "safety_plugins: each needs build: and run:",
            fix="write {build: 'libp.so[::Name]', run: 'libp_safe.so[::Name]'}",
        )
    found = {}
    for key, text in item.items():
        match = _PLUGIN.fullmatch(text)
        if not match:
            raise UsageError(
                f"safety_plugins: {key}: {text!r} is no LIBRARY[NS::NAME,...]",
                fix="write the names of its creators in brackets: libp.so[::Name]",
            )
        found[key] = match
    if found["build"]["names"] != found["run"]["names"]:
        raise UsageError("safety_plugins: build and run name other creators", fix="give both libraries the same names")
    return SafetyPlugin(Path(found["build"]["library"]), Path(found["run"]["library"]), found["build"]["names"])
