import numpy as np
import torch

from hildaft.algo.actors import Actors
from hildaft.algo.policy import DualActorPolicy
from hildaft.data.replay import Dims
from hildaft.models.consistency import ConsistencyConfig
from hildaft.models.refinement import RefinementConfig
from hildaft.types import NULL_COMMAND, Encoded, Observation, Policy, RefinementCommand

UP = RefinementCommand((0, 0, 1))


class MeanColour:
    """Encoders small enough to check by hand."""

    hash = "mean-colour"

    def encode(self, observation: Observation, task: str) -> Encoded:
        colour = observation.images["head"].mean(axis=(0, 1)).astype(np.float32) / 255.0
        h = np.append(colour, np.float32(len(task)))
        return Encoded(h=h, features=colour, proprio=observation.proprio)


def build_actors(seed: int = 0) -> Actors:
    table = torch.randn(27, 4, generator=torch.Generator().manual_seed(1))
    return Actors(
        ConsistencyConfig(hidden=8),
        RefinementConfig(projection=4, hidden=8),
        Dims(h=4, features=3, proprio=2),
        table,
        seed,
    )


def build(*, bypass_null: bool = True) -> DualActorPolicy:
    return DualActorPolicy(MeanColour(), build_actors(), seed=0, bypass_null=bypass_null)


def encoded(policy: Policy) -> Encoded:
    image = np.full((4, 4, 3), 51, dtype=np.uint8)
    observation = Observation(images={"head": image}, proprio=np.array([1, 0], dtype=np.float32))
    return policy.encode(observation, "pick")


def test_it_encodes_with_the_encoders_and_carries_their_hash() -> None:
    policy = build()
    np.testing.assert_allclose(encoded(policy).h, [0.2, 0.2, 0.2, 4.0], rtol=1e-6)
    assert policy.encoder_hash == "mean-colour"


def test_the_same_seed_gives_the_same_noise_and_silence_is_the_primary_mode() -> None:
    policy = build()
    seen = encoded(policy)
    policy.begin(7)
    first, second = policy.act(seen, NULL_COMMAND), policy.act(seen, NULL_COMMAND)
    policy.begin(7)
    assert np.array_equal(policy.act(seen, NULL_COMMAND), first)
    assert not np.array_equal(first, second)
    noise = torch.randn(1, 7, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = build_actors().primary_action(
            torch.from_numpy(seen.h)[None],
            torch.from_numpy(seen.features)[None],
            torch.from_numpy(seen.proprio)[None],
            noise,
        )
    np.testing.assert_allclose(first, expected[0].clamp(-1.0, 1.0).numpy(), rtol=1e-6)


def test_a_command_steers_and_null_may_go_through_the_refinement_actor() -> None:
    actions = []
    for bypass_null, command in ((True, NULL_COMMAND), (True, UP), (False, NULL_COMMAND)):
        policy = build(bypass_null=bypass_null)
        policy.begin(3)
        actions.append(policy.act(encoded(policy), command))
    assert not np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])


def test_actions_are_clipped_float32() -> None:
    actors = build_actors()
    with torch.no_grad():
        actors.primary.trunk[-1].bias.copy_(torch.tensor([9.0, -9.0, 0, 0, 0, 0, 9.0]))
    policy = DualActorPolicy(MeanColour(), actors, seed=0)
    action = policy.act(encoded(policy), UP)
    assert action.dtype == np.float32
    assert action[[0, 1, 6]].tolist() == [1.0, -1.0, 1.0]


def test_loaded_weights_act_from_the_next_step() -> None:
    policy, source = build(), build_actors(seed=5)
    policy.load_weights(source.weights(), version=12)
    assert policy.version == 12
    reference = DualActorPolicy(MeanColour(), source, seed=0)
    seen = encoded(policy)
    policy.begin(1)
    reference.begin(1)
    assert np.array_equal(policy.act(seen, UP), reference.act(seen, UP))
