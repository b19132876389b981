from dataclasses import replace
from typing import Literal

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from hildaft.algo import cloning_weights, losses
from hildaft.algo.dual_actor import HILDAFT, PAPER, DualActor, DualActorConfig, acting_weights
from hildaft.data.replay import States, TalkTweakBatch
from hildaft.models import critic
from hildaft.models.critic import CriticConfig
from hildaft.types import HilDaftError
from small_networks import DIMS, TABLE, TASKS, B, N, make_batch, shrink


def build(config: DualActorConfig = HILDAFT, seed: int = 0) -> DualActor:
    return DualActor(shrink(config), TASKS, DIMS, TABLE, seed)


def talk_tweak(tasks: tuple[int, ...] = (0, 1, 2), seed: int = 2) -> TalkTweakBatch:
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(len(tasks), B, width, generator=generator)

    return TalkTweakBatch(
        h=normal(5),
        features=normal(6),
        proprio=normal(2),
        action=normal(7).clamp(-1.0, 1.0),
        command=torch.randint(27, (len(tasks), B), generator=generator),
        tasks=tasks,
    )


def changed(actor: DualActor, before: dict[str, Tensor]) -> set[str]:
    """First two words of the names of whatever differs from `before`, bookkeeping left out."""
    after = actor.state()
    names = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    parts = {".".join(name.split(".")[: 1 if name.startswith("acting") else 2]) for name in names}
    return parts - {"generator", "updates"}


CRITIC_NAMES = {name for name, _ in build().ensembles.critics.named_parameters()}
CRITICS = {
    "optimisers.critics",
    *(f"{group}.{name}" for group in ("critics", "targets") for name in CRITIC_NAMES),
}


@pytest.mark.parametrize("config", [HILDAFT, PAPER], ids=["hildaft", "paper"])
@pytest.mark.parametrize("phase", ["warmup", "online"])
class TestEachUpdateChangesItsOwnParameters:
    def test_critics(self, config: DualActorConfig, phase: str) -> None:
        actor = build(config)
        before = actor.state()
        actor.update_critics(make_batch(), phase)
        assert changed(actor, before) == CRITICS

    def test_primary(self, config: DualActorConfig, phase: str) -> None:
        actor = build(config)
        before = actor.state()
        actor.update_primary(make_batch(), phase)
        assert changed(actor, before) == {"actors.primary", "acting", "optimisers.primary"}

    def test_refinement(self, config: DualActorConfig, phase: str) -> None:
        actor = build(config)
        actor.update_critics(make_batch(), phase)
        before = actor.state()
        actor.update_refinement(talk_tweak())
        assert changed(actor, before) == {"actors.refinement", "optimisers.refinement"}


def test_every_parameter_of_the_updated_part_moves() -> None:
    actor = build()
    for update in (
        lambda: actor.update_critics(make_batch(), "online"),
        lambda: actor.update_primary(make_batch(), "online"),
        lambda: actor.update_refinement(talk_tweak()),
    ):
        before = actor.state()
        update()
        parameters = {
            **{f"critics.{name}": None for name, _ in actor.ensembles.critics.named_parameters()},
            **{f"actors.{name}": None for name, _ in actor.actors.named_parameters()},
        }
        after = actor.state()
        moved = {name for name in parameters if not torch.equal(after[name], before[name])}
        part = {name.split(".")[0] if name[0] == "c" else name.split(".")[1] for name in moved}
        assert len(part) == 1
        whole = {name for name in parameters if f"{part.copy().pop()}." in name}
        assert moved == whole


def test_joint_training_reaches_the_primary_actor_only_when_switched_on() -> None:
    results = []
    for weight in (0.0, 0.25):
        actor = build(replace(HILDAFT, joint_weight=weight))
        before = actor.state()
        actor.update_primary(make_batch(), "online", talk_tweak())
        assert changed(actor, before) == {"actors.primary", "acting", "optimisers.primary"}
        results.append(actor.weights()["primary.state_in.weight"])
    assert not torch.equal(results[0], results[1])


