import pytest
import torch

from hildaft.models.critic import CriticConfig, Critics, embed_state, q_values
from hildaft.types import HilDaftError
from reference_critic import reference_of, split_gradients

CONFIG = CriticConfig(
    members=2, feature_projection=6, proprio_projection=4, action_projection=5, hidden=8
)
TASKS, ROWS, ACTIONS, FEATURES = 3, 4, 5, 7


@pytest.fixture
def critics() -> Critics:
    torch.manual_seed(0)
    return Critics(CONFIG, TASKS, FEATURES, 2).double()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((TASKS, ROWS, FEATURES), (TASKS, ROWS, 2), (TASKS, ROWS, ACTIONS, 7))
    return tuple(torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)


def test_batched_pass_equals_the_plain_loop_in_values_and_gradients(critics: Critics) -> None:
    features, proprio, action = inputs()
    weights = critics.weights()
    q = q_values(weights, embed_state(weights, features, proprio), action)
    assert q.shape == (TASKS, 2, ROWS, ACTIONS)
    names, leaves = zip(*weights.items(), strict=True)
    gradients = dict(zip(names, torch.autograd.grad(q.square().sum(), leaves), strict=True))

    for task in range(TASKS):
        for member in range(2):
            reference = reference_of(critics, CONFIG, task, member).double()
            expected = torch.stack(
                [
                    reference(features[task], proprio[task], action[task, :, m])
                    for m in range(ACTIONS)
                ],
                dim=1,
            )
            torch.testing.assert_close(q[task, member], expected)
            expected.square().sum().backward()
            for name, gradient in split_gradients(reference, CONFIG).items():
                own = gradients[name][task * CONFIG.members + member]
                torch.testing.assert_close(own, gradient, msg=name)


def test_one_task_at_a_time_gives_the_same_values_and_gradients(critics: Critics) -> None:
    features, proprio, action = inputs()
    weights = critics.weights()
    whole = q_values(weights, embed_state(weights, features, proprio), action)
    gradients = torch.autograd.grad(whole.square().sum(), list(weights.values()))
    for task in range(TASKS):
        one = slice(task, task + 1)
        groups = slice(task * CONFIG.members, (task + 1) * CONFIG.members)
        own = critics.weights(range(task, task + 1))
        q = q_values(own, embed_state(own, features[one], proprio[one]), action[one])
        torch.testing.assert_close(q, whole[one])
        for part, full in zip(
            torch.autograd.grad(q.square().sum(), list(own.values())), gradients, strict=True
        ):
            torch.testing.assert_close(part, full[groups])


def test_weights_share_memory_with_the_parameters(critics: Critics) -> None:
    every, own = critics.weights(), critics.weights(range(1, 2))
    with torch.no_grad():
        critics.get_parameter("out_bias")[1] = 9.0
    assert (own["out_bias"] == 9.0).all()
    assert (every["out_bias"] == 9.0).flatten().tolist() == [False, False, True, True, False, False]


def test_members_and_tasks_start_different(critics: Critics) -> None:
    flat = critics.get_parameter("features_in_weight").detach().flatten(0, 1)
    for i in range(len(flat)):
        for j in range(i):
            assert not torch.equal(flat[i], flat[j])


def test_a_loss_on_one_task_leaves_the_other_tasks_without_gradient(critics: Critics) -> None:
    features, proprio, action = inputs()
    weights = critics.weights()
    q = q_values(weights, embed_state(weights, features, proprio), action)
    gradients = torch.autograd.grad(q[1, 0].sum(), list(weights.values()))
    for name, gradient in zip(weights, gradients, strict=True):
        touched = gradient.abs().flatten(1).sum(dim=1) > 0
        assert touched.tolist() == [False, False, True, False, False, False], name


def test_actions_are_clipped_as_the_robot_clips_them(critics: Critics) -> None:
    features, proprio, action = inputs()
    weights = critics.weights()
    state = embed_state(weights, features, proprio)
    beyond = action.sign() * 3.0
    torch.testing.assert_close(
        q_values(weights, state, beyond), q_values(weights, state, action.sign())
    )


def test_a_critic_without_members_is_refused() -> None:
    with pytest.raises(HilDaftError, match=r"critic\.members=0"):
        CriticConfig(members=0)
