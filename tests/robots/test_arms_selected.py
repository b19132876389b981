"""A real arm named as an environment: opened in a process of its own, held without commands, never without a person."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_serl_http import CONFIG, Server, act

from hildaft.build import open_station
from hildaft.build_remote import WorkerOptions, _arm_of
from hildaft.config import RunConfig
from hildaft.robots.real_arm import ArmTask
from hildaft.seating import SeatOptions, open_device
from hildaft.teleop.simulated_operator import OperatorConfig
from hildaft.types import HilDaftError
from link_peers import wait_until

TASKS = {"pick": ArmTask(instruction="pick up the bolt")}
ARM = replace(CONFIG, tasks=TASKS, forward_left_up=("-x", "-y", "+z"), gripper="none")
OPTIONS = {"robot": "A", "learner": "", "name": "a", "token": "", "tls": None, "spool": Path()}


@pytest.fixture
def server():
    server = Server("--gripper", "none")
    yield server
    server.close()


def test_an_arm_is_a_station_that_holds_and_needs_a_person(server):
    arm = replace(ARM, url=server.url)
    config = RunConfig(environment=arm, tasks=("pick",))
    assert config.instructions == {"pick": "pick up the bolt"}
    station = open_station(config)
    try:
        assert station.sight.frame.forward == "-x"
        robot = station.robot
        robot.reset("pick", 0)
        sent = len(server.journal("/pose"))
        robot.step(act(1.0))
        # The step's pose, and the hold's: it may have come already.
        wait_until(lambda: len(server.journal("/pose")) >= sent + 2)
        assert robot.holds == 1
        assert robot.look().proprio.shape == (2,)
        with pytest.raises(HilDaftError, match="--operator"):
            station.operator(OperatorConfig())
    finally:
        station.close()


def test_a_worker_takes_no_bounds_from_the_network_and_no_arm_without_a_person():
    learner_s = RunConfig(environment=ARM, tasks=("pick",))
    options = WorkerOptions(**OPTIONS, spool_bytes=1, tasks=(), max_weight_age_s=1.0)
    with pytest.raises(HilDaftError, match="own file with --env"):
        _arm_of(options, learner_s)
    with pytest.raises(HilDaftError, match="nobody simulates a person"):
        _arm_of(replace(options, arm=ARM), learner_s)
    seated = replace(options, arm=ARM, seating=SeatOptions(operator="browser"))
    assert _arm_of(seated, learner_s) is ARM
    assert _arm_of(options, RunConfig()) is None


def test_a_lerobot_teleoperator_is_named_by_its_file(tmp_path):
    options = SeatOptions(operator="lerobot", teleoperator=tmp_path / "none.yaml")
    with pytest.raises(HilDaftError, match=r"pad\.yaml"), open_device(options):
        pass
    (tmp_path / "pad.yaml").write_text(
        "teleoperator: {type: desk_pad}\nrates: {axes: {up: lift}}\n"
    )
    with (
        pytest.raises(HilDaftError, match=r"LeRobot (cannot be imported|knows)"),
        open_device(replace(options, teleoperator=tmp_path / "pad.yaml")),
    ):
        pass
