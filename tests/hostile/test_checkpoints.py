"""Checkpoints from outside: what is no plain weight is refused in one line, in bounded time and memory."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from csa_deploy.checkpoint import load_checkpoint
from csa_deploy.errors import UsageError
from csa_deploy.memory import peak_memory


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def weights(**changed: Any) -> dict[Any, Any]:
    """Weights that fit, some replaced: ``w`` stands for the convolution's."""
    named = {{"w": "0.weight", "b": "0.bias"}.get(name, name): value for name, value in changed.items()}
    return {**network().state_dict(), **named}


def refused(path: Path, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load_checkpoint(network(), path)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line and len(line) < 1500


def saved(content: object, folder: Path, *, legacy: bool = False) -> Path:
    path = folder / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_weights_that_fit_are_taken(tmp_path: Path) -> None:
    assert load_checkpoint(network(), saved(weights(), tmp_path))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("key", [7, b"0.weight", ("a", 1), None, 1.5, True], ids=repr)
def test_keys_that_are_no_names(key: object, wrapped: bool, legacy: bool, tmp_path: Path) -> None:
    content = {**weights(), key: torch.zeros(1)}
    path = saved({"model": content} if wrapped else content, tmp_path, legacy=legacy)
    refused(path, "1 keys are no names")


def test_names_with_line_ends_or_of_any_length_make_one_line(tmp_path: Path) -> None:
    refused(saved(weights(**{"a\nb": torch.zeros(1)}), tmp_path), "1 unexpected")
    refused(saved(weights(**{"n" * 10**6: torch.zeros(1)}), tmp_path), "1 unexpected")


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "meta": lambda: torch.zeros(2, 1, 3, 3, device="meta"),
    "sparse": lambda: torch.zeros(2, 1, 3, 3).to_sparse(),
    "sparse rows": lambda: torch.zeros(3, 3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2, 1, 3, 3), 0.1, 0, torch.qint8),
    "FP8": lambda: torch.zeros(2, 1, 3, 3).to(torch.float8_e4m3fn),
    "FP8 of five bits": lambda: torch.zeros(2, 1, 3, 3).to(torch.float8_e5m2),
}
if hasattr(torch, "float4_e2m1fn_x2"):
    ODD["FP4"] = lambda: torch.zeros(2, 1, 3, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


@pytest.mark.parametrize("name", ["0.weight", "elsewhere"])
@pytest.mark.parametrize("kind", ODD)
def test_tensors_without_plain_values(kind: str, name: str, tmp_path: Path) -> None:
    try:
        path = saved(weights(**{name: ODD[kind]()}), tmp_path)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        pytest.skip(f"this torch does not save it: {error}")
    refused(path, "tensors have no plain values|cannot be read as a checkpoint|to load it means to run code")


@pytest.mark.parametrize("elements", [2**33, 2**40])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "elsewhere"])
def test_one_element_that_stands_for_many_is_not_looked_into(elements: int, name: str, tmp_path: Path) -> None:
    before, start = peak_memory(), time.process_time()
    path = saved(weights(**{name: torch.zeros(1).expand(elements)}), tmp_path)
    refused(path, "1 unexpected" if name == "elsewhere" else "1 mis-shaped")
    assert peak_memory() - before < 2**30 and time.process_time() - start < 20


@pytest.mark.parametrize("name", ["0.weight", "elsewhere"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_three_hundred_dimensions(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    state = weights(**{name: torch.zeros([1] * 300)})
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    refused(path, r"1 unexpected|1 mis-shaped \(0.weight 1x1x1x1x1x1x1x1x... instead of 2x1x3x3\)")


@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_complex_weights_are_never_cut_to_their_real_part(value: float, tmp_path: Path) -> None:
    odd = torch.full((2, 1, 3, 3), complex(value, 1))
    refused(saved(weights(w=odd), tmp_path), r"1 complex \(0.weight\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_weights_that_are_not_finite(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    refused(saved(weights(b=torch.full((2,), value, dtype=dtype)), tmp_path), r"1 not finite \(0.bias\)")


def pickled_archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", data)
        archive.writestr("w/version", "3\n")
    return path


class Persistent(pickle.Pickler):
    """Writes storages under whatever name is asked for."""

    def __init__(self, file: io.BytesIO, name: object) -> None:
        super().__init__(file, protocol=2)
        self.name = name

    def persistent_id(self, value: object) -> object:
        return self.name if isinstance(value, range) else None


@pytest.mark.parametrize("name", [("storage",), (1, 2, 3, 4, 5), (("a",), "b"), "text", ("storage", 1, "0", "cpu", -5)])
def test_a_storage_under_an_odd_name(name: object, tmp_path: Path) -> None:
    data = io.BytesIO()
    Persistent(data, name).dump({"0.weight": range(3)})
    refused(pickled_archive(tmp_path / "w.pth", data.getvalue()), "")


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    path, zeros = tmp_path / "w.pth", bytes(1 << 24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}))
        for number in range(17):
            archive.writestr(f"w/data/{number}", zeros)
    before = peak_memory()
    refused(path, r"MiB that unpack to 272 MiB")
    assert peak_memory() - before < 2**27


@pytest.mark.slow
def test_a_key_whose_hash_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuple of one tuple twice, and so on: Python hashes 2^40 of them."""
    monkeypatch.setattr("csa_deploy.graph.guard.MOST_SECONDS", 1)
    data = b"\x80\x02})" + b"".join(
        b"q" + struct.pack("B", n) + b"h" + struct.pack("B", n) + b"\x86" for n in range(40)
    )
    refused(pickled_archive(tmp_path / "w.pth", data + b"K\x01s."), "takes more than 1 s")


def test_a_damaged_pickle_of_a_foreign_call_is_one_line(tmp_path: Path) -> None:
    refused(
        pickled_archive(tmp_path / "w.pth", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
        "refused|cannot be read",
    )
    refused(pickled_archive(tmp_path / "w.pth", b"\x80\x02cos\nsystem\n"), "refused|cannot be read")
