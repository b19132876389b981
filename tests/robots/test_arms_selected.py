"""A real arm named as an environment: opened in a process of its own, held without commands, never without a person."""

import time
from dataclasses import replace

import pytest
from test_serl_http import CONFIG, Server, act

from hildaft.build import open_station
from hildaft.config import RunConfig
from hildaft.robots.real_arm import ArmTask
from hildaft.teleop.person import OperatorConfig
from hildaft.types import HilDaftError

TASKS = {"pick": ArmTask(instruction="pick up the bolt")}
ARM = replace(CONFIG, tasks=TASKS, gripper="none")


@pytest.fixture
def server():
    server = Server("--gripper", "none")
    yield server
    server.close()


def test_an_arm_is_a_station_that_holds_and_needs_a_person(server):
    config = RunConfig(environment=replace(ARM, url=server.url), tasks=("pick",))
    assert config.instructions == {"pick": "pick up the bolt"}
    station = open_station(config)
    try:
        robot = station.robot
        robot.reset("pick", 0)
        robot.step(act(1.0))
        sent = len(server.journal("/pose"))
        deadline = time.monotonic() + 5.0
        while len(server.journal("/pose")) == sent:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert robot.holds == 1
        with pytest.raises(HilDaftError, match="nobody simulates a person"):
            station.operator(OperatorConfig())
    finally:
        station.close()
