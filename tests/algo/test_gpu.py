"""A CUDA device computes what the CPU computes, and its update never waits for the host."""

from dataclasses import replace

import pytest
import torch

from common import DIMS, TASKS
from hildaft.algo.dual_actor import HILDAFT, DualActor
from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.models import critic
from synthetic import filled_replay, random_table

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def on_device(batch, device):
    columns = {name: getattr(batch, name) for name in batch.__slots__}
    moved = {n: c.to(device) if isinstance(c, torch.Tensor) else c for n, c in columns.items()}
    return type(batch)(**moved)


def batches() -> tuple[Batch, TalkTweakBatch]:
    replay = filled_replay(TASKS, capacity=512, episodes=5)
    generator = torch.Generator().manual_seed(0)
    return replay.sample(16, generator, "online"), replay.sample_talk_tweak(48, generator)


def actor(device: str) -> DualActor:
    config = replace(HILDAFT, metrics_every=1_000_000)
    return DualActor(config, TASKS, DIMS, random_table(64), seed=0, device=torch.device(device))


def test_values_gradients_and_actions_agree_with_the_cpu() -> None:
    batch, _ = batches()
    noise = torch.randn(3, 16, 7, generator=torch.Generator().manual_seed(1))
    results = []
    for device in ("cpu", "cuda"):
        learner, rows = actor(device), on_device(batch, device)
        weights = learner.ensembles.critics.weights()
        features = learner.ensembles.features(rows.h, rows.features)
        state = critic.embed_state(weights, features, rows.proprio)
        q_value = critic.q_values(weights, state, rows.action.unsqueeze(2))
        gradients = torch.autograd.grad(q_value.square().sum(), list(weights.values()))
        with torch.no_grad():
            action = learner.actors.primary_action(
                rows.h, rows.features, rows.proprio, noise.to(device)
            )
        results.append([tensor.detach().cpu() for tensor in (q_value, action, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-4)


def test_an_update_never_waits_for_the_device() -> None:
    learner = actor("cuda")
    batch, talk = (on_device(each, "cuda") for each in batches())

    def update() -> None:
        learner.update_critics(batch, "online")
        learner.update_primary(batch, "online", talk)
        learner.update_refinement(talk)

    update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
