"""Writes the project of ``csa-deploy new``: the texts of ``files/``, and weights and data that are computed."""

from __future__ import annotations

from pathlib import Path

from csa_deploy.errors import UsageError

_FILES = Path(__file__).parent / "files"
_SUFFIX = ".j2"  # of what the wheel carries as text; nothing in it is filled in
_PLACES = {"deploy.yml": ".github/workflows/deploy.yml", "gitignore": ".gitignore"}
_SAMPLES = 800
"""So many that 99.5 % agreement can be shown: 736 would do."""


def write_project(folder: Path) -> list[Path]:
    """Write the project into a folder that is not there yet, or is empty.

    Returns:
        The files, relative to the folder.

    Raises:
        UsageError: something is there already; nothing is overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there and not empty", fix="name a folder that is not there yet")
    for source in sorted(_FILES.glob(f"*{_SUFFIX}")):
        name = source.name.removesuffix(_SUFFIX)
        place = folder / _PLACES.get(name, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    _write_weights(folder / "weights.safetensors")
    _write_data(folder / "data.npz")
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _write_weights(path: Path) -> None:
    """Weights of nets.py that tell light from dark: they are set, not trained."""
    import numpy as np
    from safetensors.numpy import save_file

    first = np.zeros((8, 3, 3, 3), np.float32)
    first[:, :, 1, 1] = 1 / 3  # the mean of the colours
    second = np.stack([np.full((8, 1, 1), -1 / 8), np.full((8, 1, 1), 1 / 8)]).astype(np.float32)
    save_file(
        {
            "features.weight": first,
            "features.bias": np.full(8, 3.0, np.float32),  # above zero, so that ReLU keeps all of it
            "classes.weight": second,
            "classes.bias": np.asarray([3.0, -3.0], np.float32),
        },
        path,
    )


def _write_data(path: Path) -> None:
    """Pictures from dark to light with a shade from left to right, as the network takes them, and their classes."""
    import numpy as np

    levels = np.linspace(0.02, 0.98, _SAMPLES)
    levels += np.where(levels < 0.5, -0.01, 0.01)  # none lies on the border
    shade = np.linspace(-0.01, 0.01, 16)
    pictures = np.clip(np.round((levels[:, None] + shade) * 255), 0, 255) / 255
    images = np.broadcast_to(pictures[:, None, None, :], (_SAMPLES, 3, 16, 16))
    images = ((images - 0.5) / 0.25).astype(np.float32)
    np.savez_compressed(path, image=images, labels=(levels > 0.5).astype(np.int64))
