"""What docs/models.md claims."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from csa_deploy.complexity import count
from csa_deploy.source import load_source

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_example_is_a_network(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "lanes.py").write_text(code[1])
    network = load_source(f"{tmp_path}/lanes.py:make").make_network(batch=2)
    assert [s.shape for s in network.input_specs] == [(2, 3, 96, 160), (2, 1)]
    assert network.output_names == ("lanes",)


@pytest.mark.parametrize(
    "name", ["convselfattn", "convselfattn_pad1", "csa_digits", "csa_segmentation", "csa_detection"]
)
def test_the_sizes_in_the_table(name: str) -> None:
    network = load_source(name).make_network()
    complexity = count(network.module, list(network.inputs.values()))
    assert f"| `{name}` | {complexity.parameters:,} | {complexity.macs:,} |" in PAGE.read_text()
