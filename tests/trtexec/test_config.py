"""A target's file: what is refused, by name; and what a target is found to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.config import TargetConfig, load_target
from csa_deploy.trtexec.machine import open_machine


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "target.yaml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "host: orin.local\nuser: nvidia\nport: 2222\njump: me@gate:22\nssh_config: ssh/config\nworkdir: /data/csa/\n"
        "platform: drive-orin\ntensorrt: 8.6\ntrtexec: /usr/src/tensorrt/bin/trtexec\npower_mode: MAXN\n"
        "environment: {LD_LIBRARY_PATH: /opt/trt/lib}\n",
    )
    config = load_target(path)
    assert (config.name, config.tensorrt, config.workdir) == ("nvidia@orin.local", "8.6", "/data/csa")
    assert config.ssh_config == tmp_path / "ssh" / "config"  # beside the target's file
    assert "orin.local" not in str(config.to_json())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "host: Field required"),
        ("- h", "a mapping of keys"),
        ("- host", "a mapping of keys"),
        ("host: [", "not valid YAML"),
        ("user: me", "host: Field required"),
        ("host: -oProxyCommand=touch_x", "host: not a host name"),
        ("host: a b", "host: not a host name"),
        ("host: h\nuser: -l", "user: not a login name"),
        ("host: h\njump: -oProxyCommand=x", "jump: not"),
        ("host: h\nport: 70000", "port: "),
        ("host: h\nworkdir: relative", "workdir: not an absolute path"),
        ("host: h\nworkdir: /", "workdir: not an absolute path"),
        ("host: h\nenvironment: {'A=B; rm': x}", "no name of an environment variable"),
        ("host: h\nplatform: toaster", "platform: "),
        ("host: h\ntensorrt: 10.10", "tensorrt: put it in quotes"),
        ("hots: h", "unknown key 'hots', did you mean 'host'"),
    ],
)
def test_what_is_refused_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_target(written(tmp_path, text))
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such target file"):
        load_target(tmp_path / "missing.yaml")


def fake_root(folder: Path) -> str:
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "usr/local/cuda/version.json": '{ "cuda" : { "name" : "CUDA SDK",\n "version" : "12.6.68" } }\n',
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n",
        "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def test_what_a_target_is(sshd, trtexec: Callable[[str], Path], tmp_path: Path) -> None:
    config = sshd.config(trtexec=str(trtexec("10.3.0")), platform="jetson-orin")
    with open_machine(config, root=fake_root(tmp_path)) as machine:
        assert (
            machine.to_json().items()
            >= {
                "platform": "jetson-orin",
                "tensorrt": "10.3.0",
                "board": "NVIDIA Jetson AGX Orin Developer Kit",
                "l4t": "# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic",
                "cuda": "12.6.68",
                "driver": "540.4.0",
            }.items()
        )
        assert machine.facts.clocks == {
            "clock_17000000.gpu": "1300500000",
            "governor_17000000.gpu": "nvhost_podgov",
        }
        assert "--stronglyTyped" in machine.listed
        assert "127.0.0.1" not in str(machine.to_json())


def refused(config: TargetConfig) -> str:
    with pytest.raises((UsageError, EnvironmentLacksError)) as caught, open_machine(config):
        pass
    return caught.value.message


def test_a_target_that_is_not_as_stated(sshd, trtexec: Callable[[str], Path], tmp_path: Path) -> None:
    path = str(trtexec("10.3.0"))
    assert "has TensorRT 10.3.0, its file states 8.6" in refused(sshd.config(trtexec=path, tensorrt="8.6"))
    assert "states 10.3.1" in refused(sshd.config(trtexec=path, tensorrt="10.3.1"))
    assert "power mode cannot be read" in refused(sshd.config(trtexec=path, power_mode="MAXN"))
    assert "no trtexec /missing/trtexec" in refused(sshd.config(trtexec="/missing/trtexec"))
    assert "TensorRT 9.2.0 is refused: its options are not known" in refused(sshd.config(trtexec=str(trtexec("9.2.0"))))
    broken = tmp_path / "trtexec"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libnvinfer.so.10'\nexit 127\n")
    broken.chmod(0o755)
    assert "does not tell its version; it says: error while loading" in refused(sshd.config(trtexec=str(broken)))
