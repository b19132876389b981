import numpy as np
import torch
from test_trainer import SMALL, make_batch

from hildaft.pretraining.networks import LOSS_WEIGHTS
from hildaft.pretraining.smol import SmolPretraining
from hildaft.pretraining.targets import TARGET_DIM


def test_every_loss_reaches_the_backbone_and_learning_lowers_their_sum():
    torch.manual_seed(0)
    network, batch = SmolPretraining(), make_batch(4, np.random.default_rng(0), SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    sums = []
    for _ in range(12):
        losses = network.losses(batch)
        assert losses.keys() == LOSS_WEIGHTS.keys()
        total = torch.stack([LOSS_WEIGHTS[n] * v for n, v in losses.items()]).sum()
        optimiser.zero_grad()
        total.backward()
        if not sums:
            assert all(p.grad is not None for p in network.parameters())
        optimiser.step()
        sums.append(float(total.detach()))
    assert sums[-1] < 0.9 * sums[0]
    assert network.geometry(batch).shape == (4, TARGET_DIM)


def test_rows_without_a_skill_do_not_reach_the_skill_head():
    torch.manual_seed(0)
    network, batch = SmolPretraining(), make_batch(4, np.random.default_rng(0), SMALL)
    batch.has_action[:] = False
    assert float(network.losses(batch)["skill"].detach()) == 0.0
