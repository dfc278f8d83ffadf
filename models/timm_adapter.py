"""The CSA networks as timm models: ``import csa_models.timm_adapter``, then ``timm.create_model("convselfattn")``.

Importing this module needs timm (``pip install timm``); nothing else in the package does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from timm.models import register_model

from .csa import ConvSelfAttn, CSAConfig
from .registry import convselfattn_config, csa_digits_config


def _create(
    config: CSAConfig,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_path_rate: float = 0.0,
    layer_scale: float | None = None,
    **_: Any,
) -> ConvSelfAttn:
    if pretrained:
        raise RuntimeError("no pretrained weights are published for this network in timm's form")
    return ConvSelfAttn(
        replace(
            config,
            classes=config.classes if num_classes is None else num_classes,
            stem=config.stem if in_chans is None else replace(config.stem, in_channels=in_chans),
            drop_path=drop_path_rate,
            layer_scale=layer_scale,
        )
    )


@register_model
def convselfattn(pretrained: bool = False, **options: Any) -> ConvSelfAttn:
    """The CSA network as published."""
    return _create(convselfattn_config(), pretrained=pretrained, **options)


@register_model
def convselfattn_pad1(pretrained: bool = False, **options: Any) -> ConvSelfAttn:
    """The CSA network with padded downsampling."""
    return _create(convselfattn_config(downsample_padding=1), pretrained=pretrained, **options)


@register_model
def csa_digits(pretrained: bool = False, **options: Any) -> ConvSelfAttn:
    """The small CSA network for 1 x 32 x 32 images; not trained."""
    return _create(csa_digits_config(), pretrained=pretrained, **options)
