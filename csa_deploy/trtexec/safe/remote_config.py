"""The text that tells TensorRT's builder on a host which target times its kernels.

``ssh://USER[:PROMPT]@HOST:PORT?remote_exec_path=DIR&remote_lib_path=DIR`` (help page of trtexec from 10.13). Its parser
is in a closed library and nothing says how a character would be escaped, so characters with a meaning are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from csa_deploy.errors import UsageError
from csa_deploy.trtexec.safe.secrets import MASK, masked_value

PROMPT = "PROMPT"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # never a leading dash: ssh would take it for an option
_PATH = re.compile(r"/[A-Za-z0-9_.,+/-]*")
_PARAMETERS = ("remote_exec_path", "remote_lib_path")  # all that public sources name
_EXAMPLE = "ssh://nvidia@thor.local:22?remote_exec_path=/opt/tensorrt/bin&remote_lib_path=/opt/tensorrt/lib"


@dataclass(frozen=True)
class RemoteConfig:
    """Which target times the kernels of a build, and how it is reached.

    Attributes:
        user: login name; TensorRT does not read the user's ssh configuration, so that it has to be stated.
        host: name or address.
        exec_path: directory there of NVIDIA's remote tuning program (whether it may be the program itself is not
            documented).
        lib_path: directory there of its libraries.
        prompts: TensorRT asks for the password at the terminal; else a key or an agent logs in.

    Raises:
        UsageError: a part with a character that has a meaning in the text or in a shell, named.
    """

    user: str
    host: str
    exec_path: str
    lib_path: str
    port: int = 22
    prompts: bool = False

    def __post_init__(self) -> None:
        for what, value, pattern in (
            ("user", self.user, _NAME),
            ("host", self.host, _NAME),
            ("remote_exec_path", self.exec_path, _PATH),
            ("remote_lib_path", self.lib_path, _PATH),
        ):
            if not pattern.fullmatch(value):
                raise UsageError(
                    f"remote tuning: {what} {masked_value(value)} cannot be given to TensorRT: it is empty, begins "
                    "with a dash, is no absolute path or holds a character with a meaning",
                    fix="use letters, digits, dots, dashes and underscores (and slashes in a path)",
                )
        if not 1 <= self.port <= 65535:
            raise UsageError(f"remote tuning: port {self.port} is none", fix="give a port from 1 to 65535")

    @property
    def text(self) -> str:
        """As TensorRT takes it. It holds no secret."""
        return self._text(f"{self.user}:{PROMPT}" if self.prompts else self.user)

    @property
    def masked(self) -> str:
        """As it is kept: without the login."""
        return self._text(MASK)

    def _text(self, login: str) -> str:
        paths = f"remote_exec_path={self.exec_path}&remote_lib_path={self.lib_path}"
        return f"ssh://{login}@{self.host}:{self.port}?{paths}"


def parse_remote_config(text: str) -> RemoteConfig:
    """A text of the user's, every part checked.

    Raises:
        UsageError: another scheme, a part missing or given twice, a character with a meaning, or a password.
    """
    scheme, separator, rest = text.partition("://")
    if scheme != "ssh" or not separator:
        raise _unreadable("it does not begin with ssh://")
    login, at, place = rest.rpartition("@")
    user, colon, password = login.partition(":")
    if not at or not user:
        raise _unreadable("it names no user")
    if colon and password != PROMPT:
        raise UsageError(
            "remote tuning: the text holds a password, which trtexec prints in its log and shows in the process list",
            fix=f"log in by a key or an agent, or write {PROMPT} in its place to be asked at the terminal",
        )
    address, question, query = place.partition("?")
    host, _, port = address.partition(":")
    found: dict[str, str] = {}
    for item in query.split("&") if question else ():
        name, _, value = item.partition("=")
        if name not in _PARAMETERS:
            raise _unreadable(f"it has a parameter {masked_value(name)}; public are {' and '.join(_PARAMETERS)}")
        if name in found:
            raise _unreadable(f"it states {name} twice")
        found[name] = value
    if missing := [name for name in _PARAMETERS if name not in found]:
        raise _unreadable(f"it lacks {missing[0]}")
    if port and not port.isdigit():
        raise _unreadable("its port is no number")
    return RemoteConfig(user, host, found[_PARAMETERS[0]], found[_PARAMETERS[1]], int(port or 22), bool(colon))


def _unreadable(why: str) -> UsageError:
    return UsageError(f"remote tuning: the text cannot be used: {why}", fix=f"write it as {_EXAMPLE}")
