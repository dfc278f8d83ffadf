"""The network in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from csa_models.csa import CSABlock
from csa_models.registry import csa_digits

from csa_deploy.errors import UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.network import parameter_groups, trainable
from csa_deploy.train.recipe import Recipe, load_recipe
from csa_deploy.train.subject import entry_of

PUBLISHED = load_recipe("imagenet")


def test_the_recipe_reaches_the_network() -> None:
    network = trainable(csa_digits, PUBLISHED, (32, 32), seed=0)
    blocks = [module for module in network.modules() if isinstance(module, CSABlock)]
    assert [block.drop_path.p for block in blocks] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert all((block.gamma == 1e-6).all() for block in blocks)
    assert network.training


def test_training_starts_from_the_seed_not_from_trained_weights() -> None:
    first, again, other = (trainable(csa_digits, PUBLISHED, (32, 32), seed).state_dict() for seed in (0, 0, 1))
    trained = csa_digits.factory().state_dict()
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["head.weight"], trained["head.weight"])


def test_layer_scale_norms_and_biases_do_not_decay() -> None:
    network = trainable(csa_digits, PUBLISHED, (32, 32), seed=0)
    decayed, plain = parameter_groups(network, 0.05)
    names = {id(p): name for name, p in network.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert all(names[id(p)].endswith("weight") and p.ndim == 4 for p in decayed["params"])
    assert {"stages.0.0.gamma", "norm.weight", "head.bias"} <= {names[id(p)] for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_a_factory_without_drop_path_is_said(entry: NetworkEntry, recipe: Recipe) -> None:
    trainable(entry, recipe, (12, 12), seed=0)
    with pytest.raises(UsageError, match="no parameter 'drop_path'"):
        trainable(entry, PUBLISHED, (12, 12), seed=0)


def test_a_factory_in_a_file_can_be_trained(tmp_path: Path) -> None:
    code = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))\n"
    code += "preprocessing = {'size': (4, 4)}\n"
    (tmp_path / "net.py").write_text(code)
    entry = entry_of(f"{tmp_path / 'net.py'}:make")
    assert entry.preprocessing.size == (4, 4)
    assert entry.factory()(torch.zeros(3, 3, 4, 4)).shape == (3, 2)
    with pytest.raises(UsageError, match="no parameter 'drop_path'"):
        trainable(entry, PUBLISHED, (4, 4), seed=0)
    code = code.replace("make():", "make(drop_path=0.0, layer_scale=0.0, seed=3):")
    code = code.replace("48, 2)", "48, 10 if drop_path and layer_scale and seed == 7 else 2)")
    (tmp_path / "net.py").write_text(code)
    entry = entry_of(f"{tmp_path / 'net.py'}:make")
    assert trainable(entry, PUBLISHED, (4, 4), seed=7)(torch.zeros(3, 3, 4, 4)).shape == (3, 10)
    with pytest.raises(UsageError, match="graph cannot be trained"):
        (tmp_path / "net.onnx").touch()
        entry_of(str(tmp_path / "net.onnx"))
