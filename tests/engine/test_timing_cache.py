from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest

from csa_deploy.engine.timing_cache import held_cache, stamp_of
from csa_deploy.errors import EnvironmentLacksError, UsageError

WHO = {"tensorrt": "10.3.0", "machine": "Orin"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "t.cache"
    with held_cache(path, WHO):
        path.write_bytes(b"timings")
    return path


def test_a_new_cache_is_stamped_and_taken_again_with_its_new_stamp(cache: Path) -> None:
    stamps = [stamp_of(cache).read_text()]
    with held_cache(cache, WHO):
        cache.write_bytes(b"more timings")
    with held_cache(cache, WHO):
        stamps.append(stamp_of(cache).read_text())
    digests = [hashlib.sha256(content).hexdigest() for content in (b"timings", b"more timings")]
    assert [json.loads(stamp) for stamp in stamps] == [{"sha256": digest, **WHO} for digest in digests]


def test_none_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with held_cache(None, WHO):
        assert list(tmp_path.iterdir()) == []


def test_a_changed_cache_is_refused(cache: Path) -> None:
    cache.write_bytes(b"timingx")
    with pytest.raises(UsageError, match="changed since it was stamped"), held_cache(cache, WHO):
        pass


def test_a_cache_of_another_gpu_is_refused(cache: Path) -> None:
    other = {**WHO, "machine": "Thor"}
    with pytest.raises(UsageError, match=r"on Orin, this build is with 10\.3\.0 on Thor"), held_cache(cache, other):
        pass


def test_a_cache_of_unknown_origin_is_refused(cache: Path) -> None:
    stamp_of(cache).unlink()
    with pytest.raises(UsageError, match="nobody can say"), held_cache(cache, WHO):
        pass


def test_two_builds_take_turns(cache: Path) -> None:
    order = []

    def second() -> None:
        with held_cache(cache, WHO):
            order.append("second")

    with held_cache(cache, WHO):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
        with pytest.raises(EnvironmentLacksError, match="another build"), held_cache(cache, WHO, wait_s=0.05):
            pass
    thread.join()
    assert order == ["first", "second"]


def test_a_failed_build_leaves_the_stamp(cache: Path) -> None:
    before = stamp_of(cache).read_bytes()
    with pytest.raises(RuntimeError), held_cache(cache, WHO):
        raise RuntimeError
    assert stamp_of(cache).read_bytes() == before
