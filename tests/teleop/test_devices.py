"""Devices in the operator's hand: whatever they do, the robot moves only while someone pushes."""

import os
import struct
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_cap import FakeCap, State
from hildaft.teleop.device import DeviceConfig, DeviceOperator, Reading
from hildaft.teleop.gamepad import KEYS, Gamepad, named_axes, named_buttons
from hildaft.teleop.spacemouse import REOPEN_S, SpaceMouse
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import HilDaftError, Operator

POLICY = np.array([0.5, -0.5, 0.25, 0.1, 0.0, 0.0, 1.0], dtype=np.float32)
STEP_S = 0.1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    def __init__(self, config: DeviceConfig | None = None, frame=None) -> None:
        self.clock, self.cap = Clock(), FakeCap()
        self.opened = [self.cap]
        self.mouse = SpaceMouse(self._open, clock=self.clock, threaded=False)
        self.operator = DeviceOperator(self.mouse, config, frame=frame, clock=self.clock)

    def _open(self) -> FakeCap:
        if self.cap.error is not None:
            msg = "spacemouse: none there"
            raise HilDaftError(msg)
        return self.cap

    def step(self, *, reports: int = 12, **values):
        """One control step in which the cap reports so many times; 0 for silence."""
        for _ in range(max(reports, 1)):
            if reports:
                self.cap.report(**values)
            self.mouse.poll()
            self.clock.now += STEP_S / max(reports, 1)
        return self.operator.tweak(POLICY)


def moves(tweak) -> bool:
    return bool(np.any(tweak.action[:6]))


def test_it_is_an_operator() -> None:
    assert isinstance(Rig().operator, Operator)


def test_at_rest_the_policy_has_the_robot() -> None:
    rig = Rig()
    assert rig.step(reports=0) is None
    assert rig.step() is None


def test_pushing_takes_control_within_the_step_and_along_the_base_axes() -> None:
    rig = Rig(DeviceConfig(speed=1.0), OperatorFrame(forward="-y", left="+x"))
    tweak = rig.step(x=1.0)
    np.testing.assert_allclose(tweak.action[:6], [0, -1, 0, 0, 0, 0], atol=1e-6)
    tweak = rig.step(x=0.0, y=1.0, roll=1.0)
    # Roll about forward (-y) by the right hand.
    np.testing.assert_allclose(tweak.action[:6], [1, 0, 0, 0, -0.5, 0], atol=1e-6)


def test_noise_of_a_loose_cap_never_takes_control() -> None:
    rig = Rig()
    noise = np.random.default_rng(0)
    for _ in range(200):
        x, y, z, yaw = noise.uniform(-0.19, 0.19, 4)
        assert rig.step(reports=1, x=x, y=y, z=z, yaw=yaw) is None


def test_silence_for_250_ms_yields_zero_motion_and_the_robot_stays_held() -> None:
    rig = Rig()
    assert moves(rig.step(x=1.0))
    last = rig.clock.now - STEP_S / 12
    stopped_s = None
    for _ in range(20):
        tweak = rig.step(reports=0)
        assert tweak is not None
        if not moves(tweak) and stopped_s is None:
            stopped_s = rig.clock.now - last
        assert stopped_s is None or not moves(tweak)
    assert stopped_s is not None
    assert stopped_s <= 0.25 + STEP_S
    assert "silent" in rig.operator.fault
    # Back from silence still pushed: nothing; from rest: the person, then the policy.
    assert not moves(rig.step(x=1.0))
    assert not moves(rig.step(x=0.0))
    assert moves(rig.step(x=1.0))


def test_one_idle_sample_does_not_hand_control_back() -> None:
    rig = Rig()
    assert moves(rig.step(x=1.0))
    idle = rig.step(x=0.0)
    assert idle is not None
    assert not moves(idle)
    assert moves(rig.step(x=1.0))


def test_letting_go_holds_still_then_hands_back() -> None:
    rig = Rig()
    rig.step(x=1.0)
    rig.step(x=0.0)
    seen = [rig.step(reports=0) for _ in range(6)]
    held = [tweak for tweak in seen if tweak is not None]
    assert 1 <= len(held) <= 4
    assert not any(moves(tweak) for tweak in held)
    assert seen[-1] is None
    assert rig.operator.hand == "policy"


@pytest.mark.parametrize("pushed", [False, True])
def test_a_driver_that_raises_holds_the_robot_and_is_found_again(pushed: bool) -> None:
    rig = Rig()
    rig.step(x=1.0 if pushed else 0.0)
    rig.cap.error = OSError("no such device")
    for _ in range(15):
        tweak = rig.step(reports=0)
        assert not moves(tweak)
    assert rig.cap.closed
    assert "no such device" in rig.operator.fault
    rig.cap.error = None
    rig.cap.state, rig.cap.queue = State(), []
    rig.clock.now += REOPEN_S
    assert not moves(rig.step(reports=0))
    assert moves(rig.step(x=1.0))


