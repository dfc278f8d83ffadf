from pathlib import Path

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.restricted.conditions import evaluate, lookup
from csa_deploy.restricted.schema import PACK_FOLDER, load_pack, pack_files, read_pack, scopes

HEAD = 'schema_version = 1\nscope = "{scope}"\ntitle = "t"\ntensorrt = "{version}"\n'
RULE = (
    '[[rules]]\nid = "{id}"\nlayer = "{layer}"\nverdict = "denied"\nmessage = "m"\nevidence = "sample"\nsource = "s"\n'
)


def write(folder: Path, name: str, extra: str = "", version: str = "8.6.11", **rules: str) -> None:
    text = HEAD.format(scope=name.strip("_").replace("_", "-"), version=version) + extra
    for rule, layer in rules.items():
        text += RULE.format(id=rule, layer=layer)
    (folder / f"{name}.toml").write_text(text)


@pytest.mark.parametrize("scope", list(pack_files()))
@pytest.mark.shows("MEA-01")
def test_every_pack_is_valid_and_says_where_each_rule_comes_from(scope):
    pack = load_pack(scope)
    assert pack.rules
    for rule in pack.rules:
        assert rule.source and rule.evidence
        assert rule.message[0] != "{" or rule.message.count("{") == rule.message.count("}")


def test_the_scopes_of_the_command_line_have_packs():
    assert {"drive-os-6", "drive-os-6.0.9", "drive-os-7", "dla-orin", "dla-xavier", "trt-11"} <= set(scopes())


def test_adding_a_version_means_adding_a_file(tmp_path):
    for name, path in pack_files().items():
        (tmp_path / path.name).write_text(path.read_text())
        assert name
    write(tmp_path, "drive_os_6.1", 'extends = "drive-os-6"\ndrop = ["reduce"]\n', version="8.6.14")
    assert "drive-os-6.1" in scopes(tmp_path)
    pack = load_pack("drive-os-6.1", tmp_path)
    assert "reduce" not in {rule.id for rule in pack.rules}
    assert "resize.sizes" in {rule.id for rule in pack.rules}


def test_a_rule_of_the_same_id_replaces_the_inherited_one_and_versions_select(tmp_path):
    write(tmp_path, "_base", RULE.format(id="old", layer="REDUCE") + 'until = "8.6.11"\n', same="LRN", kept="EINSUM")
    write(tmp_path, "later", 'extends = "base"\n', version="8.6.12", same="TOPK")
    rules = {rule.id: rule for rule in load_pack("later", tmp_path).rules}
    assert rules["same"].layer == ("TOPK",)
    assert set(rules) == {"same", "kept"}
    assert "base" not in scopes(tmp_path)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("colour = 1\n", "colour"),
        (RULE.format(id="a", layer="REDUCEX"), "REDUCEX"),
        (RULE.format(id="a", layer="LRN") + "when = { kernels = 1 }\n", "kernels"),
        (RULE.format(id="a", layer="LRN") + "when = { kernel = { bigger = 1 } }\n", "bigger"),
        (RULE.format(id="a", layer="LRN") + 'when = { "kernel.mox" = 1 }\n', "mox"),
        (RULE.format(id="a", layer="LRN") + 'unless = { kernel = { lt = "$kernul" } }\n', "kernul"),
        (RULE.format(id="a", layer="LRN").replace("sample", "hearsay"), "hearsay"),
        (RULE.format(id="a", layer="LRN").replace("denied", "perhaps"), "verdict"),
        (RULE.format(id="a", layer="LRN") * 2, "twice"),
        ("rules = 3", "rules"),
        ("= broken", "line"),
    ],
)
def test_a_pack_with_an_error_is_refused_by_name(tmp_path, extra, word):
    write(tmp_path, "bad", extra)
    with pytest.raises(UsageError, match=word) as caught:
        read_pack(tmp_path / "bad.toml")
    assert "bad.toml" in str(caught.value)
    assert "\n" not in caught.value.message.strip()


def test_an_unknown_scope_names_the_known_ones():
    with pytest.raises(UsageError, match="drive-os-5") as caught:
        load_pack("drive-os-5")
    assert "drive-os-6" in str(caught.value)


def test_packs_that_extend_one_another_in_a_circle_are_refused(tmp_path):
    write(tmp_path, "a", 'extends = "b"\n')
    write(tmp_path, "b", 'extends = "a"\n')
    with pytest.raises(UsageError, match="extends itself"):
        load_pack("a", tmp_path)


def test_dropping_a_rule_that_is_not_inherited_is_an_error(tmp_path):
    write(tmp_path, "_base", one="LRN")
    write(tmp_path, "child", 'extends = "base"\ndrop = ["two"]\n')
    with pytest.raises(UsageError, match="two"):
        load_pack("child", tmp_path)


FACTS = {"kernel": [3, 5], "pad": None, "pre_padding": [1, 5], "kind": "MAX", "in_shape": [[1, 2, 3]], "dynamic": False}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, True),
        ({"kind": "MAX"}, True),
        ({"kind": ["MIN", "MAX"]}, True),
        ({"kind": "MIN"}, False),
        ({"dynamic": False}, True),
        ({"kernel": {"ge": 1, "le": 32}}, True),
        ({"kernel": {"le": 4}}, False),
        ({"kernel": {"any": {"le": 4}}}, True),
        ({"kernel": {"any": 7}}, False),
        ({"kernel": [3, 5, 7]}, True),
        ({"kernel": 3}, False),
        ({"kernel": {"is": [3, 5]}}, True),
        ({"kernel": {"multiple_of": 3}}, False),
        ({"kernel.max": {"gt": 4}}, True),
        ({"kernel.len": 2, "kernel.prod": 15, "kernel.last": 5, "kernel.0": 3}, True),
        ({"kernel.7": 3}, None),
        ({"pre_padding": {"lt": "$kernel"}}, False),
        ({"kernel.0": {"lt": "$kernel.1"}}, True),
        ({"in_shape.0.2": 3}, True),
        ({"in_shape": {"le": 3}}, True),
        ({"in_shape": {"le": 2}}, False),
        ({"pad": 1}, None),
        ({"pad": {"known": False}}, True),
        ({"pad": 1, "kind": "MIN"}, False),
        ({"any": [{"pad": 1}, {"kind": "MAX"}]}, True),
        ({"any": [{"pad": 1}, {"kind": "MIN"}]}, None),
        ({"all": [{"kind": "MAX"}, {"dynamic": True}]}, False),
        ({"not": {"kind": "MAX"}}, False),
        ({"not": {"pad": 1}}, None),
        ({"kind": {"ge": 3}}, None),
        ({"kind": {"not_in": ["MIN"]}}, True),
    ],
)
@pytest.mark.shows("MEA-01")
def test_conditions_decide_in_three_values(condition, expected):
    assert evaluate(condition, FACTS) is expected


def test_lookup_of_a_list_with_an_unknown_element():
    assert lookup({"in_shape": [[1, None]]}, "in_shape.0.max") is None
    assert lookup({"in_shape": [[1, None]]}, "in_shape.0.0") == 1


def test_the_folder_of_the_packs_holds_nothing_else():
    assert {path.suffix for path in PACK_FOLDER.iterdir()} <= {".toml"} | {
        path.suffix for path in PACK_FOLDER.glob("drive_os_7*")
    }
