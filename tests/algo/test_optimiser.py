import torch
from torch import nn

from hildaft.algo.optimiser import FusedAdam


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def test_steps_are_those_of_torchs_adam() -> None:
    ours, theirs = network(), network()
    optimiser = FusedAdam(list(ours.parameters()), 1e-2)
    expected = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for _ in range(5):
        gradients = [torch.randn_like(parameter) for parameter in optimiser.parameters]
        optimiser.step([gradient.flatten() for gradient in gradients])
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter.grad = gradient
        expected.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_state_has_its_names_before_the_first_step() -> None:
    optimiser = FusedAdam(list(network().parameters()), 1e-2)
    names = set(optimiser.state())
    assert len(names) == 3 * len(optimiser.parameters)
    optimiser.step([torch.ones_like(parameter) for parameter in optimiser.parameters])
    assert set(optimiser.state()) == names
    assert optimiser.state()["00.step"].item() == 1.0