def test_a_task_without_talk_and_tweak_is_left_out_of_the_refinement_update() -> None:
    actor = build()
    batch_of_two = talk_tweak((0, 2))
    q = actor.ensembles.mean_q(batch_of_two.action, batch_of_two)
    every = talk_tweak((0, 1, 2))
    for place, task in enumerate((0, 2)):
        alone = replace_rows(every, task, batch_of_two, place)
        expected = actor.ensembles.mean_q(alone.action, alone)[task]
        torch.testing.assert_close(q[place], expected)
    assert actor.update_refinement(batch_of_two)


def replace_rows(
    whole: TalkTweakBatch, row: int, part: TalkTweakBatch, place: int
) -> TalkTweakBatch:
    fields = {}
    for name in ("h", "features", "proprio", "action", "command"):
        tensor = getattr(whole, name).clone()
        tensor[row] = getattr(part, name)[place]
        fields[name] = tensor
    return replace(whole, **fields)


def test_warmup_gradients_equal_those_of_all_tasks_at_once() -> None:
    actor, rows = build(), make_batch()
    ensembles = actor.ensembles
    features = ensembles.features(rows.h, rows.features)
    target = torch.rand(N, B, generator=torch.Generator().manual_seed(3))
    saved = actor._generator.get_state()
    gradients, _ = ensembles._warmup_gradients(rows, features, target)
    actor._generator.set_state(saved)

    m = actor.config.calql_actions
    action = torch.cat([rows.action.unsqueeze(2), ensembles._calql_actions(rows)], dim=2)
    weights = ensembles.critics.weights()
    state = critic.embed_state(weights, features, rows.proprio)
    q, uniform, policy = critic.q_values(weights, state, action).split([1, m, 2 * m], dim=3)
    q = q.squeeze(3)
    calql = losses.conservative_loss(
        q, uniform, policy, rows.mc_return, temperature=1.0, floor_uniform=False
    )
    loss = losses.bellman_loss(q, target) + actor.config.calql_weight * calql
    expected = torch.autograd.grad(loss.sum(), list(weights.values()))
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_targets_follow_slowly() -> None:
    actor = build()
    before = actor.state()
    actor.update_critics(make_batch(), "online")
    after = actor.state()
    for name in CRITIC_NAMES:
        expected = before[f"targets.{name}"].lerp(after[f"critics.{name}"], 0.005)
        torch.testing.assert_close(after[f"targets.{name}"], expected)


