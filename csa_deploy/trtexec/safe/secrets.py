"""Takes credentials out of everything that is kept or printed.

trtexec prints its whole command line in its first and its last line, in every version up to 11.1, and so the text that
says how the target is reached. No password is put there; what another program put there is masked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
# Whoever logs in, up to the last @ of a word: a password may hold an @ itself.
_IN_A_URL = re.compile(r"(?<=://)\S*@")
# The same in other texts, such as a host name that somebody wrote as user:password@host.
_WITH_PASSWORD = re.compile(r"[^\s:/@'\"]+:\S*@")
# Up to the last @ of a line: a password that holds a space is no password that ssh takes, and is hidden all the same.
_IN_A_VALUE = re.compile(r"(?<=://)[^\n]*@")


def masked(text: str) -> str:
    """A text of several words and lines without users and passwords of URLs."""
    return _IN_A_URL.sub(f"{MASK}@", text)


def masked_words(words: Iterable[str]) -> tuple[str, ...]:
    """A command's words, each masked."""
    return tuple(_IN_A_VALUE.sub(f"{MASK}@", word) for word in words)


def masked_value(value: object) -> str:
    """A refused value of a configuration, as a message may show it."""
    return _WITH_PASSWORD.sub(f"{MASK}@", _IN_A_VALUE.sub(f"{MASK}@", repr(value)))