def test_hand_back_on_a_fault_is_a_choice() -> None:
    rig = Rig(DeviceConfig(on_fault="hand back"))
    rig.step(x=1.0)
    rig.cap.error = OSError("gone")
    assert rig.step(reports=0) is None


def test_buttons_work_the_gripper_and_it_stays_as_it_is() -> None:
    rig = Rig()
    rig.step()
    first = rig.step(z=1.0)
    # As the policy had it.
    assert first.action[6] == 1.0
    assert rig.step(buttons=[0, 1]).action[6] == -1.0
    assert rig.step(buttons=[0, 0]).action[6] == -1.0
    assert rig.step(buttons=[1, 0]).action[6] == 1.0
    assert rig.step(buttons=[1, 1]).action[6] == 1.0


def test_a_button_alone_takes_control() -> None:
    rig = Rig()
    tweak = rig.step(buttons=[0, 1])
    assert tweak is not None
    assert tweak.action[6] == -1.0
    assert not moves(tweak)


def test_a_demonstration_stands_still_at_rest() -> None:
    rig = Rig()
    assert rig.operator.demonstrate().tolist() == [0, 0, 0, 0, 0, 0, -1]
    rig.cap.report(y=-1.0)
    rig.mouse.poll()
    assert rig.operator.demonstrate()[1] == pytest.approx(-0.8)


@dataclass
class Given:
    reading: Reading
    name = "given"

    def read(self) -> Reading:
        return self.reading

    def close(self) -> None:
        pass


@given(
    axes=st.lists(st.floats(width=32, allow_nan=True), min_size=6, max_size=6),
    age_s=st.floats(0.0, 10.0),
    fault=st.sampled_from(["", "broken"]),
    buttons=st.tuples(st.booleans(), st.booleans()),
    dead_zone=st.floats(0.0, 0.5),
)
def test_whatever_a_device_says_the_action_is_bounded(
    axes, age_s, fault, buttons, dead_zone
) -> None:
    reading = Reading(
        axes=np.array(axes, dtype=np.float32),
        close=buttons[0],
        open=buttons[1],
        age_s=age_s,
        fault=fault,
    )
    config = DeviceConfig(dead_zone=dead_zone, engage=max(0.2, dead_zone))
    operator = DeviceOperator(Given(reading), config)
    for action in (operator.demonstrate(), getattr(operator.tweak(POLICY), "action", POLICY)):
        assert np.isfinite(action).all()
        assert np.abs(action).max() <= 1.0
    if fault or age_s > config.silence_s or not np.isfinite(reading.axes).all():
        assert not np.any(operator.demonstrate()[:6])


def test_the_thread_reads_and_a_hanging_driver_is_noticed() -> None:
    cap, release = FakeCap(), threading.Event()
    mouse = SpaceMouse(lambda: cap)
    try:
        cap.report(x=1.0)
        wait_for(lambda: len(mouse.arrivals_s) == 1)
        assert mouse.read().axes[0] == 1.0
        cap.read = lambda: release.wait(10) and cap.state
        wait_for(lambda: "hangs" in mouse.read().fault)
    finally:
        release.set()
        mouse.close()
    assert cap.closed


def wait_for(holds, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.002)


class FakeHid:
    """The HID object under the real driver, as in its own documentation: raw reports, one per read."""

    product_string, manufacturer_string = "SpaceMouse Compact", "3Dconnexion"
    release_number, serial_number = 1, ""

    def __init__(self) -> None:
        self.queue: list[bytes] = []

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        del size
        return self.queue.pop(0) if self.queue else b""


