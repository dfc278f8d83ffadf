"""The networks as timm models, where timm can be imported."""

from __future__ import annotations

import pytest
import torch

timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)


def test_factories_are_registered() -> None:
    import csa_models.timm_adapter  # noqa: F401

    network = timm.create_model("convselfattn", num_classes=7, drop_path_rate=0.1)
    assert network.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 7)
    assert sum(p.numel() for p in timm.create_model("convselfattn_pad1").parameters()) == 27_638_836
    assert timm.create_model("csa_digits").eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
