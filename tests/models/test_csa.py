"""The CSA networks against their specification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from csa_models.csa import CSABackbone, CSAConfig, Stem, resize_scale, stages
from csa_models.registry import (
    WEIGHTS,
    convselfattn,
    convselfattn_config,
    convselfattn_pad1,
    csa_digits,
    csa_digits_config,
    make,
)

from csa_deploy.complexity import count
from csa_deploy.data.base import IMAGE
from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import EnvironmentLacksError, UsageError


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return convselfattn.factory(input_size=(224, 224))


def test_size_equals_the_specification(network: torch.nn.Module) -> None:
    complexity = count(network, [torch.zeros(1, 3, 224, 224)])
    assert complexity.parameters == 27_638_836
    assert complexity.macs == 4_069_200_384


def test_padded_variant_has_the_same_parameters_and_power_of_two_maps() -> None:
    network = convselfattn_pad1.factory()
    complexity = count(network, [torch.zeros(1, 3, 224, 224)])
    assert complexity.parameters == 27_638_836
    assert round(complexity.macs / 1e9, 3) == 4.541
    assert network.map_sizes(224) == [56, 28, 14, 7]


def test_layer_scale_adds_one_factor_per_channel_and_block() -> None:
    network = make(replace(convselfattn_config(), layer_scale=1e-6), (224, 224))
    assert sum(p.numel() for p in network.parameters()) == 27_644_500


def test_maps_of_the_published_network(network: torch.nn.Module) -> None:
    assert network.map_sizes(224) == [56, 27, 13, 6]


def test_tensor_names_are_those_of_published_checkpoints(network: torch.nn.Module) -> None:
    names = {name for name, _ in network.named_parameters()}
    for conv_or_norm in ("downsample_layers.3.0", "downsample_layers.3.1", "norm", "head"):
        assert f"{conv_or_norm}.weight" in names
    block = ("v", "act_v.0", "q", "norm_q", "qk", "act_qk.0", "qkv", "act_qkv.0", "mlp")
    assert {f"stages.2.5.{part}.weight" for part in block} <= names


@pytest.mark.parametrize(("height", "width"), [(192, 192), (96, 160), (225, 131)])
@pytest.mark.parametrize("batch", [1, 2])
def test_rectangular_sizes_and_every_batch_keep_the_rank(
    network: torch.nn.Module, height: int, width: int, batch: int
) -> None:
    with torch.inference_mode():
        assert network(torch.zeros(batch, 3, height, width)).shape == (batch, 1000)


def test_smallest_size_works_and_one_less_is_refused_with_the_reason(network: torch.nn.Module) -> None:
    smallest = network.minimum_size()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, smallest, smallest)).isfinite().all()
    with pytest.raises(UsageError, match=rf"height {smallest - 1} is too small.*smallest side is {smallest}"):
        convselfattn.factory(input_size=(smallest - 1, 224))


def test_the_whole_final_map_decides(network: torch.nn.Module) -> None:
    """Above 224 px the published fixed pool ignores the last rows; ours must not."""
    image = torch.randn(1, 3, 288, 288, generator=torch.Generator().manual_seed(0))
    changed = image.clone()
    changed[..., -24:, -24:] *= -3
    with torch.inference_mode():
        assert not torch.equal(network(image), network(changed))


def test_initialisation_is_fixed_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = make(csa_digits_config(), (32, 32)).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = make(csa_digits_config(), (32, 32)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("target", [7, 14])
def test_resize_scale_gives_the_target_in_all_three_arithmetics(target: int) -> None:
    for size in range(1, 513):
        scale = resize_scale(size, target)
        single = np.float32(scale)
        assert int(np.floor(size * scale)) == target
        assert int(np.floor(np.float32(size) * single)) == target
        assert int(np.floor(float(single) * size)) == target
        assert abs(scale * size / target - 1) < 2e-7


def test_key_is_the_transpose_per_head(network: torch.nn.Module) -> None:
    block = network.stages[1][0]  # 2 heads, 14 x 14
    q = torch.randn(1, 2 * 196, 14, 14)
    k = block.key(q)
    for head in range(2):
        part = slice(head * 196, (head + 1) * 196)
        assert torch.equal(k[0, part].reshape(196, 196), q[0, part].reshape(196, 196).T)


def test_drop_path_acts_in_training_only() -> None:
    network = make(replace(csa_digits_config(), drop_path=0.5), (32, 32))
    image = torch.randn(8, 1, 32, 32)
    block = network.stages[2][1].drop_path
    branch = torch.ones(64, 1, 1, 1)
    assert torch.equal(block(branch), branch)
    dropped = block.train()(branch)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert network.eval()(image).shape == (8, 10)


def test_digits_network_resizes_by_whole_factors_only() -> None:
    network = csa_digits.factory()
    assert network.map_sizes(32) == [16, 8, 4]
    assert [stage.map_side for stage in network.config.stages] == [8, 8, 4]
    assert 250_000 < sum(p.numel() for p in network.parameters()) < 400_000
    assert (WEIGHTS / "csa_digits.safetensors").stat().st_size < 1_500_000


def test_digits_network_recognises_at_least_98_percent_of_unseen_digits() -> None:
    try:
        dataset = open_dataset("digits", csa_digits.preprocessing)
    except EnvironmentLacksError as error:
        pytest.skip(str(error))
    network = csa_digits.factory()
    hits = 0
    with torch.inference_mode():
        for batch in dataset.batches(250):
            assert batch.labels is not None
            hits += int((network(torch.from_numpy(batch.inputs[IMAGE])).argmax(1).numpy() == batch.labels).sum())
    assert len(dataset) == 1000
    assert hits >= 980


def test_convolutions_come_before_attention_and_add_to_what_they_see() -> None:
    config = CSAConfig(stages((1,), (6,), (1,), (8,), convolutions=(2,)), stem=Stem(3, 2, 1), downsample_padding=1)
    (stage,) = CSABackbone(config).eval().stages
    assert [type(block).__name__ for block in stage] == ["ConvBlock", "ConvBlock", "CSABlock"]
    convolution, norm = stage[0].conv
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)  # as trained
    x = torch.randn(2, 6, 9, 7)
    with torch.inference_mode():
        found = stage[0](x).numpy()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    mixed = np.einsum("nchwij,ocij->nohw", windows, convolution.weight.detach().numpy())
    mixed += convolution.bias.detach().numpy()[:, None, None]
    scaled = (mixed - norm.running_mean.numpy()[:, None, None]) / np.sqrt(norm.running_var.numpy() + norm.eps)[
        :, None, None
    ]
    assert np.abs(found - x.numpy() - np.maximum(scaled, 0)).max() < 1e-5
