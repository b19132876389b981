import numpy as np
import pytest

from hildaft.data.episode_builder import EpisodeBuilder, decode_jpeg, encode_jpeg
from hildaft.teleop.talk import label_tweaks
from hildaft.types import NULL_COMMAND, ActionScale, Encoded, HilDaftError, Observation

RIGHT = np.array([1, 0, 0, 0, 0, 0, -1], np.float32)


def encoded(value=0.0):
    return Encoded(*(np.full(n, value, np.float32) for n in (4, 3, 2)))


def observation(level=0):
    return Observation(
        images={"head": np.full((16, 16, 3), level, np.uint8)}, proprio=np.zeros(2, np.float32)
    )


def builder(**changes):
    options = {
        "task": "pick",
        "source": "online",
        "robot": "A",
        "seed": 5,
        "policy_version": 2,
        "encoder_hash": "abc",
        "action_scale": ActionScale(),
    }
    return EpisodeBuilder(**{**options, **changes})


def collect(human_rows, *, steps=6, policy=True, reward=1.0, terminated=True, **changes):
    collected = builder(**changes)
    collected.observe(observation(0), encoded(0))
    for step in range(steps):
        human = RIGHT if step in human_rows else None
        last = step == steps - 1
        collected.act(
            policy_action=-RIGHT if policy else None,
            human_action=human,
            executed_action=-RIGHT if human is None else human,
            reward=reward if last else 0.0,
            terminated=terminated and last,
            truncated=not terminated and last,
        )
        collected.observe(observation(step + 1), encoded(step + 1))
    return collected.build(label_tweaks)


def test_interventions_keep_what_they_replaced_and_are_labelled():
    episode = collect({2, 3})
    np.testing.assert_array_equal(episode.is_intervention, [0, 0, 1, 1, 0, 0])
    assert np.isnan(episode.human_action[[0, 1, 4, 5]]).all()
    np.testing.assert_array_equal(episode.policy_action, np.tile(-RIGHT, (6, 1)))
    assert (episode.executed_action[2] == RIGHT).all()
    # Two steps of 15 mm to the right are left in the first row's window, one in the second's.
    np.testing.assert_allclose(episode.displacement_m[2:4, 0], [0.03, 0.015], atol=1e-7)
    assert (episode.refinement[2:4] != NULL_COMMAND.index).all()
    assert (episode.refinement[[0, 1, 4, 5]] == NULL_COMMAND.index).all()
    np.testing.assert_array_equal(episode.h[:, 0], range(7))


def test_a_demonstration_holds_no_intervention():
    episode = collect(range(6), policy=False, source="demo")
    assert not episode.is_intervention.any()
    assert np.isnan(episode.policy_action).all()
    assert (episode.refinement != NULL_COMMAND.index).all()


@pytest.mark.parametrize(
    ("reward", "terminated", "success"),
    [(1.0, True, True), (0.0, True, False), (1.0, False, False)],
)
def test_success_is_a_rewarded_termination(reward, terminated, success):
    assert collect((), reward=reward, terminated=terminated).success is success


def test_images_are_kept_as_they_were_when_seen():
    collected = builder()
    frame = np.full((16, 16, 3), 200, np.uint8)
    shared = Observation(images={"head": frame}, proprio=np.zeros(2, np.float32))
    collected.observe(shared, encoded())
    frame[:] = 10
    collected.act(
        policy_action=RIGHT,
        human_action=None,
        executed_action=RIGHT,
        reward=0.0,
        terminated=False,
        truncated=True,
    )
    collected.observe(shared, encoded())
    levels = [decode_jpeg(data).mean() for data in collected.build(label_tweaks).images["head"]]
    assert levels == pytest.approx([200, 10], abs=2)


def test_images_can_be_left_out():
    assert collect((), keep_images=False).images == {}


def test_jpeg_keeps_small_coloured_things():
    image = np.full((64, 64, 3), 120, np.uint8)
    image[30:34, 30:34] = (220, 40, 40)
    back = decode_jpeg(encode_jpeg(image)).astype(int)
    assert np.abs(back - image.astype(int)).mean() < 2
    np.testing.assert_allclose(back[31:33, 31:33].mean(axis=(0, 1)), (220, 40, 40), atol=12)


def test_an_unfinished_episode_is_refused():
    collected = builder()
    with pytest.raises(HilDaftError, match="0 steps and 0 observations"):
        collected.build(label_tweaks)
    collected.observe(observation(), encoded())
    with pytest.raises(HilDaftError, match="at least one step"):
        collected.build(label_tweaks)
