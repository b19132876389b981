"""A pickle is converted only in a process that builds arrays, and one that asks for more runs nothing."""

import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hildaft.data.pickled_demos import convert_pickle
from hildaft.types import HilDaftError


def transition(step, actions=7):
    return OrderedDict(
        observations={"state": np.full((1, 19), step, np.float32), "wrist_1": np.zeros((1, 8, 8, 3), np.uint8)},
        actions=np.full(actions, 0.1 * step, np.float32),
        rewards=np.float64(step == 4),
        masks=1.0 - float(step == 4),
        dones=step == 4,
        infos={"succeed": bool(step == 4), "note": "text is left out"},
    )  # fmt: skip


def test_transitions_become_arrays(tmp_path):
    source, target = tmp_path / "demo.pkl", tmp_path / "demo.safetensors"
    source.write_bytes(pickle.dumps([transition(step) for step in range(5)]))
    assert convert_pickle(source, target).startswith("5 transitions")
    found = load_file(target)
    assert found["observations/state"].shape == (5, 1, 19)
    assert found["actions"][3].tolist() == pytest.approx([0.3] * 7)
    assert found["rewards"].tolist() == [0, 0, 0, 0, 1]
    assert "infos/note" not in found
    with pytest.raises(HilDaftError, match="exists"):
        convert_pickle(source, target)


class Evil:
    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


@pytest.mark.parametrize(
    "call",
    [
        lambda mark: Evil(os.system, f"touch {mark}"),
        lambda mark: Evil(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Evil(Path.touch, mark),
        lambda mark: Evil(np.savetxt, str(mark), np.zeros(1)),
    ],
)
def test_a_pickle_that_calls_something_runs_nothing(tmp_path, call):
    mark, source, target = tmp_path / "mark", tmp_path / "demo.pkl", tmp_path / "out.safetensors"
    source.write_bytes(pickle.dumps([transition(0), call(mark)]))
    with pytest.raises(HilDaftError, match="refused, nothing was run") as error:
        convert_pickle(source, target)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a pickle", "demo.pkl"),
        (pickle.dumps({"a": 1}), "a list of transitions"),
        (pickle.dumps([transition(0), transition(1, actions=6)]), "actions has shapes"),
        (pickle.dumps([{"observations": np.zeros(3)}]), "no 'actions'"),
        (pickle.dumps([transition(0)])[:-40], "demo.pkl"),
    ],
)
def test_what_is_no_demonstration_is_one_line(tmp_path, content, words):
    source = tmp_path / "demo.pkl"
    source.write_bytes(content)
    with pytest.raises(HilDaftError, match=words) as error:
        convert_pickle(source, tmp_path / "out.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_nothing_else_in_the_package_unpickles():
    import hildaft

    root = Path(hildaft.__file__).parent
    users = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(word in path.read_text() for word in ("import pickle", "pickle.load", "joblib", "shelve"))
    ]  # fmt: skip
    assert users == ["data/pickled_demos.py"]
    assert sys.flags.isolated == 0
