import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hildaft.teleop.talk import (
    PHRASES,
    OperatorFrame,
    command_from_displacement,
    label_tweaks,
    sum_displacements,
)
from hildaft.types import ActionScale, HilDaftError, RefinementCommand

SCALE = ActionScale(translation_m=0.01)


def actions(*x: float) -> np.ndarray:
    out = np.full((len(x), 7), 0.5, dtype=np.float32)
    out[:, 0], out[:, 1], out[:, 2] = x, 0.0, [-v for v in x]
    return out


@pytest.mark.parametrize(
    ("displacement", "signs"),
    [
        ((0.002, -0.002, 0.0), (1, -1, 0)),
        ((0.001, -0.001, 0.0), (0, 0, 0)),
        ((0.0010001, -0.0010001, 0.0009), (1, -1, 0)),
        ((0.0, 0.0, 0.05), (0, 0, 1)),
    ],
)
def test_eq_13(displacement: tuple[float, float, float], signs: tuple[int, int, int]) -> None:
    assert command_from_displacement(np.array(displacement)) == RefinementCommand(signs)


def test_eq_12_sums_five_steps_forward_and_shortens_at_the_end_of_the_run() -> None:
    translation = np.zeros((8, 3))
    translation[:, 0] = [1, 2, 4, 8, 16, 32, 64, 128]
    is_human = np.array([True] * 7 + [False])
    summed = sum_displacements(translation, is_human)[:, 0]
    assert summed.tolist() == [31, 62, 124, 120, 112, 96, 64, 0]


def test_labels_are_in_metres_and_never_cross_an_intervention() -> None:
    human = actions(0.2, 0.2, 0.0, 0.0, -0.2, -0.2)
    human[2:4] = np.nan
    is_human = np.array([True, True, False, False, True, True])
    labels, displacement = label_tweaks(human, is_human, SCALE)
    words = [PHRASES[label] for label in labels]
    right, left = (
        "positive x direction and negative z direction",
        "negative x direction and positive z direction",
    )
    assert words == [right, right, "[null]", "[null]", left, left]
    np.testing.assert_allclose(displacement[:, 0], [0.004, 0.002, 0, 0, -0.004, -0.002], rtol=1e-6)
    assert displacement.dtype == np.float32


def test_rotation_alone_is_no_command() -> None:
    labels, _ = label_tweaks(actions(0.0, 0.0, 0.0), np.ones(3, dtype=bool), SCALE)
    assert labels.tolist() == [13, 13, 13]


@given(
    is_human=hnp.arrays(np.bool_, st.integers(0, 30)),
    window=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_windows_match_a_brute_force_walk(is_human: np.ndarray, window: int, seed: int) -> None:
    translation = np.random.default_rng(seed).normal(size=(len(is_human), 3))
    got = sum_displacements(translation, is_human, window)
    for row in range(len(is_human)):
        expected, step = np.zeros(3), row
        while step < len(is_human) and is_human[step] and step < row + window:
            expected += translation[step]
            step += 1
        np.testing.assert_allclose(got[row], expected)


@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10.0))
def test_labels_do_not_depend_on_the_units_of_an_action(seed: int, factor: float) -> None:
    human = np.random.default_rng(seed).uniform(-1, 1, size=(9, 7))
    everywhere = np.ones(9, dtype=bool)
    _, plain = label_tweaks(human, everywhere, SCALE)
    _, scaled = label_tweaks(
        human * factor, everywhere, ActionScale(translation_m=SCALE.translation_m / factor)
    )
    np.testing.assert_allclose(plain, scaled, rtol=1e-5, atol=1e-9)


@given(seed=st.integers(0, 1000))
def test_the_opposite_correction_gets_the_opposite_words(seed: int) -> None:
    human = np.random.default_rng(seed).uniform(-0.3, 0.3, size=(9, 7))
    everywhere = np.ones(9, dtype=bool)
    labels, _ = label_tweaks(human, everywhere, SCALE)
    against, _ = label_tweaks(-human, everywhere, SCALE)
    for label, opposite in zip(labels, against, strict=True):
        assert RefinementCommand.from_index(int(label)).opposite.index == opposite


def test_phrases_are_27_different_ones() -> None:
    assert len(set(PHRASES)) == 27
    assert PHRASES[13] == "[null]"
    assert PHRASES[RefinementCommand((1, -1, 1)).index] == (
        "positive x direction and negative y direction and positive z direction"
    )


def test_words_as_the_operator_sees_the_robot() -> None:
    frame = OperatorFrame(forward="-y", left="+x", up="+z")
    assert frame.words(RefinementCommand((-1, -1, 0))) == "move right and forward"
    assert frame.words(RefinementCommand((1, 1, -1))) == "move left and back and down"
    assert frame.words(RefinementCommand((0, 0, 0))) == "[null]"
    said = {frame.words(RefinementCommand.from_index(index)) for index in range(27)}
    assert len(said) == 27


def test_impossible_frames_and_windows_are_refused() -> None:
    with pytest.raises(HilDaftError, match="left=-x"):
        OperatorFrame(forward="+x", left="-x", up="+z")
    with pytest.raises(HilDaftError, match="window=0"):
        sum_displacements(np.zeros((1, 3)), np.ones(1, dtype=bool), window=0)
