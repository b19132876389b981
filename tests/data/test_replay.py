from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.data.replay import Dims, Replay, States
from hildaft.types import Episode, HilDaftError, Source

TASKS = ("upright", "pick")
DIMS = Dims(h=2, features=3, proprio=2)
DISCOUNT = 0.5


def episode(
    number: int,
    human: list[bool],
    *,
    task: str = "pick",
    source: Source = "online",
    words: bool = True,
    terminated: bool = False,
) -> Episode:
    """An episode whose every entry tells its number and step."""
    t = len(human)
    stamp = 1000.0 * number + np.arange(t + 1, dtype=np.float32)
    is_intervention = np.array(human, dtype=bool)
    executed = np.repeat(stamp[:-1, None], 7, axis=1)
    ends = np.arange(t) == t - 1
    return Episode(
        task=task,
        source=source,
        robot="A",
        seed=number,
        policy_version=0,
        success=terminated,
        h=np.repeat(stamp[:, None], 2, axis=1),
        features=np.repeat(stamp[:, None], 3, axis=1),
        proprio=np.repeat(stamp[:, None], 2, axis=1),
        policy_action=executed,
        human_action=executed,
        executed_action=executed,
        is_intervention=is_intervention,
        spoken=np.full(t, 13),
        refinement=np.where(is_intervention & words, 26, 13),
        displacement_m=np.zeros((t, 3), dtype=np.float32),
        reward=(ends & terminated).astype(np.float32),
        terminated=ends & terminated,
        truncated=ends & (not terminated),
    )


def replay(capacity: int = 200, *, to_rollouts: bool = False) -> Replay:
    return Replay(TASKS, DIMS, discount=DISCOUNT, capacity=capacity, to_rollouts=to_rollouts)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(buffers: Replay, column: str) -> set[float]:
    """Stamps of every transition that `sample` can draw of the second task."""
    batch = buffers.sample(4000, generator(), "online")
    side = batch.from_demos[1] if column == "demos" else ~batch.from_demos[1]
    return set(batch.h[1, side, 0].tolist())


def with_first_task(buffers: Replay) -> Replay:
    buffers.add_episode(episode(90, [False, True], task="upright"))
    return buffers


def test_demonstrations_go_to_demos_only() -> None:
    buffers = replay()
    buffers.add_episode(episode(1, [False] * 4, source="demo"))
    counts = buffers.counts()
    assert counts["pick"] == {"demos": 4, "rollouts": 0, "interventions": 0, "talk_tweak": 0}
    assert counts["upright"] == {"demos": 0, "rollouts": 0, "interventions": 0, "talk_tweak": 0}


def test_online_steps_go_where_algorithm_1_sends_them() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False, False, True, True, False, True]))
    counts = buffers.counts()["pick"]
    assert counts == {"demos": 3, "rollouts": 3, "interventions": 3, "talk_tweak": 3}
    assert drawn(buffers, "demos") == {1002, 1003, 1005}
    assert drawn(buffers, "rollouts") == {1000, 1001, 1004}


def test_interventions_can_go_to_the_rollouts_too() -> None:
    buffers = with_first_task(replay(to_rollouts=True))
    buffers.add_episode(episode(1, [False, True, True]))
    assert buffers.counts()["pick"]["rollouts"] == 3
    assert buffers.counts()["pick"]["demos"] == 2


def test_a_hand_overs_steps_are_kept_and_marked_as_nobodys_choice() -> None:
    """Between a correction and the policy's next step a person's arm stands still, then gathers speed."""
    buffers = with_first_task(replay())
    lived = episode(1, [False, True, False, False, False], terminated=True)
    policy, human, executed = (np.zeros((5, 7), np.float32) for _ in range(3))
    # Beyond the range, as a policy may say it; the robot gets it cut.
    policy[:], executed[:] = 1.5, 1.0
    executed[2], executed[3] = 0.0, 0.5
    human[:] = np.nan
    human[1], executed[1] = -0.25, -0.25
    buffers.add_episode(
        replace(lived, policy_action=policy, human_action=human, executed_action=executed)
    )
    buffers.add_episode(episode(2, [False, True]))
    batch = buffers.sample(4000, generator(), "online")
    stamps, chosen = batch.h[1, :, 0], batch.is_chosen[1]
    assert set(stamps[~chosen].tolist()) == {1002, 1003}
    assert set(stamps[chosen].tolist()) == {1000, 1001, 1004, 2000, 2001}


