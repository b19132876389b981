"""Many tasks take turns: each has its share, and what an update does not draw it does not touch."""

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hildaft.algo import losses
from hildaft.algo.dual_actor import HILDAFT, PAPER, Dims, DualActor, DualActorConfig
from hildaft.algo.ensembles import take_turns
from hildaft.algo.training import Learner, TrainingConfig
from hildaft.baselines import dsrl
from hildaft.data.replay import Batch, Phase, Replay, TalkTweakBatch
from hildaft.types import HilDaftError
from small_networks import DIMS, TABLE, B, make_batch, shrink
from synthetic import DIMS as EPISODE_DIMS
from synthetic import random_episode

FIVE = tuple("abcde")
SMALL = replace(shrink(HILDAFT), tasks_per_update=2)


def build(
    config: DualActorConfig = SMALL, tasks: tuple[str, ...] = FIVE, dims: Dims = DIMS
) -> DualActor:
    return DualActor(config, tasks, dims, TABLE, 0)


def talk(tasks: tuple[int, ...]) -> TalkTweakBatch:
    rows = make_batch(range(len(tasks)), 50)
    return TalkTweakBatch(
        h=rows.h,
        features=rows.features,
        proprio=rows.proprio,
        action=rows.action,
        command=torch.zeros(len(tasks), B, dtype=torch.int64),
        tasks=tasks,
    )


@given(st.integers(1, 60), st.integers(0, 20))
def test_groups_are_as_few_and_as_even_as_can_be(tasks: int, at_most: int) -> None:
    turns = take_turns(tasks, at_most)
    assert [task for turn in turns for task in turn] == list(range(tasks))
    sizes = [len(turn) for turn in turns]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    if at_most:
        assert max(sizes) <= at_most
        assert (len(turns) - 1) * at_most < tasks
    else:
        assert len(turns) == 1


def test_tasks_share_every_update_up_to_the_limit_and_in_the_paper() -> None:
    limit = HILDAFT.tasks_per_update
    few = tuple(str(i) for i in range(limit))
    assert build(replace(SMALL, tasks_per_update=limit), few).turns == (range(limit),)
    assert len(build(replace(SMALL, tasks_per_update=limit), (*few, "more")).turns) == 2
    assert build(replace(SMALL, tasks_per_update=PAPER.tasks_per_update)).turns == (range(5),)
    # One critic for all, or none, has nothing to gain from turns.
    assert build(replace(SMALL, shared_critic=True)).turns == (range(5),)


def test_up_to_the_limit_nothing_changes() -> None:
    states = []
    for limit in (0, 5):
        agent = build(replace(SMALL, tasks_per_update=limit))
        for step, phase in enumerate(("warmup", "online")):
            agent.update_critics(make_batch(range(5), step), phase)
            agent.update_primary(make_batch(range(5), step), phase)
        agent.update_refinement(talk((0, 3)))
        states.append(agent.state())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def per_task(state: dict[str, Tensor], agent: DualActor) -> list[dict[str, Tensor]]:
    """Critics, targets and moments of every task."""
    found: list[dict[str, Tensor]] = [{} for _ in FIVE]
    for name, value in state.items():
        part = name.split(".")[0]
        if part in ("critics", "targets"):
            for task, own in enumerate(found):
                own[name] = value[task]
    for turn in agent.turns:
        prefix = f"optimisers.critics.tasks {turn.start}-{turn.stop - 1}."
        for name, value in state.items():
            if name.startswith(prefix):
                for place, task in enumerate(turn):
                    own = value if name.endswith("step") else value[place]
                    found[task][name.removeprefix(prefix)] = own
    return found


@pytest.mark.parametrize("phase", ["warmup", "online"])
def test_an_update_steps_the_critics_of_its_tasks_alone(phase: Phase) -> None:
    agent = build()
    assert [list(turn) for turn in agent.turns] == [[0], [1, 2], [3, 4]]
    for turn in agent.turns:
        before = per_task(agent.state(), agent)
        agent.update_critics(make_batch(turn, 1), phase)
        after = per_task(agent.state(), agent)
        for task in range(5):
            same = [torch.equal(before[task][name], value) for name, value in after[task].items()]
            assert not any(same) if task in turn else all(same), task


