"""A real sshd on loopback with throw-away keys."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csa_deploy.trtexec.config import TargetConfig


class Sshd:
    """A running sshd; ``config`` reaches it."""

    def __init__(self, folder: Path, program: str, environment: str = "") -> None:
        self.folder, self.program, self.process = folder, program, None
        for name in ("host", "user", "other"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        # With a level bash does not read ~/.bashrc, as it does for sshd: what stands there takes time, and some of it
        # waits for locks that sessions which a test cut have left (pyenv: a minute).
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"UsePAM no\nSetEnv SHLVL=1 {environment}\nLogLevel ERROR\nMaxStartups 50\nMaxSessions 50\n"
            f"PermitRootLogin prohibit-password\n"
        )
        self.know("host")
        self.client("user")

    def know(self, key: str) -> None:
        """Make a key the known one of this host."""
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {public}")

    def client(self, key: str) -> None:
        """Log in with a key."""
        (self.folder / "ssh_config").write_text(
            f"Host *\n IdentityFile {self.folder}/{key}\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {self.folder}/known\n GlobalKnownHostsFile /dev/null\n"
        )

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("sshd does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def cut(self) -> None:
        """Cut all connections, as a broken network does; jobs that left their session go on."""
        for session in sessions_of(self.process.pid):
            os.kill(session, signal.SIGKILL)

    def die(self) -> None:
        """Vanish with all connections, as a machine without power does."""
        sessions = sessions_of(self.process.pid)
        self.stop()
        for session in sessions:
            os.kill(session, signal.SIGKILL)

    def config(self, **settings: object) -> TargetConfig:
        given = {"host": "127.0.0.1", "port": self.port, "ssh_config": self.folder / "ssh_config", **settings}
        return TargetConfig(**given)


def sessions_of(listener: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(listener)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def running_sshd(folder: Path, environment: str = "") -> Iterator[Sshd]:
    """An sshd on loopback, whose sessions have these variables too (``NAME=VALUE ...``)."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server on this machine (package openssh-server)")
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    server = Sshd(folder, program, environment)
    server.start()
    yield server
    server.stop()
