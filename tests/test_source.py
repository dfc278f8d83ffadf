"""What a user may name as the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.source import Source, load_source, slug_of

NETS = """
import torch
from torch import nn
from csa_deploy.network import NetworkEntry, Preprocessing

def plain(): return nn.Conv2d(3, 4, 3)
def sized(input_size=(32, 48)): return nn.Conv2d(3, 4, input_size)
def strict(input_size):
    from csa_deploy.errors import UsageError
    if input_size[0] < 64: raise UsageError("too small for me")
    return nn.Conv2d(3, 4, 3)
def fails(): raise RuntimeError("no weights\\nhere")
def leaves(): raise SystemExit(3)
def text(): return "a string"
instance = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
number = 3

class Two(nn.Module):
    def __init__(self, examples):
        super().__init__()
        self.example_inputs = examples
    def forward(self, camera, speed):
        return {"path": camera.mean((1, 2, 3)) + speed[:, 0], "camera": [camera, speed]}

def two(): return Two((torch.zeros(1, 3, 8, 8), torch.zeros(1, 2)))
def two_named(): return Two({"cam": torch.zeros(4, 3, 8, 8), "v": torch.zeros(4, 2)})
def two_many(): return Two((torch.zeros(1),) * 3)
def two_wrong(): return Two({"cam": 1})

def grey():
    net = nn.Conv2d(1, 4, 3)
    net.preprocessing = {"size": (20, 30), "mode": "L", "mean": (0.5,), "std": (0.5,)}
    return net
def bad_preprocessing():
    net = nn.Conv2d(1, 4, 3)
    net.preprocessing = {"size": 3}
    return net
