"""Every equation against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, tensor

from hildaft.algo import losses


def test_eq_4_negates_the_mean_value() -> None:
    assert losses.q_loss(tensor([0.1, 0.5])).item() == pytest.approx(-0.3)


def test_eq_4_gives_one_figure_per_task() -> None:
    torch.testing.assert_close(
        losses.q_loss(tensor([[0.1, 0.5], [1.0, 0.0]])), tensor([-0.3, -0.5])
    )


def test_eq_5_sums_over_components_and_averages_over_kept_rows() -> None:
    action = tensor([[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]])
    demonstrated = tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    # (1 + 4 + 0 + 1) / 2; the third row is not kept.
    assert losses.bc_loss(action, demonstrated, tensor([1.0, 1.0, 0.0])).item() == pytest.approx(
        3.0
    )
    # (0.5 * 5 + 1.5 * 1) / 2.
    assert losses.bc_loss(action, demonstrated, tensor([0.5, 1.5, 0.0])).item() == pytest.approx(
        2.0
    )


def test_advantage_weights_grow_with_the_advantage_up_to_a_limit() -> None:
    advantage = tensor([[0.0, 0.2, -0.2], [0.1, 9.0, 9.0]], requires_grad=True)
    keep = tensor([[True, True, True], [True, True, False]])
    weight = losses.advantage_weights(advantage, keep, tensor([[0.2], [0.1]]), 5.0)
    torch.testing.assert_close(weight, tensor([[1.0, math.e, 1 / math.e], [math.e, 5.0, 0.0]]))
    assert not weight.requires_grad


def test_rows_that_are_all_far_worse_weigh_alike_and_never_nothing() -> None:
    advantage = tensor([[-0.3, -0.301, -0.299]])
    keep = tensor([[True, True, False]])
    weight = losses.advantage_weights(advantage, keep, tensor([[0.001]]), 5.0)
    assert (weight[0, :2] > 0).all()
    assert weight[0, 0] == weight[0, 1]
    assert weight[0, 2] == 0


def test_karras_form_weighs_small_noise_more() -> None:
    action, demonstrated = tensor([[1.0, 1.0], [1.0, 1.0]]), torch.zeros(2, 2)
    sigma = tensor([0.5, 1.0])
    # (4 + 4) * 1 and (1 + 4) * 1, mean of the two.
    loss = losses.karras_bc_loss(action, demonstrated, sigma, torch.ones(2), 0.5)
    assert loss.item() == pytest.approx(6.5)


def test_eq_8_is_the_squared_distance_to_the_tweak() -> None:
    loss = losses.refinement_bc_loss(tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 2))
    assert loss.item() == pytest.approx(5.0)


def test_eq_9_negates_the_mean_value() -> None:
    assert losses.refinement_q_loss(tensor([[0.2, 0.4]])).item() == pytest.approx(-0.3)


def test_eq_10_measures_the_distance_and_holds_the_primary_action_fixed() -> None:
    null_action = tensor([[1.0, 1.0]], requires_grad=True)
    primary_action = tensor([[0.0, 3.0]], requires_grad=True)
    loss = losses.refinement_reg_loss(null_action, primary_action)
    assert loss.item() == pytest.approx(5.0)
    loss.backward()
    torch.testing.assert_close(null_action.grad, tensor([[2.0, -4.0]]))
    assert primary_action.grad is None


def test_counterfactual_wants_a_step_along_the_command() -> None:
    primary_action = tensor([[0.1, 0.2, 0.3, 0.5]], requires_grad=True)
    direction = tensor([[1.0, 0.0, -1.0]])
    wanted = tensor([[0.35, 0.2, 0.05, 0.5]])
    assert losses.counterfactual_loss(wanted, primary_action, direction, 0.25).item() < 1e-12
    # From where the primary mode already is, 0.25 is missing on two axes.
    still = losses.counterfactual_loss(primary_action, primary_action, direction, 0.25)
    assert still.item() == pytest.approx(0.125)


def test_eq_14_weighs_the_tasks_equally() -> None:
    loss = losses.uniform_task_q_loss(tensor([[0.2, 0.4], [1.0, 1.0]]))
    assert loss.item() == pytest.approx(-0.65)


def test_eq_15_weighs_each_task() -> None:
    loss = losses.weighted_task_q_loss(tensor([[0.2, 0.4], [1.0, 1.0]]), tensor([1.2, 0.8]))
    assert loss.item() == pytest.approx(-0.5 * (1.2 * 0.3 + 0.8 * 1.0))


@pytest.mark.parametrize(
    ("mean_q", "expected"),
    [
        # Unclipped: 1.7 / (3 * (q + 0.1)) = 0.567, 0.810, 1.889.
        ((0.9, 0.6, 0.2), (0.8, 0.8095238, 1.2)),
        ((0.3, 0.2, 0.0), (0.8, 0.8, 1.2)),
        # Equal values give q / (q + 0.1), never 1.
        ((0.9, 0.9, 0.9), (0.9, 0.9, 0.9)),
        ((0.4, 0.4, 0.4), (0.8, 0.8, 0.8)),
        ((0.0, 0.0, 0.0), (0.8, 0.8, 0.8)),
        # Negative values count as 0: the worst task keeps the largest weight, beyond the pole too.
        ((0.3, 0.2, -0.05), (0.8, 0.8, 1.2)),
        ((0.3, 0.2, -0.15), (0.8, 0.8, 1.2)),
        ((0.5,), (0.8333333,)),
    ],
)
def test_eq_16(mean_q: tuple[float, ...], expected: tuple[float, ...]) -> None:
    weights = losses.compute_task_weights(tensor(mean_q), constant=0.1, low=0.8, high=1.2)
    torch.testing.assert_close(weights, tensor(expected))


def test_eq_16_passes_no_gradient() -> None:
    mean_q = tensor([0.5, 0.6], requires_grad=True)
    assert not losses.compute_task_weights(mean_q, constant=0.1, low=0.8, high=1.2).requires_grad


def target(not_terminal: float, max_return: float | None = None) -> Tensor:
    next_q = tensor([[[0.5, 4.0]], [[0.3, 9.0]]]).reshape(1, 2, 2)
    return losses.bellman_target(
        tensor([[0.0, 1.0]]), torch.full((1, 2), not_terminal), next_q, 0.9, max_return
    )


def test_bellman_target_takes_the_least_of_the_ensemble() -> None:
    torch.testing.assert_close(target(1.0), tensor([[0.27, 4.6]]))


def test_a_true_end_cuts_the_bootstrap() -> None:
    torch.testing.assert_close(target(0.0), tensor([[0.0, 1.0]]))


def test_bellman_target_is_clipped_to_the_largest_return() -> None:
    torch.testing.assert_close(target(1.0, max_return=1.0), tensor([[0.27, 1.0]]))
    negative = losses.bellman_target(
        tensor([[0.0]]), tensor([[1.0]]), tensor([[[-0.5]]]), 0.9, max_return=1.0
    )
    assert negative.item() == 0.0


def test_bellman_loss_per_task() -> None:
    q_value = tensor([[[0.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]])
    loss = losses.bellman_loss(q_value, tensor([[0.0, 1.0], [2.0, 0.0]]))
    # Task 1: errors 0, 0, 1, 0; task 2: errors 0, 2, 0, 2.
    torch.testing.assert_close(loss, tensor([0.25, 2.0]))


def conservative(floor: float, *, floor_uniform: bool = False) -> float:
    return losses.conservative_loss(
        q_data=tensor([[[0.5]]]),
        q_uniform=tensor([[[[0.1]]]]),
        q_policy=tensor([[[[0.2, 0.9]]]]),
        mc_return=tensor([[floor]]),
        temperature=1.0,
        floor_uniform=floor_uniform,
    ).item()


def log_mean_exp(*values: float) -> float:
    return math.log(sum(math.exp(value) for value in values) / len(values))


def test_calql_without_a_floor_is_cql() -> None:
    assert conservative(-1.0) == pytest.approx(log_mean_exp(0.1, 0.2, 0.9, 0.5) - 0.5, abs=1e-6)


def test_calql_floors_the_policy_actions_at_the_return() -> None:
    assert conservative(0.4) == pytest.approx(log_mean_exp(0.1, 0.4, 0.9, 0.5) - 0.5, abs=1e-6)


def test_calql_can_floor_uniform_actions_too() -> None:
    expected = log_mean_exp(0.4, 0.4, 0.9, 0.5) - 0.5
    assert conservative(0.4, floor_uniform=True) == pytest.approx(expected, abs=1e-6)


def test_calql_does_not_push_down_actions_below_the_return() -> None:
    q_policy = tensor([[[[0.2, 0.9]]]], requires_grad=True)
    losses.conservative_loss(
        tensor([[[0.5]]]),
        tensor([[[[0.1]]]]),
        q_policy,
        tensor([[0.4]]),
        temperature=1.0,
        floor_uniform=False,
    ).backward()
    assert q_policy.grad is not None
    assert q_policy.grad[0, 0, 0, 0] == 0.0
    assert q_policy.grad[0, 0, 0, 1] > 0.0


def test_calql_temperature_sharpens_the_maximum() -> None:
    values = (tensor([[[0.5]]]), tensor([[[[0.1]]]]), tensor([[[[0.2, 0.9]]]]), tensor([[0.0]]))
    loss = losses.conservative_loss(*values, temperature=1e-3, floor_uniform=False)
    assert loss.item() == pytest.approx(0.4, abs=2e-3)
