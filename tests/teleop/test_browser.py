import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.teleop.browser import BrowserOperator, SeatConfig
from hildaft.types import NULL_COMMAND, HilDaftError, RefinementCommand, Tweak

PERIOD_S = 0.1
POLICY = np.array([0.9, -0.9, 0.5, 0, 0, 0, -1], np.float32)
FORWARD = np.array([1, 0, 0, 0, 0, 0], np.float32)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class Desk:
    """An operator with a clock to turn, and the robot's loop around it."""

    def __init__(self, **config):
        self.clock = Clock()
        self.closed = False
        self.operator = BrowserOperator(
            lambda: self.closed, SeatConfig(**config), clock=self.clock, helper=None
        )
        self.operator.begin("reach", 0)

    def step(self):
        """One step of the loop: the executed action, and whether it counts as the human's."""
        tweak = self.operator.tweak(POLICY)
        self.clock.now_s += PERIOD_S
        action = POLICY if tweak is None else tweak.action
        self.closed = bool(action[6] > 0)
        return action, tweak is not None and tweak.is_correction


def test_without_a_hand_the_policy_acts():
    desk = Desk()
    assert desk.operator.tweak(POLICY) is None
    assert desk.operator.control == "policy"


def test_the_first_step_moves_the_hands_way_and_the_speed_grows_over_the_ramp():
    desk = Desk(ramp_steps=2)
    shares = []
    for _ in range(3):
        desk.operator.drive(FORWARD)
        action, human = desk.step()
        assert human
        shares.append(action[0])
    np.testing.assert_allclose(shares, [0.5, 1.0, 1.0])


def test_a_silent_link_ends_the_motion_at_the_first_step_after_the_limit():
    desk = Desk(silence_s=0.25, hold_steps=2, ramp_steps=2)
    desk.operator.drive(FORWARD)
    moved = []
    for _ in range(8):
        action, human = desk.step()
        moved.append((round(float(action[0]), 2), human))
    # Steps at 0, 100 and 200 ms still have a hand; then it stands, gathers speed, and the policy is back.
    assert [human for _, human in moved] == [True] * 3 + [False] * 5
    assert [x for x, _ in moved[3:5]] == [0.0, 0.0]
    assert [x for x, _ in moved[5:]] == [0.3, 0.6, 0.9]


@pytest.mark.parametrize("sign", ["say", "alive"])
def test_words_and_a_live_page_are_no_sign_of_a_hand_that_fell_silent(sign):
    """Driven once, then only talked to, and the page's other signs: the hand is gone after the limit all the same."""
    desk = Desk(silence_s=0.25, hold_steps=2, ramp_steps=2)
    desk.operator.drive(FORWARD)
    humans = []
    for _ in range(8):
        if sign == "say":
            desk.operator.say(RefinementCommand((0, 1, 0)), keep=True)
        else:
            desk.operator.alive()
        _, human = desk.step()
        humans.append(human)
    assert humans == [True] * 3 + [False] * 5
    assert desk.operator.control == "policy"


def test_kept_words_outlive_a_hand_that_fell_silent_while_the_page_is_heard():
    left = RefinementCommand((0, 1, 0))
    desk = Desk()
    desk.operator.say(left, keep=True)
    for _ in range(10):
        desk.operator.drive(FORWARD)
        assert desk.operator.speak() == left
        desk.step()
    for _ in range(10):
        desk.operator.alive()
        assert desk.operator.speak() == left
        desk.step()
    desk.clock.now_s += 0.3
    assert desk.operator.speak() == NULL_COMMAND


def test_letting_go_stops_at_the_very_next_step():
    desk = Desk()
    desk.operator.drive(FORWARD)
    desk.step()
    desk.operator.release()
    action, human = desk.step()
    assert not human
    np.testing.assert_array_equal(action[:6], 0.0)
    assert desk.operator.control == "hold"


def test_one_idle_sample_does_not_hand_control_back():
    desk = Desk(hold_steps=2)
    desk.operator.drive(FORWARD)
    desk.step()
    desk.step()
    desk.operator.release()
    action, _ = desk.step()
    assert action[0] == 0.0
    desk.operator.drive(-FORWARD)
    _, human = desk.step()
    assert human


def test_a_hold_stays_until_the_person_hands_back():
    desk = Desk(after="hold", hold_steps=1)
    desk.operator.drive(FORWARD)
    assert not desk.operator.holds()
    desk.step()
    desk.operator.release()
    assert not desk.operator.holds()
    desk.step()
    assert desk.operator.holds()
    desk.clock.now_s += 60.0
    assert desk.operator.holds()
    desk.operator.hand_back()
    assert not desk.operator.holds()
    first, human = desk.step()
    assert not human
    assert 0 < abs(first[0]) < abs(POLICY[0])


def test_the_jaws_stay_as_they_are_while_the_hand_moves_the_arm():
    desk = Desk()
    desk.closed = True
    desk.operator.drive(FORWARD)
    action, _ = desk.step()
    assert action[6] == 1.0
    desk.operator.release()
    action, _ = desk.step()
    assert action[6] == 1.0


def test_a_grip_is_one_step_of_the_hand():
    desk = Desk()
    desk.operator.grip(True)
    action, human = desk.step()
    assert human
    assert action[6] == 1.0
    np.testing.assert_array_equal(action[:6], 0.0)
    action, human = desk.step()
    assert not human
    assert action[6] == 1.0