@pytest.mark.parametrize("phase", ["warmup", "online"])
def test_a_group_learns_as_if_it_were_alone(phase: Phase) -> None:
    agent = build()
    followed = 1.0 - (1.0 - SMALL.target_rate) ** 3
    # Each group's twin has its tasks alone, and targets that follow as far as three updates take them.
    twins = [
        build(
            replace(SMALL, tasks_per_update=0, target_rate=followed), FIVE[turn.start : turn.stop]
        )
        for turn in agent.turns
    ]
    for twin, turn in zip(twins, agent.turns, strict=True):
        for name, weight in twin.ensembles.state().items():
            if not name.startswith("optimisers"):
                weight.copy_(agent.ensembles.state()[name][turn.start : turn.stop])
    for update in range(6):
        turn, twin = agent.turns[update % 3], twins[update % 3]
        rows = make_batch(turn, update)
        twin._generator.set_state(agent._generator.get_state())
        agent.update_critics(rows, phase)
        twin.update_critics(replace(rows, tasks=range(len(turn))), phase)
    ours = agent.ensembles.state()
    for twin, turn in zip(twins, agent.turns, strict=True):
        for name, value in twin.ensembles.state().items():
            if name.startswith("optimisers.critics."):
                short = name.removeprefix("optimisers.critics.")
                own = ours[f"optimisers.critics.tasks {turn.start}-{turn.stop - 1}.{short}"]
            else:
                own = ours[name][turn.start : turn.stop]
            torch.testing.assert_close(own, value, rtol=1e-5, atol=1e-6, msg=name)


def test_equation_16_compares_a_task_with_the_last_known_value_of_the_others() -> None:
    agent = build()
    known: dict[str, float] = {}
    for update in range(6):
        turn = agent.turns[update % 3]
        measured = agent.update_primary(make_batch(turn, update), "online")
        names = [FIVE[task] for task in turn]
        known |= {name: measured[f"actor/qbar/{name}"] for name in names}
        mine = [known[name] for name in names]
        # In the first round a task whose turn has not come counts as the mean of these.
        others = [known.get(name, sum(mine) / len(mine)) for name in FIVE]
        expected = losses.compute_task_weights(
            torch.tensor(mine),
            constant=SMALL.task_weight_constant,
            low=SMALL.task_weight_min,
            high=SMALL.task_weight_max,
            of_all=torch.tensor(others),
        )
        given = torch.tensor([measured[f"actor/eps/{name}"] for name in names])
        torch.testing.assert_close(given, expected)


def test_in_a_round_every_task_weighs_alike_for_the_actor() -> None:
    """Groups of one, two and two: the mean gradient of a round is that of all tasks at once."""
    config = replace(SMALL, reweight_tasks=False, tied_noise=0.0)
    whole = make_batch(range(5), 3)
    rounds: list[list[Tensor]] = []
    for limit in (0, 2):
        agent = build(replace(config, tasks_per_update=limit))
        steps: list[list[Tensor]] = []

        def keep(gradients: list[Tensor], steps: list[list[Tensor]] = steps) -> None:
            steps.append([gradient.clone() for gradient in gradients])

        agent._optimisers["primary"].step = keep  # pyright: ignore[reportAttributeAccessIssue]
        noise = torch.randn(5, B, 7, generator=torch.Generator().manual_seed(4))
        for turn in agent.turns:
            rows = slice(turn.start, turn.stop)
            part = {name: getattr(whole, name)[rows] for name in Batch.__slots__ if name != "tasks"}
            agent._draws = type("Same", (), {"noise": lambda _, __, n=noise[rows]: n})()  # pyright: ignore[reportAttributeAccessIssue]
            agent.update_primary(Batch(tasks=turn, **part), "online")
        rounds.append([torch.stack(g).mean(0) for g in zip(*steps, strict=True)])
    for at_once, in_turns in zip(*rounds, strict=True):
        torch.testing.assert_close(in_turns, at_once, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tasks", [(3,), (1, 2, 3), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_talk_and_tweak_rows_are_valued_by_the_critics_of_their_tasks(
    tasks: tuple[int, ...],
) -> None:
    agent, rows = build(), talk(tasks)
    values = agent.ensembles.members_q(rows.action, rows)
    for place, task in enumerate(tasks):
        one = slice(place, place + 1)
        alone = TalkTweakBatch(
            *(getattr(rows, name)[one] for name in TalkTweakBatch.__slots__[:-1]), tasks=(task,)
        )
        torch.testing.assert_close(values[one], agent.ensembles.members_q(alone.action, alone))


