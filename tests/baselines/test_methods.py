"""The baselines that are configs: which loss reaches which network, and from which rows."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hildaft.algo.dual_actor import HILDAFT, DualActor, DualActorConfig
from hildaft.algo.training import Learner, TrainingConfig
from hildaft.baselines import cloning, hg_dagger, hil_conrft, single_actor
from hildaft.config import PRESETS, RunConfig
from hildaft.data.replay import Batch, Replay
from hildaft.models import critic
from hildaft.models.consistency import ConsistencyConfig, sample_primary_noise
from hildaft.types import Episode, HilDaftError
from small_networks import DIMS, TABLE, TASKS, B, N, make_batch, shrink


def build(method: DualActorConfig, tasks: tuple[str, ...] = TASKS) -> DualActor:
    return DualActor(shrink(method), tasks, DIMS, TABLE, 0)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    names = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    return {name.split(".")[0] + "." + name.split(".")[1] for name in names if "." in name}


class TestCloning:
    def test_critics_and_refinement_are_never_trained(self) -> None:
        agent = build(cloning.METHOD)
        before = agent.state()
        for phase in ("warmup", "online"):
            assert agent.update_critics(make_batch(), phase) == {}
            agent.update_primary(make_batch(), phase)
        touched = {name.split(".")[0] for name in changed(before, agent.state())}
        assert touched == {"actors", "acting", "optimisers"}
        assert not any("refinement" in name for name in changed(before, agent.state()))

    def test_the_loss_is_eq_5_alone(self) -> None:
        agent = build(cloning.METHOD)
        batch = make_batch()
        generator = torch.Generator().manual_seed(0)
        noise = sample_primary_noise((N, B), generator)
        action = agent.actors.primary_action(batch.h, batch.features, batch.proprio, noise)
        kept = ((action - batch.action) ** 2).sum(-1)[batch.from_demos]
        metrics = agent.update_primary(batch, "online")
        assert metrics["actor/bc_loss"] == pytest.approx(kept.mean().item(), rel=1e-5)
        assert "actor/q_loss" not in metrics


class TestHgDagger:
    def test_it_learns_from_demonstrations_and_interventions_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[str] = []
        agent = build(hg_dagger.METHOD)
        replay = Replay(TASKS, DIMS, discount=0.97)

        def sample(count: int, generator: torch.Generator, phase: str, tasks: range) -> Batch:
            drawn.append(phase)
            return make_batch()

        monkeypatch.setattr(replay, "sample", sample)
        learner = Learner(TrainingConfig(batch_size=24), agent, replay, seed=0)
        learner._update_online()
        # The replay's "warmup" rows are its demonstrations, to which every intervention is added.
        assert drawn == ["warmup"]
        assert agent.online_rows == "warmup"

    @pytest.mark.parametrize("method", [HILDAFT, single_actor.METHOD, hil_conrft.METHOD])
    def test_the_others_learn_from_rollouts_too(self, method: DualActorConfig) -> None:
        assert build(method).online_rows == "online"


class TestSingleActor:
    def test_it_has_no_refinement_actor(self) -> None:
        agent = build(single_actor.METHOD)
        before = agent.state()
        batch = make_batch()
        agent.update_critics(batch, "online")
        agent.update_primary(batch, "online")
        assert not agent.listens
        assert not any("refinement" in name for name in changed(before, agent.state()))

    def test_the_joint_loss_needs_a_refinement_actor(self) -> None:
        with pytest.raises(HilDaftError, match="joint_weight"):
            replace(HILDAFT, refinement_actor=False)

    def test_it_differs_from_ours_in_the_dual_actor_alone(self) -> None:
        ours, single = (dataclasses.asdict(m) for m in (HILDAFT, single_actor.METHOD))
        assert {name for name in ours if ours[name] != single[name]} == {
            "refinement_actor",
            "tied_noise",
            "joint_weight",
        }


class TestHilConrft:
    def test_every_task_meets_the_same_critic_and_buffer(self, episode_of: "type") -> None:
        replay = Replay(("all",), DIMS, discount=0.98, to_rollouts=True, pooled=True)
        for task in TASKS:
            replay.add_episode(episode_of(task, "demo"))
            replay.add_episode(episode_of(task, "online"))
        counts = replay.counts()["all"]
        # Interventions are demonstrations too, and stay among the rollouts.
        assert counts["demos"] == 3 * (6 + 2)
        assert counts["rollouts"] == 3 * 6
        agent = build(hil_conrft.METHOD, ("all",))
        assert (
            agent.ensembles.critics.weights()["out_weight"].shape[0] == agent.config.critic.members
        )
        batch = replay.sample(256, torch.Generator().manual_seed(0), "online")
        assert batch.h.shape[:2] == (1, 256)
        assert agent.update_critics(batch, "online").keys() == {
            "critic/all/bellman_loss",
            "critic/all/q_mean",
        }

    def test_two_critic_updates_per_actor_update(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = build(hil_conrft.METHOD, ("all",))
        replay = Replay(("all",), DIMS, discount=0.98, pooled=True)
        monkeypatch.setattr(replay, "sample", lambda *_: make_batch(range(1)))
        calls: list[str] = []
        for name in ("update_critics", "update_primary"):
            monkeypatch.setattr(agent, name, lambda *_, name=name: calls.append(name) or {})
        Learner(hil_conrft.TRAINING, agent, replay, seed=0)._update_online()
        assert calls == ["update_critics", "update_critics", "update_primary"]

    def test_its_preset_holds_conrfts_constants(self) -> None:
        config = PRESETS["hil-conrft"]
        method = config.method
        assert (method.online_bc_weight, method.online_q_weight) == (0.1, 1.0)
        assert (method.discount, method.target_rate, method.calql_actions) == (0.98, 0.005, 10)
        assert config.pool_tasks
        assert config.training.batch_size == 256
        assert not method.reweight_tasks


class TestSharedCritic:
    method = replace(HILDAFT, shared_critic=True)

    def test_all_tasks_are_valued_by_one_ensemble(self) -> None:
        agent = build(self.method)
        batch = make_batch()
        values = agent.ensembles.members_q(batch.action, batch)
        weights = agent.ensembles.critics.weights()
        assert weights["out_weight"].shape[0] == agent.config.critic.members
        features = agent.ensembles.features(batch.h, batch.features)
        for task in range(N):
            one = slice(task, task + 1)
            state = critic.embed_state(weights, features[one], batch.proprio[one])
            wanted = critic.q_values(weights, state, batch.action[one].unsqueeze(2)).squeeze(3)[0]
            torch.testing.assert_close(values[task], wanted)

    @pytest.mark.parametrize("phase", ["warmup", "online"])
    def test_it_learns_from_the_rows_of_all_tasks(self, phase: str) -> None:
        shared, flat = build(self.method), build(self.method, ("one",))
        flat.ensembles.critics.load_state_dict(shared.ensembles.critics.state_dict())
        flat.ensembles.targets.load_state_dict(shared.ensembles.targets.state_dict())
        # The same rows, once as three tasks and once as one; the noise is drawn in the same order.
        first = shared.update_critics(make_batch(), phase)
        second = flat.update_critics(make_batch().pooled(), phase)
        assert first.keys() == second.keys()
        assert first["critic/all/bellman_loss"] == pytest.approx(second["critic/all/bellman_loss"])

    def test_the_tasks_still_share_the_actors_q_loss_equally(self) -> None:
        metrics = build(self.method).update_primary(make_batch(), "online")
        assert {f"actor/qbar/{task}" for task in TASKS} <= metrics.keys()


def test_presets_have_the_same_budget_data_and_operator() -> None:
    ours = PRESETS["hildaft"]
    for name in ("single-actor", "hg-dagger", "hil-conrft", "dsrl", "paper"):
        theirs = PRESETS[name]
        assert theirs.operator == ours.operator
        assert theirs.evaluation == ours.evaluation
        for field in ("demonstrations", "warmup_updates", "online_transitions", "update_to_data"):
            assert getattr(theirs.training, field) == getattr(ours.training, field)
    alone = PRESETS["bc"].training
    total = ours.training.warmup_updates + ours.training.online_transitions
    assert (alone.warmup_updates, alone.online_transitions) == (total, 0)


def test_dsrl_beside_a_refinement_actor_is_refused() -> None:
    with pytest.raises(HilDaftError, match=r"dsrl\.variant='na'"):
        RunConfig(dsrl=PRESETS["dsrl"].dsrl)


def test_the_head_is_the_same_for_all() -> None:
    heads = {
        PRESETS[n].method.primary for n in ("hildaft", "bc", "hg-dagger", "hil-conrft", "dsrl")
    }
    assert heads == {ConsistencyConfig()}


@pytest.fixture
def episode_of():
    import numpy as np

    def make(task: str, source: str, steps: int = 6) -> Episode:
        rng = np.random.default_rng(len(task))
        online = source == "online"
        human = np.zeros(steps, dtype=bool)
        human[2:4] = online
        action = rng.uniform(-1, 1, (steps, 7)).astype(np.float32)
        last = np.arange(steps) == steps - 1
        nothing = np.full((steps, 7), np.nan, dtype=np.float32)
        return Episode(
            task=task,
            source=source,
            robot="A",
            seed=0,
            policy_version=0,
            success=True,
            h=rng.normal(size=(steps + 1, 5)).astype(np.float32),
            features=rng.normal(size=(steps + 1, 6)).astype(np.float32),
            proprio=rng.normal(size=(steps + 1, 2)).astype(np.float32),
            policy_action=action if online else nothing,
            human_action=np.where(human[:, None], action, nothing),
            executed_action=action,
            is_intervention=human,
            spoken=np.full(steps, 13),
            refinement=np.full(steps, 13),
            displacement_m=np.zeros((steps, 3), dtype=np.float32),
            reward=last.astype(np.float32),
            terminated=last,
            truncated=np.zeros(steps, dtype=bool),
        )

    return make