def test_an_episode_without_a_policys_action_is_somebodys_choice() -> None:
    buffers = replay()
    nothing = np.full((3, 7), np.nan, np.float32)
    for task in TASKS:
        recorded = episode(1, [False] * 3, task=task, source="demo")
        buffers.add_episode(replace(recorded, policy_action=nothing))
    assert buffers.sample(50, generator(), "warmup").is_chosen.all()


def test_corrections_without_words_are_no_talk_and_tweak() -> None:
    buffers = replay()
    buffers.add_episode(episode(1, [True, True], words=False))
    assert buffers.counts()["pick"]["interventions"] == 2
    assert buffers.counts()["pick"]["talk_tweak"] == 0


def test_next_state_is_the_next_observation_also_after_the_last_step_of_a_run() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False, True, False, False, True]))
    buffers.add_episode(episode(2, [True, False, True]))
    batch = buffers.sample(500, generator(), "online")
    for now, following in (
        (batch.h, batch.next_h),
        (batch.features, batch.next_features),
        (batch.proprio, batch.next_proprio),
    ):
        torch.testing.assert_close(following, now + 1.0)
    torch.testing.assert_close(batch.action[..., 0], batch.h[..., 0])


def test_truncation_keeps_the_bootstrap_and_termination_does_not() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False, True], terminated=False))
    buffers.add_episode(episode(2, [True, False], terminated=True))
    batch = buffers.sample(500, generator(), "online")
    flat = batch.h[1, :, 0]
    assert (batch.not_terminal[1, flat < 2000] == 1.0).all()
    assert (batch.not_terminal[1, flat == 2000] == 1.0).all()
    assert (batch.not_terminal[1, flat == 2001] == 0.0).all()
    assert (flat == 2001).any()


def test_return_is_discounted_from_the_end() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False] * 4, source="demo", terminated=True))
    batch = buffers.sample(400, generator(), "warmup")
    for step, expected in enumerate((0.125, 0.25, 0.5, 1.0)):
        row = batch.h[1, :, 0] == 1000 + step
        assert row.any()
        assert (batch.mc_return[1, row] == expected).all()


def test_batches_are_half_demos_and_half_rollouts_online_and_all_demos_in_the_warmup() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False, True]))
    online = buffers.sample(6, generator(), "online")
    assert online.from_demos.tolist() == [[True] * 3 + [False] * 3] * 2
    assert online.h.shape == (2, 6, 2)
    assert buffers.sample(6, generator(), "warmup").from_demos.all()


def test_talk_tweak_is_balanced_over_the_tasks_that_have_any() -> None:
    buffers = replay()
    buffers.add_episode(episode(1, [True] * 30))
    alone = buffers.sample_talk_tweak(8, generator())
    assert alone.tasks == (1,)
    assert alone.command.shape == (1, 8)
    buffers.add_episode(episode(2, [True, False], task="upright"))
    both = buffers.sample_talk_tweak(8, generator())
    assert both.tasks == (0, 1)
    assert both.h.shape == (2, 4, 2)
    assert (both.h[0, :, 0] == 2000).all()
    assert (both.command == 26).all()


def test_sampling_is_seeded() -> None:
    buffers = with_first_task(replay())
    buffers.add_episode(episode(1, [False, True] * 5))
    first, again = (buffers.sample(20, generator(), "online") for _ in range(2))
    assert torch.equal(first.h, again.h)


def test_empty_buffers_are_named() -> None:
    buffers = replay()
    with pytest.raises(HilDaftError, match="demos of task 'upright' is empty"):
        buffers.sample(4, generator(), "warmup")
    with pytest.raises(HilDaftError, match="talk-and-tweak set is empty"):
        buffers.sample_talk_tweak(4, generator())


def test_foreign_episodes_are_refused() -> None:
    buffers = replay(capacity=5)
    good = episode(1, [False] * 3)
    buffers.add_episode(good)
    with pytest.raises(HilDaftError, match="task='pour'"):
        buffers.add_episode(replace(good, task="pour"))
    with pytest.raises(HilDaftError, match="source='eval'"):
        buffers.add_episode(replace(good, source="eval"))
    with pytest.raises(HilDaftError, match="encoder_hash='other'"):
        buffers.add_episode(replace(good, encoder_hash="other"))
    with pytest.raises(HilDaftError, match="widths"):
        buffers.add_episode(replace(good, h=good.h[:, :1]))
    with pytest.raises(HilDaftError, match="capacity is 5"):
        buffers.add_episode(episode(1, [False] * 5))
    with pytest.raises(HilDaftError, match="capacity=1"):
        replay(capacity=1)


