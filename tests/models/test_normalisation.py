"""Standardised values: zero mean and unit variance on what they were fitted to, bounded on everything else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hildaft.models.normalisation import STANDARD_LIMIT, Normalisation


def _fitted() -> tuple[Normalisation, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = 3.0 + 2.0 * torch.rand(200, 4, generator=generator)
    features = torch.rand(200, 3, generator=generator)
    features[:, 0] = 0.5
    normalisation = Normalisation(4, 3)
    normalisation.fit(h, features)
    return normalisation, h, features


def test_what_it_was_fitted_to_has_zero_mean_and_unit_variance() -> None:
    normalisation, h, features = _fitted()
    for standard in (
        normalisation.standardise_h(h),
        normalisation.standardise_features(features)[:, 1:],
    ):
        torch.testing.assert_close(
            standard.mean(0), torch.zeros(standard.shape[1]), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(standard.std(0, correction=0), torch.ones(standard.shape[1]))


@given(st.floats(-1e6, 1e6, width=32))
def test_what_another_robot_sees_is_bounded_and_keeps_its_order(value: float) -> None:
    normalisation, _, _ = _fitted()
    pair = torch.tensor([[value], [value + 1.0]]).expand(2, 3)
    low, high = normalisation.standardise_features(pair)
    assert (low <= high).all()
    assert max(low.abs().max(), high.abs().max()) <= STANDARD_LIMIT