def test_words_last_their_steps_and_kept_words_as_long_as_the_page_is_heard():
    left = RefinementCommand((0, 1, 0))
    desk = Desk(talk_steps=3)
    desk.operator.say(left)
    assert [desk.operator.speak() for _ in range(4)] == [left, left, left, NULL_COMMAND]
    desk.operator.say(left, keep=True)
    for _ in range(10):
        desk.operator.alive()
        assert desk.operator.speak() == left
        desk.clock.now_s += PERIOD_S
    desk.clock.now_s += 1.0
    assert desk.operator.speak() == NULL_COMMAND
    desk.operator.say(left)
    desk.operator.say(NULL_COMMAND)
    assert desk.operator.speak() == NULL_COMMAND


def test_a_demonstration_waits_for_the_hand():
    desk = Desk()
    desk.operator.begin_demonstration("reach", 0)
    assert desk.operator.holds()
    assert desk.operator.control == "hold"
    desk.operator.drive(FORWARD)
    assert not desk.operator.holds()
    assert desk.operator.demonstrate()[0] > 0
    desk.clock.now_s += 0.3
    assert desk.operator.holds()


def test_pause_holds_and_the_policy_looks_once_before_it_goes_on():
    desk = Desk()
    desk.operator.pause(True)
    assert desk.operator.holds()
    assert desk.operator.control == "hold"
    desk.operator.pause(False)
    assert not desk.operator.holds()
    tweak = desk.operator.tweak(POLICY)
    assert tweak is not None
    assert not tweak.is_correction
    np.testing.assert_array_equal(tweak.action[:6], 0.0)


def test_a_stop_is_not_taken_back_and_reaches_a_robot_that_is_held():
    stop = threading.Event()
    operator = BrowserOperator(lambda: False, stop=stop)
    operator.mark("stop")
    operator.mark("success")
    assert stop.is_set()
    assert operator.take_mark() == "stop"
    assert operator.take_mark() is None
    operator.pause(True)
    assert operator.holds()
    assert operator.take_mark() == "stop"


def test_a_mark_of_the_last_episode_does_not_end_the_next():
    desk = Desk()
    desk.operator.mark("success")
    desk.operator.begin("reach", 1)
    assert desk.operator.take_mark() is None


def test_the_stand_in_acts_only_without_a_hand_and_only_when_wanted():
    class Helper:
        def begin(self, task, seed):
            pass

        def speak(self):
            return RefinementCommand((1, 0, 0))

        def tweak(self, policy_action):
            return Tweak(np.full(7, 0.25, np.float32))

    operator = BrowserOperator(lambda: False, helper=Helper())
    operator.begin("reach", 0)
    tweak = operator.tweak(POLICY)
    assert tweak.is_correction
    assert tweak.action[0] == 0.25
    assert operator.control == "helper"
    operator.drive(FORWARD)
    assert operator.tweak(POLICY).action[1] == 0.0
    assert operator.control == "human"
    operator.release()
    operator.helper_on = False
    for _ in range(8):
        last = operator.tweak(POLICY)
    assert last is None
    assert operator.speak() == NULL_COMMAND


events = st.lists(
    st.sampled_from(["drive", "release", "silence", "grip", "say", "alive", *["step"] * 3]),
    max_size=60,
)


@given(events)
def test_whatever_happens_the_robot_never_moves_for_a_hand_that_is_gone(sequence):
    """No motion of the hand's outlives its last sign by more than the limit and one period; none is too large."""
    desk = Desk(silence_s=0.25, hold_steps=2, ramp_steps=2)
    heard_s, held = -np.inf, False
    for event in sequence:
        if event == "drive":
            desk.operator.drive(FORWARD)
            heard_s, held = desk.clock.now_s, True
        elif event == "release":
            desk.operator.release()
            held = False
        elif event == "grip":
            desk.operator.grip(True)
        elif event == "say":
            desk.operator.say(RefinementCommand((0, 0, 1)))
        elif event == "alive":
            desk.operator.alive()
        elif event == "silence":
            desk.clock.now_s += 0.3
        else:
            there = held and desk.clock.now_s - heard_s < 0.25
            action, human = desk.step()
            assert np.abs(action).max() <= 1.0
            # POLICY pulls aside, the hand forward: what moves forward alone is the hand's.
            if human and np.abs(action[:6]).max() > 0:
                assert there
            if there:
                assert human
                assert action[1] == 0.0


@pytest.mark.parametrize(
    "bad", [{"silence_s": 0.0}, {"silence_s": 2.0}, {"hold_steps": 0}, {"after": "drift"}]
)
def test_a_seat_that_makes_no_sense_is_refused(bad, unchecked_calls):
    with pytest.raises(HilDaftError, match=next(iter(bad))):
        SeatConfig(**bad)


def test_motion_that_is_not_a_number_is_refused():
    with pytest.raises(HilDaftError, match="motion"):
        Desk().operator.drive(np.full(6, np.nan, np.float32))


def test_the_person_is_told_when_they_have_no_part_in_what_happens():
    operator = BrowserOperator(lambda: False)
    operator.begin("pick", 0)
    assert not operator.aside
    operator.stand_aside("helper")
    assert operator.aside
    operator.begin_demonstration("pick", 1)
    assert not operator.aside
