"""``docs/benchmarks.md`` out of the stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.peers.quantize import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
HEAD = """# Against other quantizers

Made by `make bench-peers` out of the results under `benchmarks/peers/results`; a cell whose file is removed is measured
again. Every tool gets the same optimized FP32 graph and the same images to calibrate on, and runs in an environment of
its own (`requirements/peers`) with settings that its documentation names. All layers are to be in INT8: csa-deploy runs
without the search that gives layers back to floating point.

- *CPU s* are seconds of all threads on a core, of the whole process; *s* is the clock, on two cores that others used
  too; *MiB* is the most memory that the process held.
- *SNR* is that of the worst output against FP32, *agrees* the share of images with the same first class, both in ONNX
  Runtime node by node, on images that no tool saw.
- *layers* have both their data and their weights out of a DequantizeLinear. Fewer of them are an easier task.
- *scopes* counts the safety scopes that the FP32 graph is not denied in, and how many of these the INT8 graph keeps.
- Images to calibrate on: views of scikit-image's 15 photographs, of csa_digits and csa_detection their training
  sets. Images to measure on: foolbox's 20 photographs and their mirror images, held-out digits,
  test scenes.
- ONNX Runtime's entropy equals its minmax to the last digit where no later image widens a histogram: 128 bins for 128
  levels, which its `quantize_static` cannot change, leave the whole range as the only candidate.
- A row that is not there was not tried. So it is with Quark's INT8_CNN_ACCURATE, which fine-tunes weights: on the
  smallest network it was not done after six minutes.
"""
BRIEF = """
## In short

SNR in dB of each tool's best setting. *Keeps the scopes*: graphs that keep every scope that csa-deploy's keeps, with
all layers in INT8. *Any*: also graphs that a safety scope denies, or with layers left in floating point. **Bold**: more
than csa-deploy. CPU s and MiB: of csa-deploy's setting whose SNR is shown, in brackets of its cheapest one, against the
cheapest setting of any other tool.

| network | images | csa-deploy | best other that keeps the scopes | best other of any | CPU s | MiB |
|---|---|---|---|---|---|---|
"""


def write(results: Path) -> None:
    """Write the page."""
    cells = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    order = list(SETTINGS)
    parts = [HEAD, BRIEF, *_brief(cells)]
    networks = list(dict.fromkeys(cell["network"] for cell in cells))
    for network in networks:
        for images in sorted({cell["images"] for cell in cells if cell["network"] == network}):
            here = [c for c in cells if (c["network"], c["images"]) == (network, images)]
            here.sort(key=lambda cell: order.index(cell["setting"]))
            parts.append(f"\n## {network}, {images} images\n\n{_table(here)}")
    parts.append(f"\n## Versions\n\n{_versions(cells)}")
    PAGE.write_text("".join(parts))


def _brief(cells: list[dict[str, Any]]) -> list[str]:
    """A row for each network and number of images."""
    places: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        if "not_measured" not in cell:
            places.setdefault((cell["network"], cell["images"]), []).append(cell)
    rows = []
    for (network, images), here in sorted(places.items()):
        ours = [c for c in here if SETTINGS[c["setting"]][0] == "csa-deploy"]
        others = [c for c in here if c not in ours]
        if not ours:
            continue
        best = max(ours, key=_snr)
        alike = [
            c
            for c in others
            if c["int8_layers"] == best["int8_layers"] and set(best["scopes_kept"]) <= set(c["scopes_kept"])
        ]
        found = " | ".join(_best(some, best["snr_db"]) for some in (alike, others))
        took = " | ".join(
            f"{best[key]:{shown}} ({_least(ours, key, shown)}) / {_least(others, key, shown)}"
            for key, shown in (("cpu_seconds", ".1f"), ("peak_mib", ",d"))
        )
        rows.append(f"| {network} | {images} | {best['snr_db']:.2f} | {found} | {took} |\n")
    return rows


def _snr(cell: dict[str, Any]) -> float:
    return float(cell["snr_db"])


def _least(cells: list[dict[str, Any]], key: str, shown: str) -> str:
    return format(min(cell[key] for cell in cells), shown) if cells else "-"


def _best(cells: list[dict[str, Any]], ours: float) -> str:
    if not cells:
        return "-"
    best = max(cells, key=_snr)
    text = f"{best['snr_db']:.2f} {best['setting']}"
    return f"**{text}**" if best["snr_db"] > ours else text


def _table(cells: list[dict[str, Any]]) -> str:
    rows = [
        "| tool and setting | SNR, dB | agrees | layers | scopes | CPU s | s | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        if reason := cell.get("not_measured"):
            rows.append(f"| {cell['setting']} | not measured: {reason.replace('|', '/')} ||||||| ")
            continue
        agrees = "-" if cell["agreement"] is None else f"{100 * cell['agreement']:.1f} %"
        kept = f"{len(cell['scopes_kept'])} of {len(cell['scopes'])}"
        layers = f"{cell['int8_layers']} of {cell['layers']}"
        took = f"{cell['cpu_seconds']:.1f} | {cell['seconds']:.1f} | {cell['peak_mib']:,}"
        rows.append(f"| {cell['setting']} | {cell['snr_db']:.2f} | {agrees} | {layers} | {kept} | {took} |")
    return "\n".join(row.rstrip() for row in rows) + "\n"


def _versions(cells: list[dict[str, Any]]) -> str:
    found: dict[str, set[str]] = {}
    for cell in cells:
        if "versions" in cell:
            said = ", ".join(f"{name} {version}" for name, version in cell["versions"].items())
            found.setdefault(f"{SETTINGS[cell['setting']][0]}: {said}", set()).add(cell["date"])
    return "".join(f"- {what}; measured {', '.join(sorted(dates))}\n" for what, dates in sorted(found.items()))
