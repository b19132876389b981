"""DSRL: what is frozen, what learns from what, and that noise can be found again from the action."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hildaft.algo.actors import Actors
from hildaft.algo.dual_actor import DualActor
from hildaft.algo.training import Agent, published_weights
from hildaft.baselines.dsrl import METHOD, Dsrl, DsrlConfig
from hildaft.baselines.noise_actor import NoiseActor, SteeredActors, invert_noise
from hildaft.data.replay import States
from hildaft.models.consistency import ConsistencyConfig, ConsistencyHead
from hildaft.types import HilDaftError
from small_networks import DIMS, TABLE, TASKS, B, N, make_batch, shrink

VARIANTS = [
    DsrlConfig(variant="na", hidden=8),
    DsrlConfig(variant="na", critic="offline", hidden=8),
    DsrlConfig(variant="direct", hidden=8),
    DsrlConfig(variant="direct", critic="offline", hidden=8),
    DsrlConfig(variant="sac", hidden=8),
]


def build(config: DsrlConfig, seed: int = 0) -> Dsrl:
    return Dsrl(config, DualActor(shrink(METHOD), TASKS, DIMS, TABLE, seed), DIMS, seed)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    names = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    groups = (
        "actors.noise",
        "actors.primary",
        "critics",
        "targets",
        "dsrl.critics",
        "dsrl.targets",
    )
    return {g for g in groups for name in names if name.startswith(g + ".")}


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.variant}-{c.critic}")
class TestUpdates:
    def test_the_critic_update_touches_what_the_variant_names(self, config: DsrlConfig) -> None:
        agent = build(config)
        agent.update_primary(make_batch(), "online")
        before = agent.state()
        agent.update_critics(make_batch(), "online")
        wanted = {"critics", "targets"} if config.critic == "online" else set()
        if config.variant == "na":
            wanted |= {"dsrl.critics"}
        if config.variant == "sac":
            wanted = {"dsrl.critics", "dsrl.targets"}
        assert changed(before, agent.state()) == wanted

    def test_online_only_the_noise_actor_acts_differently(self, config: DsrlConfig) -> None:
        agent = build(config)
        agent.update_critics(make_batch(), "online")
        before = agent.state()
        agent.update_primary(make_batch(), "online")
        assert changed(before, agent.state()) == {"actors.noise"}

    def test_the_warm_up_is_the_base_policys(self, config: DsrlConfig) -> None:
        agent, plain = build(config), build(config).base
        for learner in (agent, plain):
            learner.update_critics(make_batch(), "warmup")
            learner.update_primary(make_batch(), "warmup")
        after = agent.state()
        assert all(torch.equal(after[name], tensor) for name, tensor in plain.state().items())

    def test_going_on_from_its_state_is_exact(self, config: DsrlConfig) -> None:
        first, second = build(config), build(config, seed=5)
        for _ in range(2):
            first.update_critics(make_batch(), "online")
            first.update_primary(make_batch(), "online")
        second.load_state(first.state())
        for agent in (first, second):
            agent.update_critics(make_batch(seed=3), "online")
            agent.update_primary(make_batch(seed=3), "online")
        states = first.state(), second.state()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_it_is_an_agent_whose_weights_act(self, config: DsrlConfig) -> None:
        agent = build(config)
        assert isinstance(agent, Agent)
        agent.update_primary(make_batch(), "online")
        actors = Actors(agent.base.config.primary, agent.base.config.refinement, DIMS, TABLE, 7)
        acting = SteeredActors(actors, NoiseActor(config.hidden, config.noise_bound, DIMS))
        prefixed = {f"dual_actor.{name}": tensor for name, tensor in agent.state().items()}
        for weights in (agent.weights(), published_weights(prefixed)):
            acting.load_weights(weights)
            batch, noise = make_batch(), torch.randn(N, B, 7)
            seen = batch.h, batch.features, batch.proprio
            torch.testing.assert_close(
                acting.primary_action(*seen, noise), agent.actors.primary_action(*seen, noise)
            )


def test_before_the_first_online_update_it_acts_as_the_base_does() -> None:
    agent, batch, noise = build(VARIANTS[0]), make_batch(), torch.randn(N, B, 7)
    seen = batch.h, batch.features, batch.proprio
    wanted = agent.base.actors.primary_action(*seen, noise)
    torch.testing.assert_close(agent.actors.primary_action(*seen, noise), wanted)
    agent.update_primary(batch, "online")
    assert not torch.allclose(agent.actors.primary_action(*seen, noise), wanted)


def test_the_base_that_is_frozen_is_the_averaged_one() -> None:
    agent = build(VARIANTS[0])
    agent.update_primary(make_batch(), "warmup")
    average = {k: v for k, v in agent.weights().items() if k.startswith("primary.")}
    agent.update_primary(make_batch(), "online")
    frozen = agent.actors.state_dict()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in average.items())


@torch.no_grad()
def test_noise_stays_within_the_bound() -> None:
    agent, batch = build(replace(VARIANTS[0], noise_bound=0.7)), make_batch()
    agent.actors.noise.steers.fill_(True)
    seen = (*agent.actors.standardise(batch.h, batch.features), batch.proprio)
    chosen = agent.actors.noise.steer(*seen, 100.0 * torch.randn(N, B, 7))
    assert float(chosen.detach().abs().max()) <= 0.7


def test_the_density_is_that_of_a_squashed_gaussian() -> None:
    actor = NoiseActor(8, 1.0, DIMS)
    h, features, proprio = torch.randn(4, 5), torch.randn(4, 6), torch.randn(4, 2)
    unit, log_probability = actor.sample(h, features, proprio, torch.Generator().manual_seed(3))
    mean, log_std = actor.trunk(torch.cat([h, features, proprio], dim=-1)).chunk(2, dim=-1)
    base = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        base, [torch.distributions.TanhTransform()]
    )
    torch.testing.assert_close(
        log_probability, squashed.log_prob(unit).sum(-1), rtol=1e-4, atol=1e-4
    )


def test_distillation_by_hand() -> None:
    agent, batch = build(VARIANTS[1]), make_batch()
    agent.update_primary(batch, "online")
    generator = torch.Generator().manual_seed(0)
    generator.set_state(agent._generator.get_state())
    noise = torch.randn(N, B, 7, generator=generator).clamp(-1.5, 1.5)
    state = agent.actors.embed_primary(batch.h, batch.features, batch.proprio)
    action = agent.actors.primary.act(state, noise)
    target = agent.base.ensembles.members_q(action, batch)
    value = agent._noise_values(agent._held, batch, (noise / 1.5).unsqueeze(2)).squeeze(3)
    wanted = (value - target).square().mean()
    metrics = agent.update_critics(batch, "online")
    assert metrics["dsrl/distillation_loss"] == pytest.approx(wanted.item(), rel=1e-4)


def test_the_noise_actor_climbs_what_its_critic_says() -> None:
    config = DsrlConfig(variant="direct", critic="offline", hidden=32, learning_rate=3e-3)
    agent, batch = build(replace(config, temperature=1e-4)), make_batch()
    values = [agent.update_primary(batch, "online")["dsrl/value"] for _ in range(150)]
    assert sum(values[-20:]) / 20 > sum(values[:20]) / 20 + 1e-3


def test_the_temperature_falls_while_there_is_more_entropy_than_wanted() -> None:
    agent = build(replace(VARIANTS[2], target_entropy=-100.0))
    alphas = [agent.update_primary(make_batch(), "online")["dsrl/alpha"] for _ in range(5)]
    assert alphas[0] == pytest.approx(0.01)
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[-1] < alphas[0]


@torch.no_grad()
def test_inversion_finds_noise_that_acts_the_same() -> None:
    torch.manual_seed(0)
    head = ConsistencyHead(ConsistencyConfig(hidden=16), 5, 2)
    state = head.embed_state(torch.randn(64, 5), torch.randn(64, 2))
    drawn = torch.randn(64, 7).clamp(-1.5, 1.5)
    action = head.act(state, drawn)
    found = invert_noise(head, state, action, 1.5)
    before = (head.act(state, torch.zeros(64, 7)) - action).norm(dim=-1)
    after = (head.act(state, found) - action).norm(dim=-1)
    assert float(found.abs().max()) <= 1.5
    assert float(after.median()) < 0.05 * float(before.median())


@torch.no_grad()
def test_reach_is_how_far_bounded_noise_moves_the_hand() -> None:
    agent, batch = build(VARIANTS[0]), make_batch()
    states = States(*(x.flatten(0, 1) for x in (batch.h, batch.features, batch.proprio)))
    measured = agent.diagnostics(states)
    assert measured.keys() == {"spread_mm", "noise_reach_mm"}
    moved = []
    state = agent.actors.embed_primary(states.h, states.features, states.proprio)
    for axis in range(3):
        noise = torch.zeros(7)
        noise[axis] = 1.5
        ends = agent.actors.primary.act(state, noise) - agent.actors.primary.act(state, -noise)
        moved.append(15.0 * ends[:, axis].abs().mean() / 2.0)
    assert math.isclose(measured["noise_reach_mm"], float(sum(moved) / 3), rel_tol=1e-4)


def test_sac_with_a_frozen_critic_is_refused() -> None:
    with pytest.raises(HilDaftError, match=r"dsrl\.critic='offline'"):
        DsrlConfig(variant="sac", critic="offline")
