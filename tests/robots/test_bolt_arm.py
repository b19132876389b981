"""The simulated arm behind a real arm's file: bounded as one, and driven through the same commands."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_arms_selected import OPTIONS

from hildaft.arms import open_arm
from hildaft.build import open_station
from hildaft.build_remote import WorkerOptions, _arm_of
from hildaft.commands.robot import calibrate, check_robot
from hildaft.config import RunConfig, config_text, read_config, with_environment
from hildaft.config_files import read_arm
from hildaft.robots.bolt_arm import BoltArm
from hildaft.robots.workspace import Workspace
from hildaft.teleop.person import OperatorConfig
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import HilDaftError

FILE = Path(__file__).parents[2] / "examples" / "robots" / "simulated.yaml"


@pytest.fixture
def arm():
    opened = []

    def make(**changes):
        opened.append(BoltArm(replace(read_arm(FILE), **changes)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def position(arm):
    return arm.scene_state().ee_position_m


@pytest.mark.parametrize("task", ["upright", "pick", "assemble"])
def test_the_shipped_box_leaves_room_for_every_task(arm, task):
    robot = arm()
    operator = SimulatedOperator(robot.scene_state, robot.action_scale)
    robot.reset(task, 1)
    operator.begin(task, 1)
    result = robot.step(operator.demonstrate())
    while not (result.terminated or result.truncated):
        result = robot.step(operator.demonstrate())
    assert result.reward == 1.0


def test_the_arm_stays_in_its_box_and_its_cone(arm):
    box = Workspace(low_m=(0.42, 0.0, 0.06), high_m=(0.52, 0.1, 0.14), max_turn_rad=0.3)
    robot = arm(workspace=box)
    robot.reset("pick", 3)
    assert box.contains(position(robot), 0.012)
    rng = np.random.default_rng(0)
    for _ in range(6):
        pushed = rng.choice([-1.0, 1.0], 7).astype(np.float32)
        for _ in range(8):
            robot.step(pushed)
            assert box.contains(position(robot), 0.006)
            turned = robot._guard.measured.angle_rad(robot._guard.bounds.upright)
            assert turned < 0.3 + 0.06


def test_nothing_but_seven_finite_numbers_after_a_reset(arm):
    robot = arm()
    with pytest.raises(HilDaftError, match="call reset first"):
        robot.step(np.zeros(7, np.float32))
    robot.reset("pick", 0)
    with pytest.raises(HilDaftError, match="7 finite numbers"):
        robot.step(np.full(7, np.nan, np.float32))


def test_the_box_is_measured_by_jogging_and_dry_runs_send_nothing(monkeypatch, capsys):
    words = ["", *["+x 20"] * 3, *["-y 20"] * 3, *["-z 10"] * 3, "", "q"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(words) + "\n"))
    assert calibrate([str(FILE), "--jog"]) == 0
    said = capsys.readouterr().out
    box = yaml.safe_load(said[said.index("workspace:") :])["workspace"]
    size = np.subtract(box["high_m"], box["low_m"])
    # What was jogged, less a margin of 1 cm on either side.
    assert size == pytest.approx([0.04, 0.04, 0.01], abs=0.006)
    assert check_robot([str(FILE), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "inside the workspace box" in said
    assert "would send pose" in said


def test_nobody_leads_it_by_hand():
    with pytest.raises(HilDaftError, match="--jog"):
        calibrate([str(FILE)])


def test_a_dry_run_leaves_the_arm_where_it_is():
    lines = []
    robot = open_arm(read_arm(FILE), lines.append)
    try:
        robot.connect()
        before = robot.measure_position()
        robot.dry_run()
        robot.nudge(np.array([0.02, 0.0, 0.0]))
        assert (robot.measure_position() == before).all()
        assert len(lines) == 3
    finally:
        robot.close()


def test_it_is_an_environment_to_train_on_with_a_simulated_person(tmp_path):
    config = with_environment(RunConfig(), FILE)
    assert config.tasks == ("upright", "pick", "assemble")
    (tmp_path / "config.yaml").write_text(config_text(config))
    assert read_config(tmp_path / "config.yaml") == config
    station = open_station(config)
    try:
        station.check()
        operator = station.operator(OperatorConfig())
        station.robot.reset("pick", 0)
        operator.begin("pick", 0)
        assert not station.robot.step(operator.demonstrate()).terminated
        assert set(station.sight.guides()) == {"head", "wrist"}
        assert station.robot.name == "simulated"
    finally:
        station.close()


def test_a_worker_may_drive_it_without_a_person():
    options = WorkerOptions(
        **OPTIONS, spool_bytes=1, tasks=(), max_weight_age_s=1.0, arm=read_arm(FILE)
    )
    assert _arm_of(options, RunConfig()) is options.arm
    learner_s = with_environment(RunConfig(), FILE)
    with pytest.raises(HilDaftError, match="own file with --env"):
        _arm_of(replace(options, arm=None), learner_s)


def test_a_task_the_bench_has_not_is_refused(tmp_path):
    text = FILE.read_text().replace("  pick:", "  peg:")
    (tmp_path / "arm.yaml").write_text(text)
    with pytest.raises(HilDaftError, match=r"tasks='peg': upright, pick, assemble are allowed"):
        read_arm(tmp_path / "arm.yaml")
