"""Bad model files are one clear line; written files are deterministic and whole."""

import copy
import os

import numpy as np
import onnx
import onnx.external_data_helper
import pytest

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.graph import load
from csa_deploy.graph.load import load_model, require_static, save_model


@pytest.fixture
def model(build):
    return build("(float[1,3,4,4] x) => (float[1,8,4,4] y)", "y = Conv(x, w)", w=(8, 3, 1, 1))


@pytest.fixture
def external(model, tmp_path):
    """A model whose weights lie in ``w.bin``; returns its path and a function that renames the data's location."""
    path = tmp_path / "m.onnx"
    onnx.save_model(copy.deepcopy(model), path, save_as_external_data=True, location="w.bin", size_threshold=0)

    def relocate(key: str, value: str) -> None:
        stored = onnx.load(path, load_external_data=False)
        for entry in stored.graph.initializer[0].external_data:
            if entry.key == key:
                entry.value = value
        path.write_bytes(stored.SerializeToString())

    return path, relocate


def test_round_trip_is_exact_and_deterministic(model, tmp_path):
    save_model(model, tmp_path / "new" / "a.onnx")
    save_model(load_model(tmp_path / "new" / "a.onnx"), tmp_path / "b.onnx")
    assert (tmp_path / "new" / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.onnx"]


def test_large_weights_go_to_a_file_beside(build, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "EXTERNAL_DATA_FROM", 1000)
    model = build("(float[1,3,4,4] x) => (float[1,512,4,4] y)", "y = Conv(x, w)", w=(512, 3, 1, 1))
    for folder in ("a", "b"):
        save_model(model, tmp_path / folder / "m.onnx")
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["m.onnx", "m.onnx.data"]
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = load_model(tmp_path / "a" / "m.onnx")
    assert again.graph.initializer[0].raw_data == model.graph.initializer[0].raw_data


def test_external_data_is_read(external, model):
    assert load_model(external[0]).graph.initializer[0].raw_data == model.graph.initializer[0].raw_data


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "sub/../../w.bin"])
def test_external_data_outside_the_folder_is_refused(external, location):
    path, relocate = external
    relocate("location", location)
    with pytest.raises(UsageError, match="points outside"):
        load_model(path)


def test_external_data_through_a_link_is_refused(external, tmp_path):
    path, _ = external
    (tmp_path / "w.bin").rename(tmp_path.parent / "elsewhere.bin")
    (tmp_path / "w.bin").symlink_to(tmp_path.parent / "elsewhere.bin")
    with pytest.raises(UsageError, match="points outside"):
        load_model(path)


def test_external_data_missing_or_short(external, tmp_path):
    path, relocate = external
    relocate("length", "999999")
    with pytest.raises(UsageError, match="cut short: 999999 bytes named, 96 there"):
        load_model(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(UsageError, match=r"w\.bin' of tensor 'w' .* is missing"):
        load_model(path)


@pytest.mark.parametrize("length", ["-5", "many"])
def test_external_data_with_a_nonsense_length_is_refused(external, length):
    path, relocate = external
    relocate("length", length)
    with pytest.raises(UsageError, match="'w'"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no graph"), (b"hello, I am a text file\n" * 9, "not an ONNX model"), (None, "damaged or cut short")],
    ids=["empty", "text", "truncated"],
)
def test_not_onnx(model, tmp_path, content, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString()[:-40] if content is None else content)
    with pytest.raises(UsageError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UsageError, match="no such model file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="is not a file"):
        load_model(tmp_path)


def test_no_operator_set(model, tmp_path):
    del model.opset_import[:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="operator set"):
        load_model(tmp_path / "m.onnx")


def test_contradicting_shapes_are_refused_unless_asked_for(build, tmp_path):
    model = build("(float[1,3,4,4] x) => (float[1,8,9,9] y)", "y = Conv(x, w)", w=(8, 3, 1, 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="not a valid ONNX model"):
        load_model(tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx", full_check=False).graph.node[0].op_type == "Conv"


def test_an_undefined_value_is_refused(model, tmp_path):
    model.graph.node[0].input[0] = "nowhere"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="nowhere"):
        load_model(tmp_path / "m.onnx", full_check=False)


def test_more_than_one_message_holds(tmp_path):
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UsageError, match="larger than the 2 GB"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(model, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EnvironmentLacksError, match="cannot write"):
            save_model(model, tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError, match="cannot write"):
        save_model(model, tmp_path / "file" / "m.onnx")


def test_static_shapes_are_required(build):
    require_static(build("(float[1,3] x, int64 n) => (float[1,3] y)", "y = Relu(x)"))
    with pytest.raises(UsageError, match=r"input 'b' has no fixed size on axis 1 \('W'\)"):
        require_static(build("(float[1,3] a, float[1,W] b) => (float[1,W] y)", "y = Relu(b)"))
    with pytest.raises(UsageError, match="not a tensor of fixed shape"):
        require_static(build("(float[] a) => (float[] y)", "y = Relu(a)"))


def test_initializers_that_are_inputs_too_need_no_shape(build):
    model = build("(float[1,3] x, float[N,3] w) => (float[1,3] y)", "y = Add(x, w)", w=np.ones((1, 3), "f4"))
    require_static(model)
    del model.graph.initializer[:]
    with pytest.raises(UsageError, match=r"input 'w' has no fixed size on axis 0 \('N'\)"):
        require_static(model)
