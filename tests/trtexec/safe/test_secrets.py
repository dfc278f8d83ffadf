"""The text of remote tuning, and passwords: refused where they are given, masked where another program prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csa_deploy.errors import UsageError
from csa_deploy.trtexec.config import load_target
from csa_deploy.trtexec.safe.remote_config import RemoteConfig, parse_remote_config
from csa_deploy.trtexec.safe.secrets import masked, masked_value, masked_words

SECRET = "Xq7-hunter2"
TEXT = "ssh://nvidia@thor:22?remote_exec_path=/opt/tensorrt/bin&remote_lib_path=/opt/tensorrt/lib"


def test_the_text_goes_both_ways() -> None:
    config = parse_remote_config(TEXT)
    assert config == RemoteConfig("nvidia", "thor", "/opt/tensorrt/bin", "/opt/tensorrt/lib")
    assert config.text == TEXT
    assert config.masked == TEXT.replace("nvidia", "***")
    asked = parse_remote_config(TEXT.replace("nvidia", "nvidia:PROMPT"))
    assert asked.prompts and asked.text == TEXT.replace("nvidia@", "nvidia:PROMPT@")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("nvidia", f"nvidia:{SECRET}"), "holds a password"),
        (TEXT.replace("nvidia", f"nvidia:{SECRET}@{SECRET}"), "holds a password"),
        (TEXT.replace("nvidia", "nvidia:"), "holds a password"),
        (TEXT.replace("ssh:", "http:"), "does not begin with ssh"),
        (TEXT.replace("nvidia@", ""), "names no user"),
        (TEXT.replace("nvidia", "-oProxyCommand=x"), "user '-oProxyCommand=x' cannot be given"),
        (TEXT.replace("thor", "-thor"), "host '-thor' cannot be given"),
        (TEXT.replace("thor", "th$(id)or"), "cannot be given"),
        (TEXT.replace("/opt/tensorrt/bin", "/opt/`id`"), "remote_exec_path"),
        (TEXT.replace("/opt/tensorrt/bin", "/opt/a b"), "remote_exec_path"),
        (TEXT.replace("/opt/tensorrt/lib", "/opt/l;rm"), "remote_lib_path"),
        (TEXT.replace("/opt/tensorrt/lib", "opt/lib"), "remote_lib_path"),
        (TEXT.replace(":22", ":0"), "port 0"),
        (TEXT.replace(":22", ":x"), "port is no number"),
        (TEXT.partition("&")[0], "lacks remote_lib_path"),
        (TEXT.partition("?")[0], "lacks remote_exec_path"),
        (TEXT + "&remote_lib_path=/x", "twice"),
        (TEXT + "&timeout=30", "parameter 'timeout'"),
    ],
)
def test_what_is_refused_and_never_shown(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_remote_config(text)
    assert message in caught.value.message
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


_PART = st.text(st.characters(codec="utf-8", exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)


@given(_PART, st.text(st.sampled_from("abcXYZ019:@/?&=!$'\"%"), min_size=4))
def test_no_password_survives(user: str, password: str) -> None:
    """Whatever characters a password has, other than a space in running text, it is not in what is shown."""
    text = f"ssh://u:{password}@host:22?remote_exec_path=/b&remote_lib_path=/l"
    kept = "ssh://***@host:22?remote_exec_path=/b&remote_lib_path=/l"
    assert masked_words([f"--remoteAutoTuningConfig={text}"]) == (f"--remoteAutoTuningConfig={kept}",)
    assert masked(f"[I] {user} # trtexec --remoteAutoTuningConfig={text} --safe").endswith(
        f"--remoteAutoTuningConfig={kept} --safe"
    )
    with pytest.raises(UsageError) as caught:
        parse_remote_config(text)
    assert f":{password}@" not in str(caught.value)


def test_a_space_in_a_password_hides_it_in_an_argument() -> None:
    assert masked_words(["--remoteConfig=ssh://u:a b@h:22?x"]) == ("--remoteConfig=ssh://***@h:22?x",)


@pytest.mark.parametrize("text", ["", "no credentials", "https://docs.nvidia.com/a?b=c", "me@there", "a : b @ c"])
def test_other_texts_stay(text: str) -> None:
    assert masked(text) == text


def test_values_of_a_file() -> None:
    assert SECRET not in masked_value(f"me:{SECRET}@thor")
    assert masked_value("thor.local") == "'thor.local'"


BASE = (
    "host: thor\nuser: nvidia\nbuild: host\nremote_exec_path: /opt/tensorrt/bin\nremote_lib_path: /opt/tensorrt/lib\n"
)


def target(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "thor.yaml"
    path.write_text(text)
    return path


def test_a_host_build_is_described_by_the_target(tmp_path: Path) -> None:
    config = load_target(target(tmp_path, BASE + "host_trtexec: trt/bin/trtexec\n"))
    assert config.tuned_by.text == TEXT
    assert config.host_trtexec == tmp_path / "trt" / "bin" / "trtexec"
    assert load_target(target(tmp_path, BASE + "port: 2222\nremote_password: PROMPT\n")).tuned_by.text == TEXT.replace(
        "nvidia@thor:22", "nvidia:PROMPT@thor:2222"
    )
    assert load_target(target(tmp_path, f"host: thor\nbuild: host\nremote_config: {TEXT}\n")).tuned_by.text == TEXT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + f"remote_password: {SECRET}\n", "a password in a file is not taken"),
        (f"host: thor\nbuild: host\nremote_config: {TEXT.replace('nvidia', 'nvidia:' + SECRET)}\n", "holds a password"),
        (f"host: nvidia:{SECRET}@thor\n", "host: not a host name"),
        (f"host: thor\nremote_config: ssh://u:{SECRET}@h: x\n", "not valid YAML"),
        (f"host: thor\nuser: nvidia:{SECRET}@thor\n", "user: not a login name"),
        (BASE.replace("user: nvidia\n", ""), "build: host needs user"),
        (BASE.replace("remote_lib_path: /opt/tensorrt/lib\n", ""), "build: host needs remote_lib_path"),
        (BASE + f"remote_config: {TEXT}\n", "say the same"),
        (BASE.replace("build: host\n", ""), "remote_exec_path counts with build: host only"),
        (BASE + "safety_plugins: [{build: libp.so, run: 'libp.so[::N]'}]\n", "no LIBRARY[NS::NAME"),
        (BASE + "safety_plugins: [{build: 'a[::N]', run: 'b[::M]'}]\n", "name other creators"),
        (BASE + "safety_plugins: [{build: 'a[::N]'}]\n", "needs build: and run:"),
        (BASE + "build_hours: 0\n", "build_hours"),
        (BASE.replace("build: host", "build: cloud"), "build: "),
    ],
)
def test_files_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_target(target(tmp_path, text))
    assert message in caught.value.message
    assert SECRET not in str(caught.value) and "\n" not in caught.value.message