entry = NetworkEntry("entry", "s", sized, Preprocessing((16, 16), crop=1.0), "from nowhere", dataset="x")
"""


@pytest.fixture()
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def made(nets: Path, factory: str, **options: object) -> object:
    return load_source(f"{nets}:{factory}").make_network(**options)  # type: ignore[arg-type]


def test_a_registered_network() -> None:
    source = load_source("csa_digits")
    assert (source.kind, source.name, source.path) == ("registry", "csa_digits", None)
    network = source.make_network(batch=2)
    (spec,) = network.input_specs
    assert (spec.name, spec.shape, spec.dtype) == ("input", (2, 1, 32, 32), "float32")
    assert network.output_names == ("output",) and not network.module.training
    assert network.preprocessing is not None and network.preprocessing.classes == tuple("0123456789")


def test_a_registered_network_at_another_size() -> None:
    network = load_source("csa_digits", input_size=(32, 64)).make_network()
    assert network.input_specs[0].shape == (1, 1, 32, 64)
    with pytest.raises(UsageError, match="height 4 is too small"):
        load_source("csa_digits").make_network(input_size=(4, 32))


def test_a_factory_in_a_file(nets: Path) -> None:
    source = load_source(f"{nets}:plain")
    assert (source.kind, source.name, source.entry) == ("file", "nets-plain", None)
    network = source.make_network()
    assert network.input_specs[0].shape == (1, 3, 224, 224)
    again = load_source(f"{nets}:plain").make_network()
    assert torch.equal(network.module.weight, again.module.weight), "factories run with a fixed seed"


def test_a_factory_with_a_size(nets: Path) -> None:
    network = load_source(f"{nets}:sized", input_size=(16, 20)).make_network()
    assert network.module.kernel_size == (16, 20)
    assert network.input_specs[0].shape == (1, 3, 16, 20)


def test_a_network_entry_in_a_file(nets: Path) -> None:
    network = load_source(f"{nets}:entry").make_network()
    assert network.weights == "from nowhere" and network.input_specs[0].shape == (1, 3, 16, 16)
    assert network.preprocessing is not None and network.preprocessing.crop == 1.0


def test_a_module_instance(nets: Path) -> None:
    assert load_source(f"{nets}:instance").make_network().module.training is False


def test_preprocessing_of_the_module_and_of_the_file(nets: Path) -> None:
    network = load_source(f"{nets}:grey").make_network()
    assert network.input_specs[0].shape == (1, 1, 20, 30) and network.notes == ()
    nets.write_text(NETS + "\npreprocessing = Preprocessing((10, 12))\n")
    assert load_source(f"{nets}:plain").make_network().input_specs[0].shape == (1, 3, 10, 12)


def test_preprocessing_that_nobody_stated_is_called_assumed(nets: Path) -> None:
    network = load_source(f"{nets}:plain").make_network()
    assert network.preprocessing == Preprocessing((224, 224))
    assert (
        len(network.notes) == 1 and "states no preprocessing; assumed Preprocessing(size=(224, 224)" in network.notes[0]
    )
    assert load_source(f"{nets}:two").make_network().notes == ()  # takes no image


def test_several_inputs_and_outputs(nets: Path) -> None:
    network = load_source(f"{nets}:two").make_network(batch=3)
    assert [(s.name, s.shape) for s in network.input_specs] == [("camera", (3, 3, 8, 8)), ("speed", (3, 2))]
    assert network.output_names == ("path", "camera_0", "camera_1")
    assert network.preprocessing is None
    named = load_source(f"{nets}:two_named").make_network(batch=1)
    assert [(s.name, s.shape) for s in named.input_specs] == [("cam", (1, 3, 8, 8)), ("v", (1, 2))]


def test_a_factory_in_a_package_under_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mynets_pkg" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "mynets_pkg" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (tmp_path / "mynets_pkg" / "parts.py").write_text("WIDTH = 5\n")
    (package / "net.py").write_text(
        "from torch import nn\nfrom ..parts import WIDTH\ndef make(): return nn.Conv2d(3, WIDTH, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    source = load_source("mynets_pkg.inner.net:make")
    assert (source.kind, source.name) == ("module", "net-make")
    assert source.make_network().module.out_channels == 5
    before = source.fingerprint()
    (tmp_path / "mynets_pkg" / "parts.py").write_text("WIDTH = 6\n")
    assert source.fingerprint() != before


def test_a_file_imports_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_net.py").write_text("from torch import nn\ndef conv(): return nn.Conv2d(3, 7, 3)\n")
    (tmp_path / "net.py").write_text("def make():\n    from neighbour_of_net import conv\n    return conv()\n")
    path_before = list(sys.path)
    assert load_source(f"{tmp_path}/net.py:make").make_network().module.out_channels == 7
    assert sys.path == path_before


def test_a_checkpoint_replaces_the_weights(nets: Path, tmp_path: Path) -> None:
    module = nn.Conv2d(3, 4, 3)
    torch.save({"model": module.state_dict()}, tmp_path / "w.pth")
    source = load_source(f"{nets}:plain", checkpoint=tmp_path / "w.pth")
    network = source.make_network()
    assert torch.equal(network.module.weight, module.weight)
    assert network.weights == "w.pth (model)"
    assert source.fingerprint() != load_source(f"{nets}:plain").fingerprint()
    with pytest.raises(UsageError, match="no such checkpoint file"):
        load_source(f"{nets}:plain", checkpoint=tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("plan", "there is no 'plan'.*did you mean 'plain'"),
        ("fails", "fails: RuntimeError: no weights"),
        ("leaves", "fails: SystemExit: 3"),
        ("text", "returns a str, not a torch.nn.Module"),
        ("number", "is a int, not a factory"),
        ("Two", "fails: TypeError"),
        ("two_many", "3 example_inputs, but forward takes camera, speed"),
        ("two_wrong", "example_inputs cam are no tensors"),
        ("bad_preprocessing", "its preprocessing is not readable: TypeError"),
    ],
)
def test_factories_that_make_no_network(nets: Path, factory: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(nets, factory)
    assert "\n" not in str(caught.value)


def test_messages_of_the_factory_pass_through(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"^too small for me$"):
        made(nets, "strict", input_size=(32, 32))


def test_a_network_that_cannot_take_the_size(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"the network fails on input \(1, 3, 2, 2\): RuntimeError") as caught:
        made(nets, "plain", input_size=(2, 2))
    assert "\n" not in str(caught.value)


def test_code_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make(:\n")
    with pytest.raises(UsageError, match="importing it fails: SyntaxError"):
        load_source(f"{tmp_path}/net.py:make").make_network()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("convselfatn", "no such network.*did you mean 'convselfattn'"),
        ("{tmp}", "is a folder"),
        ("{tmp}/nets.py", "which factory in this file"),
        ("{tmp}/netz.py:plain", "no such file.*did you mean 'nets.py'"),
        ("{tmp}/none.onnx", "none.onnx: no such file"),
        ("{tmp}/notes.txt", "cannot be read from a file of this kind"),
        ("no_such_package.net:make", "no_such_package"),
        ("no_such_module:make", "no Python module is named no_such_module"),
        ("", "no network is named"),
    ],
)
def test_specs_that_name_nothing(nets: Path, spec: str, message: str) -> None:
    (nets.parent / "notes.txt").touch()
    with pytest.raises(UsageError, match=message) as caught:
        load_source(spec.format(tmp=nets.parent))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "slug"),
    [
        ("csa_digits", "csa_digits"),
        ("dir/net.py:make", "net-make"),
        ("a.b.net:make", "net-make"),
        ("dir/model v2.onnx", "model-v2"),
        ("../..", "network"),
    ],
)
def test_slugs(spec: str, slug: str) -> None:
    assert slug_of(spec) == slug


def test_fingerprint_follows_code_and_weights_beside_it(nets: Path) -> None:
    source = load_source(f"{nets}:plain")
    found = {source.fingerprint()}
    assert load_source(f"{nets}:plain").fingerprint() in found
    found.add(load_source(f"{nets}:sized").fingerprint())
    (nets.parent / "weights.pth").write_bytes(b"1")
    found.add(source.fingerprint())
    nets.write_text(NETS + "\n# changed\n")
    found.add(source.fingerprint())
    (nets.parent / "output.txt").touch()
    assert source.fingerprint() in found and len(found) == 4
    found.add(load_source(f"{nets}:plain", input_size=(32, 32)).fingerprint())
    assert len(found) == 5


def test_fingerprint_holds_elsewhere(tmp_path: Path) -> None:
    prints = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "nets.py").write_text(NETS)
        prints.append(load_source(f"{folder}/nets.py:plain").fingerprint())
    assert prints[0] == prints[1]


@pytest.fixture()
def model(tmp_path: Path) -> Source:
    """An ONNX file with its weights in a file of their own."""
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="net.data", size_threshold=0)
    return load_source(str(path))


def test_an_onnx_file(model: Source) -> None:
    assert (model.kind, model.name) == ("onnx", "net")
    with pytest.raises(UsageError, match="has no PyTorch module"):
        model.make_network()
    assert model.path is not None
    before, data = model.fingerprint(), model.path.with_suffix(".data")
    data.write_bytes(data.read_bytes()[::-1])
    assert model.fingerprint() != before


def test_fingerprint_of_a_damaged_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("not onnx")
    assert len(load_source(str(tmp_path / "net.onnx")).fingerprint()) == 64


def test_finding_a_network_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    code = (
        "import sys; from csa_deploy.source import load_source\n"
        "load_source('convselfattn').fingerprint(); load_source(sys.argv[1])\n"
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.onnx")], check=True)
