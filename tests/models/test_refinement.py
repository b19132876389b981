import pytest
import torch

from hildaft.models.normalisation import Normalisation
from hildaft.models.refinement import RefinementActor, RefinementConfig
from hildaft.types import HilDaftError


@pytest.fixture
def actor() -> RefinementActor:
    torch.manual_seed(0)
    return RefinementActor(RefinementConfig(projection=4, hidden=8), 6, 2, torch.randn(27, 5))


def test_mean_stays_within_its_bound_and_starts_small(actor: RefinementActor) -> None:
    state = actor.embed_state(torch.randn(50, 6), torch.randn(50, 2))
    command = torch.arange(50) % 27
    assert actor.mean(state, command).abs().max() < 0.5
    with torch.no_grad():
        actor.trunk[-1].weight.mul_(1e4)
    bounded = actor.mean(state, command).abs()
    assert bounded.max() <= 3.0
    assert bounded.max() > 2.9


def test_each_row_gets_its_own_command(actor: RefinementActor) -> None:
    state = actor.embed_state(torch.randn(1, 6), torch.randn(1, 2))
    every = actor.mean(state, torch.arange(27))
    assert len(torch.unique(every, dim=0)) == 27
    for index in (0, 13, 26):
        torch.testing.assert_close(
            actor.mean(state, torch.tensor([index])), every[index : index + 1]
        )


def test_the_command_table_is_neither_trained_nor_published(actor: RefinementActor) -> None:
    names = {name for name, _ in actor.named_parameters()} | set(actor.state_dict())
    assert not any("commands" in name for name in names)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(HilDaftError, match=r"mean_bound=0\.0"):
        RefinementConfig(mean_bound=0.0)
    with pytest.raises(HilDaftError, match=r"hidden=0"):
        RefinementConfig(hidden=0)


def test_normalisation_standardises_and_floors_dead_dimensions() -> None:
    h = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * 3.0 + 7.0
    features = torch.cat([h, torch.full((500, 1), 2.0)], dim=1)
    normalisation = Normalisation(4, 5)
    normalisation.fit(h, features)
    standard = normalisation.standardise_h(h)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.ones(4))
    dead = normalisation.standardise_features(features + 0.1)[:, 4]
    assert dead.abs().max() < 1.0