def test_states_leave_out_the_last_observation() -> None:
    states = States.of([episode(1, [False] * 2), episode(2, [True])], torch.device("cpu"))
    assert states.h[:, 0].tolist() == [1000, 1001, 2000]


@settings(max_examples=60, deadline=None)
@given(episodes=st.lists(st.lists(st.booleans(), min_size=1, max_size=11), min_size=1, max_size=25))
def test_a_full_store_forgets_its_oldest_rows_and_never_mixes_episodes(
    episodes: list[list[bool]],
) -> None:
    capacity = 24
    buffers = replay(capacity)
    buffers.add_episode(episode(900, [False, True], task="upright"))
    # So that both stores of the second task hold something.
    episodes = [[False, True], *episodes, [True, False]]
    expected: dict[str, list[float]] = {"demos": [], "rollouts": []}
    for number, human in enumerate(episodes):
        buffers.add_episode(episode(number, human))
        for step, is_human in enumerate(human):
            expected["demos" if is_human else "rollouts"].append(1000.0 * number + step)
    batch = buffers.sample(600, generator(), "online")
    torch.testing.assert_close(batch.next_h, batch.h + 1.0)
    torch.testing.assert_close(batch.action[..., 0], batch.h[..., 0])
    counts = buffers.counts()["pick"]
    for store in ("demos", "rollouts"):
        held = drawn(buffers, store)
        # Exactly the newest rows are there.
        assert held == set(expected[store][-counts[store] :])
        # Frames cost at most two per transition, and a wrap leaves less than one episode unused.
        assert counts[store] >= min(len(expected[store]), (capacity - 12) // 2 - 12 // 2)
    assert counts["interventions"] == counts["talk_tweak"] == counts["demos"]


def test_robots_have_equal_shares_once_they_have_rows_enough():
    replay = Replay(("pick",), Dims(2, 2, 2), discount=0.97)
    many, few = 1500, 300
    for robot, steps in (("fast", many), ("slow", few)):
        replay.add_episode(robot_episode(robot, steps))
    batch = replay.sample(8_000, torch.Generator().manual_seed(0), "warmup")
    share = (batch.h[0, :, 0] == 1).float().mean()
    assert 0.47 < share < 0.53


def test_a_robot_that_has_just_joined_is_not_drawn_again_and_again():
    replay = Replay(("pick",), Dims(2, 2, 2), discount=0.97)
    for robot, steps in (("fast", 1500), ("slow", 8)):
        replay.add_episode(robot_episode(robot, steps))
    batch = replay.sample(8_000, torch.Generator().manual_seed(0), "warmup")
    share = (batch.h[0, :, 0] == 1).float().mean()
    assert 0.015 < share < 0.05


def test_with_one_robot_the_draw_is_the_plain_uniform_one():
    replay = Replay(("pick",), Dims(2, 2, 2), discount=0.97)
    replay.add_episode(robot_episode("fast", 700))
    batch = replay.sample(64, torch.Generator().manual_seed(3), "warmup")
    share = torch.rand(1, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(batch.h[0, :, 1], (share * 700).long()[0].float(), rtol=0, atol=0)


def robot_episode(robot, steps):
    zeros = np.zeros((steps, 7), np.float32)
    h = np.stack([np.full(steps + 1, float(robot == "slow")), np.arange(steps + 1)], axis=1).astype(
        np.float32
    )
    none, last = np.zeros(steps, np.int64), np.arange(steps) == steps - 1
    return Episode(
        task="pick",
        source="demo",
        robot=robot,
        seed=0,
        policy_version=-1,
        success=True,
        h=h,
        features=np.zeros((steps + 1, 2), np.float32),
        proprio=np.zeros((steps + 1, 2), np.float32),
        policy_action=np.full((steps, 7), np.nan, np.float32),
        human_action=zeros,
        executed_action=zeros,
        is_intervention=np.zeros(steps, bool),
        spoken=none + 13,
        refinement=none + 13,
        displacement_m=np.zeros((steps, 3), np.float32),
        reward=last.astype(np.float32),
        terminated=last,
        truncated=np.zeros(steps, bool),
    )
