"""What trtexec's own files say when they are no JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.trtexec.runner import _json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{ "count" : 0 }\n, { "name" : "a", "averageMs" : -nan, "percentage" : nan }]', "nothing was timed"),
        ('[{ "count" : 1 }\n, { "name" : "a"b" }]', "is no JSON"),
        ('[{ "name" : "nan"b" }]', "is no JSON"),
    ],
)
def test_a_file_that_is_no_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        _json(path)
    path.write_text('[{ "name" : "nan", "averageMs" : 1 }]')
    assert _json(path)[0]["averageMs"] == 1
