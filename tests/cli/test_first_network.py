"""docs/first-network.md: its file works, and every command of it runs, in order."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import csa_deploy

DOCS = Path(csa_deploy.__file__).parents[1] / "docs"
PAGE = DOCS / "first-network.md"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
needs_docs = pytest.mark.skipif(not PAGE.is_file(), reason="an installed package has no docs")


def commands() -> list[list[str]]:
    return [shlex.split(line)[1:] for line in re.findall(r"^    (csa-deploy .+)$", PAGE.read_text(), re.MULTILINE)]


def trained(folder: Path) -> None:
    """Weights that tell dark from light images, by construction."""
    import runpy

    import torch
    from safetensors.torch import save_file

    network = runpy.run_path(str(folder / "nets.py"))["make"]()
    torch.manual_seed(0)
    with torch.no_grad():
        for part in network.parameters():
            part.zero_()
        network[0].weight[:, :, 1, 1] = 1 / 3
        network[0].bias.fill_(3.0)
        network[2].weight[0], network[2].weight[1] = -1 / 8, 1 / 8
        network[2].bias.copy_(torch.tensor([3.0, -3.0]))
    save_file(network.state_dict(), folder / "weights.safetensors")


@pytest.mark.slow
@needs_docs
@needs_rtx
def test_every_command_of_the_page_runs(tmp_path: Path, typed: Any) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "nets.py").write_text(code[0])
    trained(tmp_path)
    random = np.random.RandomState(0)
    for number in range(60):
        name, low = (("dark", 0), ("light", 156))[number % 2]
        path = tmp_path / "val" / name / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(low, low + 100, (40, 40, 3)).astype(np.uint8)).save(path)
    assert len(commands()) == 6
    for words in commands():
        if words[0] == "run":
            words += ["--iterations", "5", "--threads", "1"]
        done = typed(tmp_path, *words)
        assert done.code == 0, (words, done.err)
        if words[0] == "evaluate":
            assert "top-1 100.00 %" in done.out
        if words[0] in ("run", "verify-bundle"):
            assert "INCOMPLETE" in done.out  # no GPU here, and 60 images are few
    index = json.loads(typed(tmp_path, "verify-bundle", "nets-make.fp16.tar", "--json").out)
    assert {"network", "checkpoint", "evaluation data"} <= {need["what"] for need in index["not_included"]}


@needs_docs
def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text()))
    assert named == {page.name for page in DOCS.glob("*.md")} - {"index.md", "trust.md"} | named & {"trust.md"}
