import pytest
import torch

from hildaft.models.consistency import (
    ConsistencyConfig,
    ConsistencyHead,
    karras_coefficients,
    karras_sigmas,
    sample_primary_noise,
    steer_noise,
)
from hildaft.types import HilDaftError

CONFIG = ConsistencyConfig(hidden=8)


@pytest.fixture
def head() -> ConsistencyHead:
    torch.manual_seed(0)
    return ConsistencyHead(CONFIG, 5, 2)


def test_noise_levels_are_karras_levels() -> None:
    sigmas = karras_sigmas(CONFIG)
    assert len(sigmas) == 40
    wanted = {0: 80.0, 1: 69.451, 2: 60.117, 19: 2.818, 20: 2.240, 35: 0.0175, 39: 0.002}
    for place, sigma in wanted.items():
        assert sigmas[place].item() == pytest.approx(sigma, rel=2e-3)


@pytest.mark.parametrize(
    ("sigma", "c_skip", "c_out", "c_in"),
    [
        (80.0, 3.906e-5, 0.49998, 0.0124998),
        (1.0, 0.20064, 0.44632, 0.89443),
        (0.1, 0.96300, 0.096095, 1.96116),
        (0.002, 1.0, 0.0, 1.999984),
    ],
)
def test_coefficients(sigma: float, c_skip: float, c_out: float, c_in: float) -> None:
    got = karras_coefficients(torch.tensor([sigma]), CONFIG)
    assert [value.item() for value in got] == pytest.approx([c_skip, c_out, c_in], rel=1e-3)


def test_eq_1_noise_has_unit_variance_in_units_of_k_and_is_seeded() -> None:
    noise = sample_primary_noise((20_000,), torch.Generator().manual_seed(0))
    assert noise.mean().abs() < 0.01
    assert noise.std().item() == pytest.approx(1.0, abs=0.01)
    again = sample_primary_noise((20_000,), torch.Generator().manual_seed(0))
    assert torch.equal(noise, again)


def test_eq_2_moves_the_mean_and_keeps_the_sample() -> None:
    noise = torch.tensor([[0.5, -1.0, 0, 0, 0, 0, 2.0]])
    mean = torch.tensor([[1.0, 0.25, 0, 0, 0, 0, -2.0]])
    assert torch.equal(steer_noise(noise, mean), torch.tensor([[1.5, -0.75, 0, 0, 0, 0, 0]]))


def test_head_is_the_identity_at_the_smallest_noise_level(head: ConsistencyHead) -> None:
    noisy = torch.randn(3, 7)
    state = head.embed_state(torch.randn(3, 5), torch.randn(3, 2))
    torch.testing.assert_close(head.denoise(state, noisy, torch.tensor([0.002])), noisy)


def test_act_is_one_step_at_the_largest_noise_level(head: ConsistencyHead) -> None:
    noise = torch.randn(3, 7)
    state = head.embed_state(torch.randn(3, 5), torch.randn(3, 2))
    at_k = head.denoise(state, 80.0 * noise, torch.full((3,), 80.0))
    torch.testing.assert_close(head.act(state, noise), at_k)


def test_split_first_layer_equals_one_layer_over_the_concatenation(head: ConsistencyHead) -> None:
    h, proprio, noise = torch.randn(3, 5), torch.randn(3, 2), torch.randn(3, 7)
    c_skip, c_out, c_in = karras_coefficients(torch.tensor([80.0]), CONFIG)
    phase = 250.0 * torch.tensor([80.0]).log() * head.frequencies
    time = head.time[1](head.time[0](torch.cat([phase.sin(), phase.cos()])[None]))
    weight = torch.cat([head.state_in.weight, head.noise_in.weight, head.time[2].weight], dim=1)
    joined = torch.cat([h, proprio, c_in * 80.0 * noise, time.expand(3, -1)], dim=1)
    raw = head.trunk(joined @ weight.T + head.state_in.bias)
    expected = c_skip * 80.0 * noise + c_out * raw
    torch.testing.assert_close(head.act(head.embed_state(h, proprio), noise), expected)


def test_many_noises_of_one_state_equal_one_by_one(head: ConsistencyHead) -> None:
    state = head.embed_state(torch.randn(2, 5), torch.randn(2, 2))
    noise = torch.randn(2, 4, 7)
    together = head.act(state.unsqueeze(1), noise)
    for m in range(4):
        torch.testing.assert_close(together[:, m], head.act(state, noise[:, m]))


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(HilDaftError, match=r"noise_scale=0\.001"):
        ConsistencyConfig(noise_scale=0.001)
    with pytest.raises(HilDaftError, match=r"scales=1"):
        ConsistencyConfig(scales=1)
    with pytest.raises(HilDaftError, match=r"rho=0\.0"):
        ConsistencyConfig(rho=0.0)


def test_acting_is_denoising_at_the_largest_noise_level(head: ConsistencyHead) -> None:
    state, noise = head.embed_state(torch.randn(3, 5), torch.randn(3, 2)), torch.randn(3, 7)
    slowly = head.denoise(state, noise * CONFIG.noise_scale, head.sigmas[:1])
    torch.testing.assert_close(head.act(state, noise), slowly)
