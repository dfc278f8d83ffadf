"""Samples as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csa_deploy.data.base import Dataset

_SIDE = 176
_MOST = 24


def thumbnails(dataset: Dataset | None, identities: Sequence[str]) -> dict[str, str]:
    """PNG or JPEG data URLs of at most 176 pixels a side, by identity; samples without a picture are left out."""
    found: dict[str, str] = {}
    for identity in identities[:_MOST] if dataset else []:
        assert dataset is not None
        image = dataset.image(identity)
        if image is None:
            continue
        image = image.convert("RGB")
        image.thumbnail((_SIDE, _SIDE))
        kind = "png" if image.width * image.height <= 32 * 32 else "jpeg"
        stream = io.BytesIO()
        image.save(stream, kind)
        found[identity] = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return found
