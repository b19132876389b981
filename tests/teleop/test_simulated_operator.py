"""The simulated operator: a pure oracle inside, human outside, fair in what it says."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.tasks import TASKS
from hildaft.teleop.oracle import oracle_action, oracle_displacement_m, remaining_steps
from hildaft.teleop.person import OperatorConfig, TalkMode
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import NULL_COMMAND, ActionScale, HilDaftError, SceneState

SCALE = ActionScale()
STILL_OPEN = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[BoltEnv]:
    bench = BoltEnv("A")
    bench.scene.render = lambda *_: {"wrist": None, "head": None}
    yield bench
    bench.close()


def a_state(task: str = "pick", **changes: object) -> SceneState:
    state = SceneState(
        task=task,
        ee_position_m=np.array([0.45, 0.11, 0.15]),
        ee_rotation=np.diag([1.0, -1.0, -1.0]),
        jaw_opening_m=0.03,
        jaw_closed=False,
        bolt_position_m=np.array([0.50, 0.12, 0.0]),
        bolt_rotation=np.eye(3),
        bolt_held=False,
        slot_position_m=np.array([0.5, 0.3, 0.0]),
        slot_rotation=np.eye(3),
        spot_position_m=np.array([0.50, 0.12, 0.0]),
        success=False,
    )
    return replace(state, **changes)


near = st.floats(-0.15, 0.15)


@settings(max_examples=60)
@given(st.sampled_from(TASKS), near, near, near, st.booleans(), st.booleans(), st.floats(0.1, 1.0))
def test_the_oracle_is_a_bounded_pure_function(task, x, y, z, held, closed, speed) -> None:
    state = a_state(
        task,
        ee_position_m=np.array([0.5 + x, 0.12 + y, 0.2 + z]),
        bolt_held=held,
        jaw_closed=closed,
    )
    action = oracle_action(state, SCALE, speed)
    assert action.shape == (7,)
    assert action.dtype == np.float32
    assert np.isfinite(action).all()
    assert np.abs(action[:6]).max() <= speed + 1e-6
    assert abs(action[6]) == 1.0
    np.testing.assert_array_equal(action, oracle_action(state, SCALE, speed))
    assert remaining_steps(state, SCALE) > 0


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_does_not_care_which_way_the_base_faces(env: BoltEnv, task: str) -> None:
    env.reset(seed=3, options={"task": task})
    state = env.scene_state()
    c, s = np.cos(0.6), np.sin(0.6)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    turned = replace(
        state,
        **{
            name: turn @ getattr(state, name)
            for name in (
                "ee_position_m",
                "ee_rotation",
                "bolt_position_m",
                "bolt_rotation",
                "slot_position_m",
                "slot_rotation",
                "spot_position_m",
            )
        },
    )
    first = oracle_displacement_m(state, SCALE, 1000)
    np.testing.assert_allclose(turn @ first, oracle_displacement_m(turned, SCALE, 1000), atol=1e-9)


def demonstrate(env: BoltEnv, operator: SimulatedOperator, task: str, seed: int):
    env.reset(seed=seed, options={"task": task})
    operator.begin(task, seed)
    actions = []
    while True:
        actions.append(operator.demonstrate())
        _, _, terminated, truncated, _ = env.step(actions[-1])
        if terminated or truncated:
            return terminated, np.stack(actions)


@pytest.mark.parametrize("task", TASKS)
def test_demonstrations_succeed_and_repeat_from_the_seed(env: BoltEnv, task: str) -> None:
    operator = SimulatedOperator(env.scene_state, env.action_scale)
    runs = [demonstrate(env, operator, task, seed) for seed in (20, 21, 22, 20)]
    assert [success for success, _ in runs] == [True] * 4
    np.testing.assert_array_equal(runs[0][1], runs[3][1])
    assert runs[0][1].shape != runs[1][1].shape or (runs[0][1] != runs[1][1]).any()


def test_hands_err_in_proportion_to_their_speed() -> None:
    state = a_state()
    operator = SimulatedOperator(lambda: state, SCALE, OperatorConfig(pause_rate=0.0))
    operator.begin("pick", 0)
    actions = np.stack([operator.demonstrate() for _ in range(4000)])
    spread = actions[:, :6].std(axis=0)
    pace = np.abs(oracle_action(state, SCALE, 0.9)[:6])
    np.testing.assert_allclose(spread, 0.1 * (0.25 + 0.75 * pace), rtol=0.15)
    lagged = np.corrcoef(actions[:-1, 3], actions[1:, 3])[0, 1]
    assert lagged == pytest.approx(0.6, abs=0.1)


def test_pauses_are_short_and_keep_the_jaws() -> None:
    state = a_state(jaw_closed=True)
    operator = SimulatedOperator(lambda: state, SCALE, OperatorConfig(pause_rate=0.1))
    operator.begin("pick", 0)
    actions = np.stack([operator.demonstrate() for _ in range(2000)])
    paused = (actions[:, :6] == 0).all(axis=1)
    assert 0.1 < paused.mean() < 0.3
    assert (actions[paused, 6] == 1.0).all()


def test_the_button_is_pressed_late_in_a_demonstration_and_at_once_in_a_correction() -> None:
    above = a_state(ee_position_m=np.array([0.50, 0.12, 0.0385]))
    assert oracle_action(above, SCALE)[6] == 1.0
    config = OperatorConfig(noise=0.0, pause_rate=0.0, button_steps=(1, 3), catch_gripper=1.0)
    late = []
    for seed in range(60):
        operator = SimulatedOperator(lambda: above, SCALE, config)
        operator.begin("pick", seed)
        actions = np.stack([operator.demonstrate() for _ in range(5)])
        # The arm goes on while the button is not pressed yet.
        np.testing.assert_array_equal(actions[:, :6], [oracle_action(above, SCALE, 0.9)[:6]] * 5)
        jaws = actions[:, 6].tolist()
        late.append(jaws.index(1.0))
        assert jaws == [-1.0] * late[-1] + [1.0] * (5 - late[-1])
    assert set(late) == {1, 2, 3}
    operator = SimulatedOperator(lambda: above, SCALE, config)
    operator.begin("pick", 0)
    tweak = operator.tweak(STILL_OPEN)
    assert tweak is not None
    assert tweak.action[6] == 1.0


def test_a_press_that_is_no_longer_wanted_is_forgotten() -> None:
    there = a_state(ee_position_m=np.array([0.50, 0.12, 0.0385]))
    away = a_state()
    sights = iter([there, there, away, there, there, there])
    config = OperatorConfig(pause_rate=0.0, button_steps=(2, 2))
    operator = SimulatedOperator(lambda: next(sights), SCALE, config)
    operator.begin("pick", 0)
    assert [operator.demonstrate()[6] for _ in range(6)] == [-1.0] * 5 + [1.0]


def test_it_corrects_a_stall_after_a_delay_for_a_burst_within_its_share() -> None:
    state = a_state()
    config = OperatorConfig(reaction_steps=(2, 2), burst_steps=(5, 5), max_share=0.2)
    operator = SimulatedOperator(lambda: state, SCALE, config)
    operator.begin("pick", 0)
    acted = [operator.tweak(STILL_OPEN) is not None for _ in range(50)]
    first = acted.index(True)
    # 7 observations make 6 steps of patience; the seventh notices, two more pass.
    assert first == 6 + 2
    assert acted[first : first + 5] == [True] * 5
    assert not acted[first + 5]
    assert sum(acted) == 10


@pytest.mark.parametrize("task", TASKS)
def test_who_does_it_right_is_left_alone(env: BoltEnv, task: str) -> None:
    config = OperatorConfig(talk="right")
    operator = SimulatedOperator(env.scene_state, env.action_scale, config)
    spoken = []
    for seed in range(30, 35):
        env.reset(seed=seed, options={"task": task})
        operator.begin(task, seed)
        over = False
        while not over:
            spoken.append(operator.speak() != NULL_COMMAND)
            action = oracle_action(env.scene_state(), env.action_scale)
            assert operator.tweak(action) is None
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    assert np.mean(spoken) < 0.05


@pytest.mark.parametrize(
    ("pace", "aside_m", "heard"),
    [(1.0, 0.0, False), (1.6, 0.0, False), (0.3, 0.0, True), (0.2, 0.012, True)],
    ids=["as a skilled hand", "quicker", "slower", "aside"],
)
def test_words_come_where_the_arm_stays_behind_or_goes_aside(pace, aside_m, heard) -> None:
    place = np.array([0.40, 0.0, 0.30])
    operator = SimulatedOperator(
        lambda: a_state(ee_position_m=place.copy()), SCALE, OperatorConfig(talk="right")
    )
    operator.begin("pick", 0)
    for _ in range(4):
        spoken = operator.speak() != NULL_COMMAND
        operator.tweak(STILL_OPEN)
        stride = oracle_displacement_m(a_state(ee_position_m=place.copy()), SCALE, 1)
        aside = np.cross(stride, [0.0, 0.0, 1.0])
        place += pace * stride + aside_m * aside / np.linalg.norm(aside)
    assert spoken is heard


def test_it_can_catch_a_drop_before_it_happens() -> None:
    held = a_state(
        bolt_held=True,
        jaw_closed=True,
        jaw_opening_m=0.01,
        ee_position_m=np.array([0.50, 0.12, 0.07]),
        bolt_position_m=np.array([0.50, 0.12, 0.03]),
    )
    config = OperatorConfig(catch_gripper=1.0, noise=0.0)
    operator = SimulatedOperator(lambda: held, SCALE, config)
    operator.begin("pick", 0)
    tweak = operator.tweak(STILL_OPEN)
    assert tweak is not None
    assert tweak.action[6] == 1.0


def test_talk_names_the_way_there_holds_it_and_its_opposite() -> None:
    state = a_state()
    spoken = {}
    for talk in ("none", "right", "opposite"):
        config = OperatorConfig(talk=talk, tweaks=False)
        operator = SimulatedOperator(lambda: state, SCALE, config)
        operator.begin("pick", 0)
        spoken[talk] = []
        for _ in range(11):
            spoken[talk].append(operator.speak())
            assert operator.tweak(STILL_OPEN) is None
    assert set(spoken["none"]) == {NULL_COMMAND}
    # The bolt is 5 cm ahead along x, 1 cm along y, the grip 11 cm below: y is too little to say.
    # An arm that does not move is noticed after three steps.
    assert spoken["right"][:3] == [NULL_COMMAND] * 3
    assert [word.signs for word in spoken["right"][3:]] == [(1, 0, -1)] * 8
    assert [word.signs for word in spoken["opposite"][3:]] == [(-1, 0, 1)] * 8


@pytest.mark.parametrize(("talk", "sign"), [("right", 1), ("opposite", -1)])
def test_a_right_word_that_has_become_wrong_is_taken_back(talk: TalkMode, sign: int) -> None:
    place = np.array([0.40, 0.0, 0.30])
    config = OperatorConfig(talk=talk, tweaks=False)
    operator = SimulatedOperator(lambda: a_state(ee_position_m=place.copy()), SCALE, config)
    operator.begin("pick", 0)
    for _ in range(4):
        word = operator.speak()
        operator.tweak(STILL_OPEN)
    assert word.signs[0] == sign
    # Over the bolt and beyond, with two of its steps to come.
    place[0] = 0.60
    assert operator.speak().signs[0] in ((0, -1) if talk == "right" else (-1,))


def test_random_talk_is_random_and_never_silent_when_it_speaks() -> None:
    state = a_state()
    words = set()
    for seed in range(60):
        operator = SimulatedOperator(lambda: state, SCALE, OperatorConfig(talk="random"))
        operator.begin("pick", seed)
        for _ in range(7):
            word = operator.speak()
            operator.tweak(STILL_OPEN)
        words.add(word.index)
    assert NULL_COMMAND.index not in words
    assert len(words) > 15


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise", -0.1),
        ("speed", 0.0),
        ("noise_memory", 1.0),
        ("max_share", 1.5),
        ("burst_steps", (9, 5)),
        ("button_steps", (-1, 2)),
        ("patience_steps", 0),
        ("talk", "loud"),
    ],
)
def test_bad_settings_are_one_clear_line(field: str, value: object) -> None:
    with pytest.raises(HilDaftError, match=rf"OperatorConfig\.{field}=.*allowed"):
        OperatorConfig(**{field: value})
