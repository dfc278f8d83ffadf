"""Runs shell scripts on a target: in a shell of this machine, or over OpenSSH.

Everything else about targets is written in terms of this, so that the same code serves both. A script is POSIX sh;
its values are passed as arguments, never pasted into its text.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.config import TargetConfig

_logger = logging.getLogger(__name__)
_SSH_FAILED = 255


class UnreachableError(EnvironmentLacksError):
    """There is no way to the target."""


class ConnectionLostError(UnreachableError):
    """The connection broke; trying again may help."""


@dataclass(frozen=True)
class Completed:
    """A script that ran: exit status and what it printed."""

    status: int
    output: bytes
    complaint: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.output.decode(errors="replace").strip()


class Transport(Protocol):
    """A way to run scripts on a target. Use it as a context manager.

    Attributes:
        name: the target, for messages.
    """

    name: str

    def command(self, script: str, *arguments: str) -> list[str]:
        """The local command that runs a script on the target with positional arguments."""

    def login(self) -> list[str]:
        """The command by which a person runs one there; empty for this machine."""

    def failure(self, status: int, complaint: str) -> UnreachableError | None:
        """What a failed command means when the way to the target is the cause; None when the script failed."""

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def run_script(transport: Transport, script: str, *arguments: str, data: bytes = b"") -> Completed:
    """Run a script to its end.

    Raises:
        UnreachableError: the target cannot be reached.
        ConnectionLostError: the connection broke.
    """
    done = subprocess.run(
        transport.command(script, *arguments),
        input=data,
        capture_output=True,
        check=False,
        start_new_session=True,
        env=unasked(),
    )
    complaint = done.stderr.decode(errors="replace").strip()
    failure = transport.failure(done.returncode, complaint)
    if failure is not None:
        raise failure
    return Completed(done.returncode, done.stdout, complaint)


def unasked() -> dict[str, str]:
    """Environment of ssh commands, which are also started in a session of their own: no terminal, nothing to ask at.

    ``BatchMode`` says so to the connection to the target only, not to those that reach it through a jump host.
    """
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


class LocalTransport:
    """This machine."""

    name = "this machine"

    def command(self, script: str, *arguments: str) -> list[str]:
        """``sh -c`` here."""
        return ["sh", "-c", script, "csa-deploy", *arguments]

    def login(self) -> list[str]:
        """None."""
        return []

    def failure(self, status: int, complaint: str) -> UnreachableError | None:
        """Never."""
        return None

    def __enter__(self) -> LocalTransport:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


# What ssh says -> what it means, what to do. In order; the rest is a lost connection.
_REFUSALS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known: another machine answers, or it was set up anew",
        "ask its owner; only then remove the old key with `ssh-keygen -R`",
    ),
    (r"Host key verification failed", "its host key is not known yet", "log in once with ssh and compare the key"),
    (
        r"Permission denied \(",
        "the login is refused",
        "set up a key (`ssh-copy-id`) or start ssh-agent; passwords are not asked for",
    ),
    (r"Could not resolve hostname", "the name is not known", "correct host: in the target's file"),
    (r"Connection refused", "nothing listens on that port", "start sshd there, or correct port:"),
    (r"Bad configuration option|Can't open user config", "ssh does not take its configuration", "correct that file"),
    (r"Connection timed out|No route to host|Network is unreachable", "it does not answer", "check power and network"),
)


class SshTransport:
    """A target over OpenSSH: the user's configuration, agent and known hosts count.

    One connection is shared by all commands. Passwords are never asked for and unknown host keys never accepted.

    Raises:
        EnvironmentLacksError: no ssh on this machine.
    """

    def __init__(self, config: TargetConfig) -> None:
        if shutil.which("ssh") is None:
            raise EnvironmentLacksError("no ssh on this machine", fix="install an OpenSSH client")
        self.name = f"{config.name} (through {config.jump})" if config.jump else config.name
        self._config = config
        self._control: str | None = None

    def command(self, script: str, *arguments: str) -> list[str]:
        """ssh with the script as one quoted word."""
        remote = shlex.join(["sh", "-c", script, "csa-deploy", *arguments])
        return ["ssh", *self._options(), "--", self._config.host, remote]

    def login(self) -> list[str]:
        """``ssh [-F FILE] [-l USER] [-p PORT] [-J HOST] HOST``."""
        config = self._config
        given = {"-F": config.ssh_config, "-l": config.user, "-p": config.port, "-J": config.jump}
        return ["ssh", *(str(word) for key, value in given.items() if value for word in (key, value)), config.host]

    def _options(self, *, shared: bool = True) -> list[str]:
        config = self._config
        words = ["-T", "-F", str(config.ssh_config)] if config.ssh_config else ["-T"]
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ForwardAgent": "no",
        }
        if shared and self._control is not None:
            settings |= {"ControlMaster": "auto", "ControlPath": f"{self._control}/%C", "ControlPersist": "60"}
        words += [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        words += ["-l", config.user] if config.user else []
        words += ["-p", str(config.port)] if config.port else []
        return [*words, *(["-J", config.jump] if config.jump else [])]

    def failure(self, status: int, complaint: str) -> UnreachableError | None:
        """ssh's own failures; scripts never end with its status."""
        if status != _SSH_FAILED and status >= 0:
            return None
        said = complaint if self._config.jump is None else f"{complaint}\n{self._words_of_the_jump_host()}"
        for pattern, cause, cure in _REFUSALS:
            if re.search(pattern, said):
                return UnreachableError(f"{self.name} cannot be reached: {cause}", fix=cure)
        last = complaint.splitlines()[-1] if complaint else f"ssh ended with status {status}"
        return ConnectionLostError(f"the connection to {self.name} broke: {last}", fix="run the command again")

    def _words_of_the_jump_host(self) -> str:
        """What ssh keeps to itself where connections are shared: why there is no way through the jump host."""
        words = ["ssh", *self._options(shared=False), "--", self._config.host, "true"]
        done = subprocess.run(words, capture_output=True, check=False, start_new_session=True, env=unasked())
        return done.stderr.decode(errors="replace")

    def __enter__(self) -> SshTransport:
        """Prepare the shared connection; it is made by the first command."""
        self._control = tempfile.mkdtemp(prefix="csa-")  # short: a socket's path has at most 107 bytes
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the shared connection."""
        with suppress(OSError):
            words = ["ssh", *self._options(), "-O", "exit", "--", self._config.host]
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self._control or os.devnull, ignore_errors=True)
        self._control = None


def open_transport(config: TargetConfig | None) -> Transport:
    """The way to a target; None is this machine."""
    return LocalTransport() if config is None else SshTransport(config)
