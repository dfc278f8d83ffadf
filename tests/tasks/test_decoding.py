from pathlib import Path

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.tasks.decoding import checked, load_decode

BOX = [[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 4.0, 4.0]]


def test_a_function_of_a_file_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("SCALE = 2\n")
    (tmp_path / "heads.py").write_text(
        "import numpy as np\nfrom beside import SCALE\n"
        "def decode(outputs):\n    boxes = SCALE * outputs['boxes']\n"
        "    return boxes, outputs['scores'], np.zeros(len(boxes))\n"
    )
    found = load_decode(f"{tmp_path}/heads.py:decode")({"boxes": np.asarray(BOX), "scores": np.asarray([0.1, 0.7])})
    assert found.scores.tolist() == [0.7, 0.1]  # the strongest first
    assert found.xyxy.tolist() == [[2, 2, 8, 8], [0, 0, 4, 6]]
    assert found.classes.dtype == np.int64


@pytest.mark.parametrize("nothing", [([], [], []), (np.zeros((0, 4)), [], [])])
def test_nothing_found_is_an_answer(nothing: object) -> None:
    assert len(checked(lambda outputs: nothing, "d")({})) == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "no arrays of numbers"),
        ((BOX, [0.5]), r"returned \(2, 4\), \(1,\)"),
        ((BOX, [0.5], [0]), r"returned \(2, 4\), \(1,\), \(1,\)"),
        ((np.zeros((2, 5)), [1, 1], [0, 0]), r"\(2, 5\)"),
        ((BOX, [0.5, np.nan], [0, 0]), "score that is not finite"),
        (([[0, 0, np.inf, 1]], [0.5], [0]), "box that is not finite"),
        ((BOX, [0.5, 0.5], [0, 0.5]), "indices from 0"),
        ((BOX, [0.5, 0.5], [0, -1]), "indices from 0"),
        (("ab", [0.5], [0]), "no arrays of numbers"),
    ],
)
def test_another_answer_is_one_line(answer: object, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        checked(lambda outputs: answer, "heads.py:decode")({})
    assert str(caught.value).startswith("heads.py:decode: ") and "\n" not in str(caught.value)


def test_a_function_that_raises_is_one_line() -> None:
    def decode(outputs: dict[str, np.ndarray]) -> None:
        raise KeyError("boxes\nand more")

    with pytest.raises(UsageError, match="it fails: KeyError") as caught:
        checked(decode, "heads.py:decode")({})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["csa_digits", "nowhere.py:decode"])
def test_what_is_no_function_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        load_decode(spec)
