"""Checkpoints load whatever wraps them, and nothing in them is executed."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from csa_models.registry import csa_digits_config, make
from safetensors.torch import save_file
from torch import nn

from csa_deploy.checkpoint import BARE, load_checkpoint
from csa_deploy.errors import UsageError


@pytest.fixture()
def network() -> nn.Module:
    return make(csa_digits_config(), (32, 32))


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Weights that differ from any initialisation."""
    state = make(csa_digits_config(), (32, 32)).state_dict()
    return {n: v + 1 if v.is_floating_point() else v for n, v in state.items()}


def same(network: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(network.state_dict()[n], v) for n, v in weights.items())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", ["model", "model_ema", "state_dict", None])
def test_wrapped_and_bare_dictionaries(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path, key: str | None, legacy: bool
) -> None:
    path = tmp_path / "weights.pth"
    content = {key: weights, "epoch": 299} if key else weights
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert load_checkpoint(network, path) == (key or BARE)
    assert same(network, weights)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_namespace_and_foreign_classes_inside_do_no_harm(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path, legacy: bool
) -> None:
    path = tmp_path / "weights.pth"
    content = {
        "model": OrderedDict(weights),
        "args": argparse.Namespace(lr=4e-3, nested=argparse.Namespace(path=Path("x"))),
        "scaler": Foreign(),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert load_checkpoint(network, path) == "model"
    assert same(network, weights)


class Foreign:
    """A class that only the training code knows."""

    def __init__(self) -> None:
        self.scale = 65536.0


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("function", [os.system, exec, eval, os.remove])
def test_payloads_do_not_run(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path, legacy: bool, function: Any
) -> None:
    path, proof, victim = tmp_path / "weights.pth", tmp_path / "proof", tmp_path / "victim"
    victim.touch()
    argument = {
        os.system: f"touch {proof}",
        exec: f"open({str(proof)!r}, 'w')",
        eval: f"open({str(proof)!r}, 'w')",
        os.remove: str(victim),
    }[function]
    torch.save({"model": weights, "args": Payload(function, argument)}, path, _use_new_zipfile_serialization=not legacy)
    try:
        load_checkpoint(network, path)
    except UsageError as error:
        assert "\n" not in str(error)
    assert not proof.exists() and victim.exists()


def test_a_plain_pickle_does_not_run(network: nn.Module, tmp_path: Path) -> None:
    path, proof = tmp_path / "weights.pt", tmp_path / "proof"
    path.write_bytes(pickle.dumps(Payload(os.system, f"touch {proof}")))
    with pytest.raises(UsageError, match="cannot be read as a checkpoint"):
        load_checkpoint(network, path)
    assert not proof.exists()


def test_safetensors(network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "weights.safetensors")
    assert load_checkpoint(network, tmp_path / "weights.safetensors") == BARE
    assert same(network, weights)


def test_prefix_of_distributed_training_is_dropped(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": {f"module.{n}": v for n, v in weights.items()}}, tmp_path / "w.ckpt")
    load_checkpoint(network, tmp_path / "w.ckpt")
    assert same(network, weights)


def test_model_goes_before_model_ema_and_the_choice_is_said(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "w.pth"
    ema = {n: v + 1 if v.is_floating_point() else v for n, v in weights.items()}
    torch.save({"model_ema": ema, "model": weights}, path)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(network, path) == "model"
    assert "'model'; also there: model_ema" in caplog.text
    assert same(network, weights)
    assert load_checkpoint(network, path, key="model_ema") == "model_ema"
    assert same(network, ema)
    with pytest.raises(UsageError, match=r"no weights under 'ema'.*model_ema, model"):
        load_checkpoint(network, path, key="ema")


def test_layer_scale_comes_with_the_checkpoint(network: nn.Module, tmp_path: Path) -> None:
    from dataclasses import replace

    scaled = make(replace(csa_digits_config(), layer_scale=0.5), (32, 32))
    torch.save({"model": scaled.state_dict()}, tmp_path / "w.pth")
    load_checkpoint(network, tmp_path / "w.pth")
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(network(image), scaled(image))


@pytest.mark.shows("MEA-11", "ERR-09")
def test_a_wrong_checkpoint_names_what_is_wrong(
    network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    wrong = dict(weights)
    del wrong["head.bias"]
    wrong["fc.weight"] = torch.zeros(3)
    wrong["head.weight"] = torch.zeros(1000, 96, 1, 1)
    wrong["norm.bias"] = torch.full((96,), float("nan"))
    torch.save(wrong, tmp_path / "w.pth")
    with pytest.raises(UsageError) as caught:
        load_checkpoint(network, tmp_path / "w.pth")
    for part in (
        "1 missing (head.bias)",
        "1 unexpected (fc.weight)",
        "1 mis-shaped (head.weight 1000x96x1x1 instead of 10x96x1x1)",
        "1 not finite (norm.bias)",
    ):
        assert part in str(caught.value)


def test_many_wrong_keys_are_counted_and_the_first_shown(network: nn.Module, tmp_path: Path) -> None:
    torch.save({f"layer{i}": torch.zeros(1) for i in range(40)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"40 unexpected \(layer0, layer1, layer2, \.\.\.\)"):
        load_checkpoint(network, tmp_path / "w.pth")


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncated(network: nn.Module, weights: dict[str, torch.Tensor], tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(truncated(path.read_bytes()))
    refused(network, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x80\x02}q\x00."], ids=["empty", "text", "pickle"])
def test_files_that_are_no_checkpoints(network: nn.Module, tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refused(network, path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 1}}, {}], ids=["list", "no tensors", "empty"])
def test_checkpoints_without_weights(network: nn.Module, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    refused(network, tmp_path / "w.pth")


def test_missing_file_and_folder(network: nn.Module, tmp_path: Path) -> None:
    refused(network, tmp_path / "none.pth")
    refused(network, tmp_path)


def refused(network: nn.Module, path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_checkpoint(network, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