@pytest.mark.parametrize(
    ("bc_data", "sees_failures", "sees_successes"),
    [("demos", False, False), ("successes", False, True), ("all", True, True)],
)
def test_cloning_sees_the_rollouts_it_is_told_to(
    bc_data: Literal["demos", "successes", "all"], sees_failures: bool, sees_successes: bool
) -> None:
    def bc_loss(mc_return: float, action: float) -> float:
        rows = make_batch()
        rows.action[:, B // 2 :] = action
        rows.mc_return[:, B // 2 :] = mc_return
        config = replace(HILDAFT, bc_data=bc_data)
        return build(config).update_primary(rows, "online")["actor/bc_loss"]

    assert (bc_loss(0.0, 1.0) != bc_loss(0.0, 100.0)) is sees_failures
    assert (bc_loss(0.5, 1.0) != bc_loss(0.5, 100.0)) is sees_successes


@pytest.mark.parametrize("bc_data", ["demos", "successes", "all"])
def test_no_hand_over_is_cloned(bc_data: Literal["demos", "successes", "all"]) -> None:
    def bc_loss(action: float) -> float:
        rows = make_batch()
        rows.is_chosen[:, -1] = False
        rows.action[:, -1] = action
        config = replace(HILDAFT, bc_data=bc_data)
        return build(config).update_primary(rows, "online")["actor/bc_loss"]

    assert bc_loss(1.0) == bc_loss(100.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cloning_follows_the_actions_that_critics_find_better(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = losses.bc_loss

    def bc_loss(action: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight)
        return real(action, target, weight)

    monkeypatch.setattr(losses, "bc_loss", bc_loss)
    monkeypatch.setattr(cloning_weights, "BEGINS_AT", 2)
    actor, rows = build(replace(HILDAFT, advantage_temperature=temperature)), make_batch()
    good = torch.arange(B).expand(N, B) % 2 == 0
    rows.action[..., 0] = torch.where(good, 5.0, -5.0)
    monkeypatch.setattr(
        actor.ensembles, "_members_q", lambda actions, *_: [a[..., :1].mT for a in actions]
    )
    for phase in ("warmup", "online", "online"):
        actor.update_primary(rows, phase)
    offline, early, online = seen
    assert torch.equal(early, offline)
    kept = rows.from_demos | (rows.mc_return > 0)
    # Without critics that know the task, the warm-up follows every demonstration alike.
    assert torch.equal(offline, kept.float())
    assert not online[~kept].any()
    torch.testing.assert_close(online.sum(1), kept.sum(1).float())
    better, worse = online[kept & good], online[kept & ~good]
    assert (better.min() > worse.max()) if temperature else torch.equal(online, offline)


def test_karras_form_of_cloning_trains() -> None:
    actor = build(replace(HILDAFT, bc_form="karras"))
    before = actor.state()
    assert actor.update_primary(make_batch(), "warmup")["actor/bc_loss"] > 0.0
    assert "actors.primary" in changed(actor, before)


def test_critics_read_h_only_when_switched_on() -> None:
    rows = make_batch()
    other = replace(rows, h=rows.h + 1.0)
    for config, differs in ((HILDAFT, False), (replace(HILDAFT, critic_reads_h=True), True)):
        actor = build(config)
        values = [actor.ensembles.mean_q(rows.action, each) for each in (rows, other)]
        assert torch.equal(values[0], values[1]) is not differs


def test_silent_refinement_actor_costs_no_regulariser() -> None:
    actor = build()
    with torch.no_grad():
        for parameter in actor.actors.refinement.trunk[-1].parameters():
            parameter.zero_()
    # Zero mean and the same noise in both terms: the same action.
    assert actor.update_refinement(talk_tweak())["refinement/reg_loss"] == 0.0


def test_continuing_from_a_state_is_bit_exact() -> None:
    def train(actor: DualActor, steps: range) -> None:
        for step in steps:
            actor.update_critics(make_batch(seed=step), "warmup" if step % 2 else "online")
            actor.update_primary(make_batch(seed=step), "online")
            actor.update_refinement(talk_tweak(seed=step))

    whole = build()
    train(whole, range(3))
    stored = save(whole.state())
    train(whole, range(3, 6))
    resumed = build(seed=5)
    resumed.load_state(load(stored))
    train(resumed, range(3, 6))
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name


def test_a_state_of_another_configuration_changes_nothing() -> None:
    actor = build()
    before = actor.state()
    wider = replace(shrink(HILDAFT), critic=CriticConfig(hidden=9))
    other = DualActor(wider, TASKS, DIMS, torch.zeros(27, 4), 3)
    with pytest.raises(HilDaftError, match="has shape"):
        actor.load_state(other.state())
    missing = {name: tensor for name, tensor in before.items() if name != "updates"}
    with pytest.raises(HilDaftError, match="updates is missing"):
        actor.load_state(missing)
    with pytest.raises(HilDaftError, match="extra is unknown"):
        actor.load_state({**before, "extra": torch.zeros(1)})
    for name, tensor in actor.state().items():
        assert torch.equal(tensor, before[name])


def test_same_seed_same_weights_other_seed_other_weights() -> None:
    first, again, other = build(seed=3).state(), build(seed=3).state(), build(seed=4).state()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["actors.primary.state_in.weight"], other["actors.primary.state_in.weight"]
    )


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build()
    assert torch.equal(before, torch.get_rng_state())


def test_published_weights_are_actors_and_normalisation() -> None:
    actor = build()
    actor.fit_normalisation(torch.randn(20, 5) + 3.0, torch.randn(20, 6))
    weights = actor.weights()
    assert {name.split(".")[0] for name in weights} == {"primary", "refinement", "normalisation"}
    other = build(seed=8)
    other.load_weights(weights)
    noise = torch.randn(4, 7)
    h, features, proprio = torch.randn(4, 5), torch.randn(4, 6), torch.randn(4, 2)
    assert torch.equal(
        actor.actors.primary_action(h, features, proprio, noise),
        other.actors.primary_action(h, features, proprio, noise),
    )


def test_metrics_come_every_kth_update() -> None:
    actor = DualActor(replace(shrink(HILDAFT), metrics_every=3), TASKS, DIMS, torch.zeros(27, 4), 0)
    reported = [bool(actor.update_primary(make_batch(), "online")) for _ in range(7)]
    assert reported == [True, False, False, True, False, False, True]


def test_metrics_have_the_names_the_reports_use() -> None:
    actor = build()
    names = set(actor.update_critics(make_batch(), "warmup"))
    names |= set(actor.update_primary(make_batch(), "online"))
    names |= set(actor.update_refinement(talk_tweak()))
    for task in TASKS:
        assert {f"critic/{task}/{n}" for n in ("bellman_loss", "calql_loss", "q_mean")} <= names
        assert {f"actor/qbar/{task}", f"actor/eps/{task}"} <= names
    assert {"actor/bc_loss", "actor/q_loss", "actor/dq_da", "actor/dbc_da"} <= names
    assert {f"refinement/{n}_loss" for n in ("bc", "q", "reg", "counterfactual")} <= names


def test_diagnostics_do_not_disturb_training() -> None:
    rows = make_batch()
    states = States(rows.h[0], rows.features[0], rows.proprio[0])
    measured, plain = build(), build()
    found = measured.diagnostics(states)
    assert found == measured.diagnostics(states)
    assert set(found) == {"obedience", "size_mm", "null_drift_mm", "spread_mm"}
    measured.update_primary(rows, "online")
    plain.update_primary(rows, "online")
    for name, tensor in measured.state().items():
        assert torch.equal(tensor, plain.state()[name])


def test_paper_preset_switches_every_departure_off() -> None:
    assert PAPER.tied_noise == PAPER.counterfactual_weight == PAPER.joint_weight == 0.0
    assert PAPER.bc_data == "all"
    for switch in (
        "null_bypass",
        "target_clip",
        "to_rollouts",
        "talk_in_rollouts",
        "critic_reads_h",
        "tasks_per_update",
    ):
        assert not getattr(PAPER, switch), switch
    assert (PAPER.warmup_bc_weight, PAPER.warmup_q_weight) == (1.0, 0.1)
    assert (PAPER.online_bc_weight, PAPER.online_q_weight) == (0.5, 0.5)
    etas = (PAPER.refinement_bc_weight, PAPER.refinement_q_weight, PAPER.refinement_reg_weight)
    assert etas == (1.0, 0.1, 0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discount", 1.0),
        ("target_rate", 0.0),
        ("online_q_weight", -0.1),
        ("calql_actions", 0),
        ("task_weight_min", 1.3),
        ("critic_learning_rate", 0.0),
        ("metrics_every", 0),
    ],
)
def test_values_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(HilDaftError, match=f"method.{field}={value}: must be "):
        replace(HILDAFT, **{field: value})


def test_checkpoint_holds_what_is_published() -> None:
    actor = build()
    for _ in range(3):
        actor.update_primary(make_batch(), "warmup")
    published, live = actor.weights(), actor.actors.weights()
    from_state = acting_weights(actor.state())
    assert from_state.keys() == published.keys()
    assert all(torch.equal(from_state[name], published[name]) for name in published)
    assert not torch.equal(published["primary.state_in.weight"], live["primary.state_in.weight"])


def test_acting_weights_are_the_running_average() -> None:
    actor = build(replace(HILDAFT, primary_average=0.75))
    start = actor.weights()["primary.state_in.weight"]
    actor.update_primary(make_batch(), "warmup")
    live = actor.actors.weights()["primary.state_in.weight"]
    torch.testing.assert_close(
        actor.weights()["primary.state_in.weight"], 0.75 * start + 0.25 * live
    )