def test_the_real_driver_on_raw_reports() -> None:
    try:
        import pyspacemouse
    except (ImportError, OSError) as error:
        pytest.skip(f"the extra `spacemouse` or hidapi is not installed: {error}")
    hid = FakeHid()
    spec = pyspacemouse.get_device_specs()["SpaceMouseCompact"]
    spec = pyspacemouse.apply_axis_convention(spec, pyspacemouse.AxisConvention.ROS)
    clock = Clock()
    mouse = SpaceMouse(
        lambda: pyspacemouse.SpaceMouseDevice(spec, hid), clock=clock, threaded=False
    )
    operator = DeviceOperator(mouse, DeviceConfig(speed=1.0, rotation_speed=1.0), clock=clock)

    def push(channel: int, *values: int) -> np.ndarray:
        hid.queue.append(struct.pack("<B3h", channel, *values) + b"\0" * 6)
        mouse.poll()
        return operator.demonstrate()[:6]

    # HID counts right, toward the person and down as positive.
    np.testing.assert_allclose(push(1, 350, 0, 0), [0, -1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(push(1, 0, 350, 0), [-1, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(push(1, 0, 0, -350), [0, 0, 1, 0, 0, 0], atol=1e-6)
    push(1, 0, 0, 0)
    # Turned clockwise as seen from above: negative yaw.
    np.testing.assert_allclose(push(2, 0, 0, 350), [0, 0, 0, 0, 0, -1], atol=1e-6)
    # Tipped to the right: positive roll about forward; tipped away from the person: positive pitch about left.
    push(2, 0, 0, 0)
    np.testing.assert_allclose(push(2, 0, -350, 0), [0, 0, 0, 1, 0, 0], atol=1e-6)
    push(2, 0, 0, 0)
    np.testing.assert_allclose(push(2, -350, 0, 0), [0, 0, 0, 0, 1, 0], atol=1e-6)
    clock.now += 0.3
    mouse.poll()
    assert not np.any(operator.demonstrate()[:6])


def wait_until(what) -> None:
    deadline = time.monotonic() + 60.0
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def event(kind: int, number: int, value: int) -> bytes:
    return struct.pack("<IhBB", 0, value, kind, number)


def test_a_gamepad_moves_only_while_rb_is_held_and_holds_when_it_is_lost(tmp_path) -> None:
    node = tmp_path / "js0"
    os.mkfifo(node)
    kernel = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    pad = Gamepad(node)
    # The hand's hold outlasts any pause that a busy machine makes between two lines.
    operator = DeviceOperator(pad, DeviceConfig(speed=1.0, release_s=5.0))
    try:
        os.write(kernel, event(2 | 0x80, 1, -32767) + event(2, 0, 32767)[:3])
        assert operator.tweak(POLICY) is None
        os.write(kernel, event(2, 0, 32767)[3:] + event(1, 5, 1))
        tweak = operator.tweak(POLICY)
        np.testing.assert_allclose(tweak.action[:3], [1, -1, 0], atol=1e-4)
        os.write(kernel, event(1, 0, 1))
        assert operator.tweak(POLICY).action[6] == 1.0
        os.write(kernel, event(1, 5, 0))
        assert not moves(operator.tweak(POLICY))
        os.write(kernel, event(1, 5, 1))
        assert moves(operator.tweak(POLICY))
    finally:
        os.close(kernel)
    tweak = operator.tweak(POLICY)
    assert not moves(tweak)
    assert "lost" in operator.fault
    pad.close()


def test_a_gamepads_keys_come_once_each_without_the_dead_man(tmp_path) -> None:
    node = tmp_path / "js0"
    os.mkfifo(node)
    kernel = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    pad = Gamepad(node)
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.extend(pad.presses()), daemon=True)
    # Y was down already when the pad was opened: nobody has pressed it for us.
    os.write(kernel, event(1 | 0x80, 3, 1) + event(1, 3, 0))
    for number in (3, 2, 4, 7, 6):
        os.write(kernel, event(1, number, 1) + event(1, number, 1) + event(1, number, 0))
    # The robot's loop reads the pad too, and takes no key away from whoever listens.
    assert not pad.read().axes.any()
    listener.start()
    wait_until(lambda: len(heard) >= 5)
    assert heard == [KEYS[name] for name in ("Y", "X", "LB", "Start", "Back")]
    os.write(kernel, event(1, 5, 1))
    wait_until(lambda: pad.down == {"RB"})
    pad.close()
    listener.join(60.0)
    assert not listener.is_alive()
    assert "closed" in pad.read().fault
    os.close(kernel)


def test_a_pad_that_numbers_its_buttons_otherwise_is_read_by_what_it_calls_them() -> None:
    # As PlayStation pads do: 6 and 7 are the triggers L2 and R2, Share and Options come after.
    codes = (0x130, 0x131, 0x133, 0x134, 0x136, 0x137, 0x138, 0x139, 0x13A, 0x13B)
    buttons = named_buttons(struct.pack("<512H", *codes, *[0] * 502))
    assert buttons == dict(
        zip(
            (0, 1, 2, 3, 4, 5, 8, 9), ("A", "B", "X", "Y", "LB", "RB", "Back", "Start"), strict=True
        )
    )
    axes = named_axes(bytes((0, 1, 2, 5, 3, 4)) + bytes(58))
    assert axes == {0: (1, -1.0), 1: (0, -1.0), 4: (5, -1.0), 5: (2, -1.0)}
    # A flight stick has none of them: it moves nothing, for it has no dead-man.
    assert named_buttons(struct.pack("<512H", *range(0x120, 0x12C), *[0] * 500)) == {}


def test_missing_devices_and_impossible_settings_are_refused(tmp_path) -> None:
    with pytest.raises(HilDaftError, match="js7"):
        Gamepad(tmp_path / "js7")
    for wrong in ({"dead_zone": 0.7}, {"engage": 0.01}, {"speed": 0.0}, {"silence_s": 0.0}):
        with pytest.raises(HilDaftError, match=next(iter(wrong))):
            DeviceConfig(**wrong)
    with pytest.raises(HilDaftError, match="mirrored"):
        OperatorFrame(forward="+x", left="-y", up="+z")
