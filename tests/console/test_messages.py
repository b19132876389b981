"""Whatever comes in: a message that is whole, or one clear line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.console.messages import Drive, Say, parse_message
from hildaft.console.station import base_motion
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import HilDaftError

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
names = ("type", "motion", "signs", "keep", "text", "act", "key", "change", "robot", "stamp", "on")
names = (*names, "number")
kinds = ("drive", "release", "grip", "say", "text", "key", "seat", "select", "review", "beat")
kinds = (*kinds, "seen")


@given(st.dictionaries(st.sampled_from(names), anything), st.sampled_from(kinds) | anything)
def test_no_message_gets_through_half_checked(fields, kind):
    try:
        message = parse_message(json.dumps({**fields, "type": kind}))
    except HilDaftError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
    assert len(refusal) <= 300
    if refusal:
        return
    if isinstance(message, Drive):
        assert message.motion.shape == (6,)
        assert np.abs(message.motion).max() <= 1.0
    if isinstance(message, Say):
        assert set(message.said.signs) <= {-1, 0, 1}


BEYOND_FLOATS = int("9" * 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "drive", "motion": [BEYOND_FLOATS, 0, 0, 0, 0, 0]},
        {"type": "drive", "motion": [0, 0, 0, 0, 0, -BEYOND_FLOATS]},
        {"type": "beat", "stamp": BEYOND_FLOATS},
        {"type": "say", "signs": [0, BEYOND_FLOATS, 0]},
        {"type": "seen", "number": -BEYOND_FLOATS},
    ],
)
def test_a_whole_number_beyond_every_float_is_refused_in_one_line(fields):
    with pytest.raises(HilDaftError) as refused:
        parse_message(json.dumps(fields))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 300


@given(st.text(max_size=80))
def test_text_that_is_no_message_is_refused(text):
    with pytest.raises(HilDaftError):
        parse_message(text)


def test_the_hand_turns_with_the_operators_frame():
    motion = np.array([1, 0.5, 0.25, 0.1, 0.2, 0.3], np.float32)
    np.testing.assert_array_equal(base_motion(OperatorFrame(), motion), motion)
    across = OperatorFrame(forward="-x", left="-y", up="+z")
    np.testing.assert_allclose(base_motion(across, motion), motion * [-1, -1, 1, -1, -1, 1])
