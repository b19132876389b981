"""Before a run begins, the person learns whether environment, law and views are what they meant."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hildaft.config_files import read_environment
from hildaft.robots.gym_config import GymConfig
from hildaft.runtime.environment_report import report_environment
from hildaft.teleop.law import load_law
from hildaft.types import HilDaftError

EXAMPLE = Path(__file__).parents[2] / "examples" / "gymnasium"
CONFIG = read_environment(EXAMPLE / "dot_reach.yaml")

LAWS = """
import numpy as np
from hildaft.teleop.scripted_operator import Advice

def still(env, observation, scale):
    return Advice(action=np.zeros(7, np.float32), remaining_steps=3.0)

def broken(env, observation, scale):
    return observation["goall"]

def bare(env, observation, scale):
    return np.zeros(7, np.float32)

def backwards(env, observation, scale):
    steps = (observation["goal"] - observation["position"]) / scale.translation_m
    action = np.zeros(7, np.float32)
    action[:2], action[6] = np.clip(steps, -1, 1), -1.0
    return Advice(action=action, remaining_steps=100.0 - float(np.abs(steps).max()))
"""


@pytest.fixture
def laws(tmp_path):
    path = tmp_path / "laws.py"
    path.write_text(LAWS)
    return lambda name: replace(CONFIG, operator=f"{path}:{name}")


@pytest.mark.parametrize("file", sorted(EXAMPLE.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_can_be_read_and_bring_their_law(file):
    environment = read_environment(file)
    assert isinstance(environment, GymConfig)
    assert callable(load_law(environment.operator))


def test_the_law_is_tried_and_the_views_are_drawn(tmp_path, capsys):
    report_environment(CONFIG, tmp_path / "new" / "views.png")
    told = capsys.readouterr().err
    assert "law succeeds in 3 of 3 episodes" in told
    assert "fail" not in told
    # Two views of 128 px with a line about each, twice as large, in four rows.
    with Image.open(tmp_path / "new" / "views.png") as image:
        assert image.size == (2 * 2 * 132, 2 * 4 * 132)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ("still", "succeeds in 0 of 3 episodes"),
        ("broken", r"its law failed \(KeyError 'goall', laws.py line 9\)"),
        ("bare", "returned a ndarray; .*Advice is needed"),
        ("missing", "no function 'missing' there"),
    ],
)
def test_a_law_that_cannot_demonstrate_is_said_once_before_anything_is_written(
    laws, law, words, capsys
):
    with pytest.raises(HilDaftError, match=words) as error:
        report_environment(laws(law))
    assert "\n" not in str(error.value)
    # The command prints the error: the report leaves that line to it.
    assert str(error.value) not in capsys.readouterr().err


def test_nobody_who_demonstrates_is_said_by_the_check(capsys):
    report_environment(replace(CONFIG, operator=""))
    assert "a person has to demonstrate and correct" in capsys.readouterr().err


def test_steps_that_do_not_fall_are_a_warning(laws, capsys):
    report_environment(laws("backwards"))
    assert "remaining_steps does not fall in 3 of 3 episodes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("instruction:", "instrction:", "'tasks.reach.instrction'; did you mean 'instruction'"),
        ("means: dy", "means: y", "action.means='y': dx, dy, dz"),
        ("{means: dx, unit", "{means: dx, nuit", r"'action\[0\].nuit'; did you mean 'unit'"),
        ("name: dot\n", "", "name is missing"),
    ],
)
def test_a_slip_in_the_file_is_named_with_what_is_allowed(tmp_path, old, new, words):
    text = (EXAMPLE / "dot_reach.yaml").read_text()
    assert old in text
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    (tmp_path / "mine" / "dot_reach.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(HilDaftError, match=words) as error:
        read_environment(tmp_path / "mine" / "dot_reach.yaml")
    assert "\n" not in str(error.value)
