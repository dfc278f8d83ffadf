"""Reads the builder's log: its first real error, its warnings, what it said about the safety scope."""

from __future__ import annotations

import re

# Said by every build on a machine without a driver or an optional terminal package; never the cause of a failure.
_NOISE = ("catchCudaError", "Cuda Runtime", "'colored' module is not installed")
# The parser's report around its one telling line.
_FRAME = re.compile(r"^ModelImporter\.cpp|^--- |^ERROR: ")
_NODE = re.compile(
    r"^In node (?P<index>-?\d+) with name: (?P<name>.*) and operator: (?P<op>\S*) \(\w+\): (?P<what>.*)$"
)
_CODE = re.compile(r"^(?:[\w:]+: )?Error Code:? \d+: ")
_SCOPE_SKIPPED = re.compile(r"safety scope \w+ skipped", re.IGNORECASE)
_SCOPE_REFUSED = re.compile(r"^Layer .* failed safety scope validation|^Network IO tensors are not in safety scope")


def _messages(text: str, severity: str) -> list[tuple[str, list[str]]]:
    """Messages of one severity (polygraphy's letter), each with its indented further lines."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.startswith(f"[{severity}] ")
            if inside:
                found.append((line[4:].strip(), []))
        elif inside and line.startswith("    "):
            found[-1][1].append(line.strip())
    return [(head, more) for head, more in found if not any(noise in head for noise in _NOISE)]


def first_error(text: str) -> str:
    """The line that says what failed and at which node; empty when the log holds no error."""
    errors = _messages(text, "E")
    for head, more in errors:
        match = _NODE.match(head)
        if match:
            # "Invalid Node" only points on; the reason is the first further line.
            what = more[0] if match["what"].startswith("INVALID_NODE: Invalid Node") and more else match["what"]
            node = f"{match['op']} {match['name']!r}: " if match["op"] else ""
            return node + _CODE.sub("", what)
    plain = [head for head, _ in errors if not _FRAME.match(head)]
    return _CODE.sub("", plain[0]) if plain else ""


def warnings(text: str) -> tuple[str, ...]:
    """Warnings, each once, in order."""
    return tuple(dict.fromkeys(head for head, _ in _messages(text, "W")))


def scope_skipped(text: str) -> str:
    """The line that says that the safety-scope check was skipped; empty when there is none."""
    return next((line for line in warnings(text) if _SCOPE_SKIPPED.search(line)), "")


def scope_refusals(text: str) -> tuple[str, ...]:
    """What failed the safety-scope check, layers or the network's inputs and outputs, in the builder's words."""
    heads = (_CODE.sub("", head) for head, _ in _messages(text, "E"))
    return tuple(dict.fromkeys(head for head in heads if _SCOPE_REFUSED.match(head)))
