"""LeRobot teleoperators in the operator's hand: what they say moves the robot, what they do not say does not."""

import threading
import time

import numpy as np
import pytest

from desk_arm import HOME, JOINTS, URDF, DeskPad, DeskPadConfig
from hildaft.lerobot_bridge.config import (
    JawKey,
    JointKey,
    JointKeys,
    LeaderKeys,
    RateKeys,
    TeleoperatorConfig,
)
from hildaft.lerobot_bridge.teleoperator import LeRobotDevice, open_teleoperator
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.teleop.device import Device, DeviceConfig, DeviceOperator, KeyedDevice
from hildaft.types import HilDaftError
from point_robot import PixelPolicy, PointRobot

RATES = TeleoperatorConfig(
    teleoperator={"type": "desk_pad"}, rates=RateKeys(gripper="gripper"), poll_hz=200.0
)


def leader_config(urdf):
    joints = tuple(JointKey(key=f"{name}.pos", joint=name) for name in JOINTS)
    keys = JointKeys(urdf=str(urdf), tip="tip", joints=joints)
    leader = LeaderKeys(joint_keys=keys, gripper=JawKey(open=1.0, closed=0.0))
    return TeleoperatorConfig(teleoperator={"type": "desk_pad"}, leader=leader, poll_hz=200.0)


@pytest.fixture
def pad():
    pad = DeskPad(DeskPadConfig())
    device = LeRobotDevice(RATES, pad)
    yield pad, device
    pad.fault = None
    device.close()
    device.close()
    assert not pad.connected


def wait_until(what):
    deadline = time.monotonic() + 60.0
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def fresh(pad):
    """Waits for two more reports: the second began after now."""
    reads = pad.reads
    wait_until(lambda: pad.reads > reads + 1)


def test_deltas_are_axes_and_the_gripper_is_two_buttons(pad):
    pad, device = pad
    assert isinstance(device, Device)
    assert isinstance(device, KeyedDevice)
    pad.values.update(delta_x=0.5, delta_y=-1.0, gripper=0.0)
    fresh(pad)
    reading = device.read()
    assert reading.axes.tolist() == [0.5, -1.0, 0, 0, 0, 0]
    assert (reading.close, reading.open) == (True, False)
    assert reading.age_s < 1.0
    pad.values.update(gripper=2.0)
    fresh(pad)
    assert (device.read().close, device.read().open) == (False, True)


def test_nothing_moves_while_its_events_say_that_nobody_intervenes(pad):
    pad, device = pad
    pad.values.update(delta_x=1.0, gripper=0.0)
    pad.events["is_intervention"] = False
    fresh(pad)
    reading = device.read()
    assert not reading.axes.any()
    assert not reading.close


def test_each_press_is_one_key_and_closing_ends_them(pad):
    pad, device = pad
    heard, came = [], threading.Event()

    def listen():
        heard.extend(device.presses())
        came.set()

    threading.Thread(target=listen, daemon=True).start()
    expected = []
    for events, press in (
        ({"success": True, "terminate_episode": True}, "success"),
        ({"rerecord_episode": True, "terminate_episode": True}, "again"),
        ({"terminate_episode": True}, "failure"),
    ):
        pad.events.update(events)
        expected.append(press)
        wait_until(lambda: len(heard) >= len(expected))
        fresh(pad)
        assert heard == expected
        pad.events.update(dict.fromkeys(events, False))
        fresh(pad)
    device.close()
    assert came.wait(60.0)


def test_one_that_hangs_grows_old_and_one_that_raises_is_a_fault(pad):
    pad, device = pad
    pad.values.update(delta_x=1.0)
    operator = DeviceOperator(device, DeviceConfig(silence_s=0.25))

    def moves():
        # A report that a busy machine brings late is no push yet.
        tweak = operator.tweak(np.zeros(7, np.float32))
        return tweak is not None and tweak.action.any()

    wait_until(moves)
    pad.fault = "hangs"
    wait_until(lambda: device.read().age_s > 0.25)
    tweak = operator.tweak(np.zeros(7, np.float32))
    assert not tweak.action[:6].any()
    assert operator.hand == "held"
    pad.fault = "raises"
    wait_until(lambda: device.read().fault)
    assert "No such device" in device.read().fault
    assert not operator.tweak(np.zeros(7, np.float32)).action[:6].any()


def test_it_corrects_a_policy_in_an_episode(pad):
    pad, device = pad
    robot = PointRobot()
    operator = DeviceOperator(device, DeviceConfig(release_s=0.0))
    pad.values.update(delta_x=-1.0)
    fresh(pad)
    episode = run_episode(robot, PixelPolicy(), operator, "reach", 0, "online", pacing=Pacing(None))
    assert episode.is_intervention.all()
    assert episode.human_action[0, 0] == pytest.approx(-0.8)


def test_a_leader_is_followed_by_its_tip_in_steps_of_the_robot(tmp_path):
    urdf = tmp_path / "desk.urdf"
    urdf.write_text(URDF)
    pad = DeskPad(DeskPadConfig(leader=True))
    now = [0.0]
    device = LeRobotDevice(leader_config(urdf), pad, clock=lambda: now[0])
    try:
        fresh(pad)
        assert not device.read().axes.any()
        pad.values["pan.pos"] = 0.5
        fresh(pad)
        # Half a degree is 2.5 mm at the tip: not yet a motion, but it adds up.
        assert not device.read().axes.any()
        pad.values["pan.pos"] = 12.0
        fresh(pad)
        axes = [device.read().axes.copy() for _ in range(6)]
        assert axes[0][1] == 1.0
        assert sum(a[1] for a in axes) * 0.015 == pytest.approx(np.sin(np.deg2rad(12)) * 0.3, abs=0.02)  # fmt: skip
        assert not axes[-1].any()
        pad.values["gripper.pos"] = 0.1
        fresh(pad)
        assert device.read().close
        assert not device.read().close
        # Between two episodes it may be laid anywhere.
        now[0] += 1.0
        pad.values.update({f"{name}.pos": HOME[name] - 20.0 for name in JOINTS})
        fresh(pad)
        assert not device.read().axes.any()
    finally:
        device.close()


def test_keys_and_configs_that_do_not_fit_are_one_line(tmp_path):
    with pytest.raises(HilDaftError, match="exactly one of rates and leader"):
        TeleoperatorConfig(teleoperator={"type": "gamepad"})
    with pytest.raises(HilDaftError, match="`type` is needed"):
        TeleoperatorConfig(teleoperator={}, rates=RateKeys())
    with pytest.raises(HilDaftError, match="one axis or more"):
        RateKeys(axes={})
    rates = RateKeys(axes={"forward": "target_x"})
    wrong = TeleoperatorConfig(teleoperator={"type": "desk_pad"}, rates=rates)
    with pytest.raises(HilDaftError, match=r"no target_x; it has delta_x"):
        LeRobotDevice(wrong, DeskPad(DeskPadConfig()))
    broken = DeskPad(DeskPadConfig())
    broken.fault = "raises"
    with pytest.raises(HilDaftError, match="No such device"):
        LeRobotDevice(RATES, broken)
    try:
        import lerobot  # noqa: F401
    except ImportError:
        with pytest.raises(HilDaftError, match="LeRobot cannot be imported"):
            open_teleoperator(RATES)
        return
    device = open_teleoperator(RATES)
    assert not device.read().axes.any()
    device.close()
