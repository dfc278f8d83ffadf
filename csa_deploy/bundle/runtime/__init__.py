"""Source of a program that compares a safety engine with the bundle's samples where it runs, for the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from csa_deploy.records.build import Part

_FILES = ("safe_compare.cpp", "CMakeLists.txt")
FOLDER = "runtime"


def is_safe(command: Sequence[str]) -> bool:
    """Whether trtexec was told to make a safety engine of the GPU."""
    return "--safe" in command and not any(word.startswith("--useDLACore") for word in command)


def runtime_files(engine: str, parts: Iterable[Part], samples: Sequence[str]) -> dict[str, bytes]:
    """What belongs into a bundle with a safety engine: the program, the list of samples, and how to use both.

    Args:
        engine: path of the engine in the bundle.
        samples: lines of the list of samples.
    """
    here = Path(__file__).parent
    files = {f"{FOLDER}/{name}": here.joinpath(f"{name}.j2").read_bytes() for name in _FILES}
    companion = next((f"{engine}.parts/{part.file}" for part in parts if part.role == "companion"), "-")
    files[f"{FOLDER}/samples.txt"] = ("\n".join(samples) + "\n").encode()
    files[f"{FOLDER}/README.txt"] = (
        "Compares the engine of this bundle with its samples on the machine that runs it, by TensorRT's safety\n"
        "runtime (the certified one, or the proxy runtime of other platforms). CMakeLists.txt says how to build it.\n"
        "Then, in this bundle's folder:\n\n"
        f"    build/safe_compare {engine} {companion} {FOLDER}/samples.txt\n\n"
        "0: within tolerance, 2: not, 1: it could not be told. It was compiled against stub headers only.\n"
    ).encode()
    return files
