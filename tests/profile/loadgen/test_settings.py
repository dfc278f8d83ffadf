"""Settings files: read as the load generator reads them, and refused where it would say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.profile.loadgen.settings import read_settings, settings_for


def written(folder: Path, text: str) -> str:
    path = folder / "mine.conf"
    path.write_text(text)
    return str(path)


def test_named_settings() -> None:
    short, full = (settings_for("constant-stream", name, "net") for name in (None, "full"))
    assert (short.name, short.number("min_duration"), short.number("target_latency_percentile")) == ("short", 3000, 90)
    assert [full.number(key) for key in ("min_duration", "target_latency_percentile", "min_query_count")] == [
        *(600_000, 99.9, 6636)
    ]
    assert full.frame_ns == 66_666_666  # as the load generator truncates 10**9 / 15


@pytest.mark.parametrize(("rate", "frame_ns"), [(12.0, 83_333_333), (15.0, 66_666_666), (1000.0, 1_000_000)])
def test_a_frame_rate_counts_more_than_the_file(tmp_path: Path, rate: float, frame_ns: int) -> None:
    file = written(tmp_path, "*.ConstantStream.target_latency = 50\n")
    assert settings_for("constant-stream", file, "net").frame_ns == 50_000_000
    assert settings_for("constant-stream", file, "net", rate).frame_ns == frame_ns


def test_what_stands_closest_counts(tmp_path: Path) -> None:
    lines = ["*.*.min_duration = 1", "net.*.min_duration = 2", "*.Offline.min_duration = 3", "# net.Offline.x = 4"]
    values = []
    for count in range(1, len(lines) + 1):
        file = written(tmp_path, "\n".join([*lines[:count], "other.Offline.min_duration = 9  # no", ""]))
        values.append(settings_for("offline", file, "net").number("min_duration"))
    assert values == [1, 2, 3, 3]
    file = written(tmp_path, "\n".join([*lines, "net.Offline.min_duration = 5"]))
    assert settings_for("offline", file, "net").number("min_duration") == 5
    assert settings_for("offline", file, "net").number("min_query_count") == 6636, "the rest is as in full"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*.SingleStream.min_durations = 1", "unknown key 'min_durations', did you mean 'min_duration'?"),
        ("*.SingelStream.min_duration = 1", "unknown scenario 'SingelStream', did you mean 'SingleStream'?"),
        ("*.*.min_duration = 0", "min_duration = 0 is no valid value"),
        ("*.*.min_duration = -5", "min_duration = -5"),
        ("*.*.min_duration = 1.5", "min_duration = 1.5"),
        ("*.*.min_duration = soon", "min_duration = soon"),
        # Python reads these as 1000, 100, 10, 5 and 12, the load generator as 1, 64, 1, 0 and 0.
        ("*.*.min_query_count = 1_000", "min_query_count = 1_000 is no valid value"),
        ("*.*.min_duration = 0100", "min_duration = 0100"),
        ("*.*.target_qps = 1_0", "target_qps = 1_0"),
        ("*.*.target_latency = \u0665", "target_latency = \u0665"),
        ("*.*.min_query_count = \uff11\uff12", "min_query_count = \uff11\uff12"),
        ("*.*.min_duration = 18446744073710", "min_duration = 18446744073710"),  # 0.4 ms, in nanoseconds of 64 bits
        ("*.*.min_query_count = 99999999999999999999", "min_query_count = 9"),
        ("*.*.target_qps = .", "target_qps = ."),
        ("*.*.target_qps = 0", "target_qps = 0"),
        ("*.*.target_qps = nan", "target_qps = nan"),
        ("*.*.target_qps = inf", "target_qps = inf"),
        ("*.*.target_latency_percentile = 100", "target_latency_percentile = 100"),
        ("*.*.target_latency_percentile = 0", "target_latency_percentile = 0"),
        ("*.ConstantStream.constant_gen = 0", "constant_gen = 0"),
        ("*.*.min_duration=5", "is no setting"),
        ("min_duration = 5", "is no setting"),
        ("*.*.min_duration = 5 6", "is no setting"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = written(tmp_path, f"# about\n\n*.*.min_duration = 1\n{line}\n")
    with pytest.raises(UsageError) as error:
        settings_for("single-stream", file, "net")
    assert error.value.message.startswith(f"{file}, line 4: ") and said in error.value.message
    assert error.value.fix


def test_a_file_of_windows_begins_with_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "mine.conf").write_bytes(b"\xef\xbb\xbf*.*.min_duration = 7\r\n*.*.min_query_count = 9\r\n")
    settings = settings_for("offline", str(tmp_path / "mine.conf"), "net")
    assert (settings.number("min_duration"), settings.number("min_query_count")) == (7, 9)


@pytest.mark.parametrize("value", ["1", "99.999", "5e1", "099.5", ".5", "5."])
def test_values_at_the_edges_hold(tmp_path: Path, value: str) -> None:
    assert read_settings(Path(written(tmp_path, f"*.*.target_latency_percentile = {value}"))) == {
        ("*", "*", "target_latency_percentile"): value
    }


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such settings of the load generator"):
        settings_for("offline", "shrot", "net")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        settings_for("offline", str(tmp_path / "binary"), "net")
    with pytest.raises(UsageError, match="cannot be read"):
        settings_for("offline", str(tmp_path), "net")
