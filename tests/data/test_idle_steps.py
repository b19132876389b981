import numpy as np
import pytest

from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.idle_steps import idle_steps, without_idle_steps
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Encoded, Observation

SCALE = ActionScale()


def demonstration(forward, jaws):
    builder = EpisodeBuilder(
        task="reach",
        source="demo",
        robot="point",
        seed=0,
        policy_version=-1,
        encoder_hash="",
        action_scale=SCALE,
    )
    for row in range(len(forward) + 1):
        value = np.array([row], np.float32)
        image = np.full((8, 8, 3), 10 * row, np.uint8)
        builder.observe(
            Observation(images={"head": image}, proprio=np.zeros(2, np.float32)),
            Encoded(h=value, features=value, proprio=np.zeros(2, np.float32)),
        )
        if row < len(forward):
            action = np.zeros(7, np.float32)
            action[0], action[6] = forward[row], jaws[row]
            last = row == len(forward) - 1
            builder.act(
                policy_action=None,
                human_action=action,
                executed_action=action,
                reward=float(last),
                terminated=last,
                truncated=False,
            )
    return builder.build(label_tweaks)


def test_rest_goes_and_the_ends_the_motion_and_the_jaws_stay():
    episode = demonstration([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [-1, -1, -1, 1, 1, 1, 1])
    np.testing.assert_array_equal(idle_steps(episode, SCALE), [0, 0, 1, 0, 0, 1, 0])
    kept = without_idle_steps(episode, SCALE, label_tweaks)
    assert len(kept) == 5
    np.testing.assert_array_equal(kept.h[:, 0], [0, 1, 3, 4, 6, 7])
    assert len(kept.images["head"]) == 6
    assert kept.success
    assert kept.reward.tolist() == [0, 0, 0, 0, 1]
    assert kept.terminated.tolist() == [False] * 4 + [True]
    np.testing.assert_array_equal(kept.executed_action[:, 0], [0, 1, 0, 1, 0])


def test_labels_follow_the_steps_that_are_left():
    # Five idle rows hide the motion from eq. 12's window; without them the label sees it.
    episode = demonstration([0.001] + [0.0] * 6 + [1.0, 1.0], [-1] * 9)
    assert episode.displacement_m[0, 0] < 0.001
    kept = without_idle_steps(episode, SCALE, label_tweaks)
    assert kept.displacement_m[0, 0] == pytest.approx(0.030015)


def test_an_episode_without_rest_is_left_alone():
    episode = demonstration([1.0, 1.0], [-1, -1])
    assert without_idle_steps(episode, SCALE, label_tweaks) is episode