def test_every_task_is_reported_once_in_a_while() -> None:
    agent = build(replace(SMALL, metrics_every=3))
    reported: Counter[str] = Counter()
    updates = [agent.update_critics(make_batch(agent.turns[u % 3], u), "online") for u in range(18)]
    for metrics in updates:
        reported.update(name.split("/")[1] for name in metrics if name.endswith("q_mean"))
    assert reported == dict.fromkeys(FIVE, 2)
    assert [bool(metrics) for metrics in updates[:10]] == [True] * 3 + [False] * 6 + [True]


def learner(*, critic_updates: int = 1) -> Learner:
    replay = Replay(FIVE, EPISODE_DIMS, discount=0.97, capacity=512)
    training = TrainingConfig(
        batch_size=16,
        rollout_gate=10,
        talk_tweak_gate=1,
        refinement_batch_size=8,
        critic_updates=critic_updates,
    )
    built = Learner(training, build(dims=EPISODE_DIMS), replay, seed=0)
    source = np.random.default_rng(0)
    for task in FIVE:
        built.add_episode(random_episode(task, "demo", source, steps=30))
        built.add_episode(random_episode(task, "online", source, steps=30))
    return built


def test_the_learner_gives_every_task_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    built = learner(critic_updates=2)
    drawn: Counter[tuple[str, int]] = Counter()
    agent = built.dual_actor
    for name in ("update_critics", "update_primary", "update_refinement"):
        update = getattr(agent, name)

        def count(batch, *rest, name=name, update=update):
            for task in batch.tasks:
                drawn[name, task] += batch.h.shape[1]
            return update(batch, *rest)

        monkeypatch.setattr(agent, name, count)
    built.online_transitions = 15
    built.catch_up(lambda *_: None, threading.Event())
    assert built.online_updates == 15
    assert built.batch_per_task == 8
    # Five rounds of three groups; of the talk-and-tweak rows two tasks have their turn in each of 15 updates.
    for task in range(5):
        assert drawn["update_critics", task] == 2 * 5 * 8
        assert drawn["update_primary", task] == 5 * 8
        assert drawn["update_refinement", task] == 15 * 2 // 5 * 4


def test_resuming_in_the_middle_of_a_round_is_bit_exact() -> None:
    stop = threading.Event()

    def go_on(built: Learner, warmup: int, online: int) -> None:
        built.warm_up(warmup, lambda *_: None, stop)
        built.online_transitions = online
        built.catch_up(lambda *_: None, stop)

    whole = learner()
    go_on(whole, 4, 4)
    stored = whole.state()
    go_on(whole, 4, 9)
    resumed = learner()
    resumed.load_state(stored)
    go_on(resumed, 4, 9)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(HilDaftError, match=r"method\.tasks_per_update=-1: must be >= 0"):
        replace(HILDAFT, tasks_per_update=-1)


def test_dsrl_says_that_its_tasks_share_every_update() -> None:
    assert dsrl.METHOD.tasks_per_update == 0
    with pytest.raises(HilDaftError, match=r"method\.tasks_per_update=2: .* use 0"):
        dsrl.Dsrl(dsrl.DsrlConfig(variant="na"), build(), DIMS, 0)
