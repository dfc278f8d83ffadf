"""An interrupted search goes on where it was, and nothing of another search is taken for its own."""

import pytest

from csa_deploy.precision.measurement_cache import MeasurementCache


def test_what_was_measured_is_not_measured_again(tmp_path):
    path = tmp_path / "search.json"
    first = MeasurementCache(path, "key")
    assert first.of("a", lambda: {"snr_db": float("inf"), "cosine": 0.1 + 0.2}) == {
        "snr_db": float("inf"),
        "cosine": 0.1 + 0.2,
    }
    with pytest.raises(KeyboardInterrupt):
        first.of("b", interrupted)
    again = MeasurementCache(path, "key")
    assert again.of("a", interrupted) == {"snr_db": float("inf"), "cosine": 0.1 + 0.2}  # to the last bit


@pytest.mark.parametrize("content", [None, b"{", b'{"key": "another", "found": {"a": {"x": 1}}}', b"[]"])
def test_another_or_a_damaged_file_is_ignored(tmp_path, content):
    path = tmp_path / "search.json"
    if content is not None:
        path.write_bytes(content)
    assert MeasurementCache(path, "key").of("a", lambda: {"x": 2.0}) == {"x": 2.0}


def test_without_a_place_to_write_it_works_all_the_same(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = MeasurementCache(tmp_path / "file" / "search.json", "key")
    assert cache.of("a", lambda: {"x": 2.0}) == cache.of("a", interrupted)
    assert "could not be resumed" in caplog.text


def interrupted() -> dict[str, float]:
    raise KeyboardInterrupt
