"""What a bundle was made with, as a CycloneDX 1.6 document with a model card.

Written by hand, as the same bundle has to give the same bytes, and cyclonedx-python-lib has no class for model cards;
a test holds it against that library's copy of the published schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from importlib import metadata
from typing import Any
from urllib.parse import quote

from csa_deploy import __version__
from csa_deploy.installing import version_of

# The packages whose code decides what is in a bundle, besides the TensorRT that built its engine.
PACKAGES = (
    *("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnx-graphsurgeon", "polygraphy", "numpy"),
    *("pillow", "safetensors", "protobuf"),
)


def make_sbom(
    network: str, files: Mapping[str, str], tensorrt: str | None, card: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document.

    Args:
        files: path in the bundle -> SHA-256.
        tensorrt: builder and version of the engine; None for a bundle without one.
    """
    components = [_package(name, version) for name in PACKAGES if (version := version_of(name))]
    if tensorrt is not None:
        name, _, version = tensorrt.rpartition(" ")
        # trtexec is the tool; on a target, its TensorRT is no Python package.
        other = {"type": "library", "name": "TensorRT", "version": version, "supplier": {"name": "NVIDIA"}}
        components.append(_package(name, version) if version_of(name) == version else other)
    components += [
        {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for path, digest in sorted(files.items())
    ]
    model: dict[str, Any] = {"type": "machine-learning-model", "name": network, "bom-ref": f"network:{network}"}
    if card:
        model["modelCard"] = card
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": model,
            "tools": {"components": [{"type": "application", "name": "csa-deploy", "version": __version__}]},
        },
        "components": components,
    }
    # A name-based number, so that the same content gives the same document; no time for the same reason.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {**body, "serialNumber": f"urn:uuid:{serial}"}


def _package(name: str, version: str) -> dict[str, Any]:
    licence = _licence(name)
    entry: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{quote(version, safe='')}",
    }
    return {**entry, "licenses": [{"license": {"name": licence}}]} if licence else entry


def _licence(name: str) -> str:
    """The licence that a package states about itself, in its words; empty when it states none in one line."""
    stated = metadata.metadata(name)
    text = next((line for key in ("License-Expression", "License") for line in stated.get_all(key) or []), "")
    classifiers = [c.rpartition(" :: ")[2] for c in stated.get_all("Classifier") or [] if c.startswith("License ::")]
    return text if text and "\n" not in text else ", ".join(classifiers)
