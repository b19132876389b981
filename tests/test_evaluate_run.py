"""`hildaft eval` of runs that are not of the bolt bench, and of those that only a person can evaluate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import hildaft.jobs
from hildaft.algo.checkpoint import write_checkpoint
from hildaft.build import build_encoders, build_learner
from hildaft.commands.link import _evaluation_of
from hildaft.config import PRESETS, write_config
from hildaft.config_files import read_environment
from hildaft.jobs import evaluate_run
from hildaft.robots.judged import JudgeConfig
from hildaft.types import HilDaftError

ROOT = Path(__file__).parents[1]
ODD = Path(__file__).parent / "robots" / "odd_gym.yaml"
ARM = ROOT / "examples" / "robots" / "franka_serl.yaml"
GIVEN = {"talk": "none", "talk_always": False, "robot": None, "tasks": (), "as_json": True}


def evaluated(folder, **given):
    return evaluate_run(folder, **{"episodes": 1, "seed": 0, **GIVEN, **given})


def config_of(file, **changes):
    """A run on what the file describes; in a bench's place where there is none."""
    if file is None:
        return replace(PRESETS["tiny"], **changes)
    environment = read_environment(file)
    tasks = tuple(environment.tasks)
    return replace(PRESETS["tiny"], environment=environment, tasks=tasks, **changes)


def saved(folder, config):
    folder.mkdir(exist_ok=True)
    write_config(config, folder / "config.yaml")
    return folder


def with_weights(folder, config):
    learner = build_learner(config, build_encoders(config))
    write_checkpoint(saved(folder, config) / "checkpoints", learner.state(), {}, step=1)
    return folder


def without_law(config):
    return replace(config, environment=replace(config.environment, operator=""))


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.syspath_prepend(str(ODD.parent))
    return config_of(ODD)


def test_success_is_seen_by_whom_the_run_s_config_names(odd, tmp_path):
    rule = tmp_path / "rule.py"
    rule.write_text("def done(task, observation):\n    return task == 'reach'\n")
    judge = JudgeConfig(by="rule", rule=f"{rule}:done")
    folder = with_weights(tmp_path / "run", replace(odd, judge=judge))
    [task] = json.loads(evaluated(folder, episodes=2))["tasks"]
    # Not even trained, and praised at its first step.
    assert [(o["success"], o["length"]) for o in task["outcomes"]] == [(True, 1)] * 2


def test_silence_needs_nobody_who_could_talk(odd, tmp_path):
    folder = with_weights(tmp_path / "run", without_law(odd))
    [task] = json.loads(evaluated(folder))["tasks"]
    assert (task["task"], task["talk"], task["episodes"]) == ("reach", "none", 1)


REFUSED = [
    (config_of(ARM), {}, "robot franka is a real arm, beside which a person has to sit"),
    (
        config_of(None, judge=JudgeConfig(by="person")),
        {},
        r"judge\.by='person', .*`hildaft train --out .*run --resume --operator browser`",
    ),
    (config_of(ODD), {"robot": "B"}, "eval --robot B: run .*run is not on the bolt bench; leave"),
    (config_of(ARM), {"robot": "A"}, "eval --robot A: run .*run is not on the bolt bench; leave"),
    (
        without_law(config_of(ODD)),
        {"talk": "right"},
        r"eval --talk right: environment odd has no law .*; leave --talk away",
    ),
]


@pytest.mark.parametrize(("config", "given", "said"), REFUSED)
def test_what_cannot_be_evaluated_here_is_one_line(tmp_path, monkeypatch, config, given, said):
    monkeypatch.setattr(hildaft.jobs, "open_station", lambda config: pytest.fail("opened"))
    folder = saved(tmp_path / "run", config)
    with pytest.raises(HilDaftError, match=said) as caught:
        evaluated(folder, **given)
    assert "\n" not in str(caught.value)


def test_a_learner_ends_with_a_command_that_its_run_takes(tmp_path):
    run = saved(tmp_path / "run", config_of(None))
    assert _evaluation_of(run, evaluated=True) == f"hildaft eval {run}"
    assert _evaluation_of(run, evaluated=False) == f"hildaft eval {run}"
    arm = saved(tmp_path / "arm", config_of(ARM))
    (arm / "token").touch()
    go_on = f"hildaft learner --out {arm} --resume"
    assert _evaluation_of(arm, evaluated=True) == f"hildaft report {arm}"
    assert _evaluation_of(arm, evaluated=False) == go_on
    with pytest.raises(HilDaftError, match=f"`{go_on}` makes the evaluations that are left"):
        evaluated(arm)
