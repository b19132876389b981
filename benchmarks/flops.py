"""Counted arithmetic of an update: the matrix products it cannot do without, each once.

From shapes alone, not from the implementation under test, so that wasted work never improves a score. Both the state
part of a split first layer and frozen inputs are counted as cheaply as they can be had exactly. Element-wise work is
left out: the floor is that of matrix products.
"""

from dataclasses import dataclass

from hildaft.algo.config import DualActorConfig
from hildaft.data.replay import Dims
from hildaft.models.consistency import TIME_CHANNELS
from hildaft.types import ACTION_DIM, COMMAND_COUNT


@dataclass(frozen=True)
class UpdateFlops:
    """Floating-point operations per update (a multiply-add is two)."""

    online: int
    """Critics, primary actor with the joint term, refinement actor."""
    warmup: int
    """Critics with Cal-QL, primary actor."""


def count(
    config: DualActorConfig, dims: Dims, rows: int, talk_rows: int, words: int
) -> UpdateFlops:
    """For `rows` transitions and `talk_rows` talk-and-tweak rows of all tasks together.

    Args:
        config: shapes of the networks.
        dims: widths of what they read.
        rows: transitions per update, all tasks together.
        talk_rows: rows of the refinement actor's update.
        words: width of an embedded command.
    """
    critic, primary, refinement = (
        _Critic(config, dims),
        _Primary(config, dims),
        _Refinement(config, dims, words),
    )
    target = primary.forward(rows, rows) + critic.forward(rows, rows)
    critics_online = target + critic.train(rows, rows)
    actor = primary.forward(rows, rows) + primary.backward(rows, rows) + critic.to_action(rows)
    # X4 values the row's action beside the policy's.
    valued = 2 if config.advantage_temperature else 1
    joint = (
        refinement.forward(talk_rows, talk_rows)
        + primary.forward(talk_rows, talk_rows)
        + primary.backward(talk_rows, talk_rows)
    )
    talk = (
        primary.forward(talk_rows, 4 * talk_rows)
        + primary.to_noise(3 * talk_rows)
        + refinement.forward(talk_rows, 3 * talk_rows)
        + refinement.backward(talk_rows, 3 * talk_rows)
        + critic.forward(talk_rows, talk_rows)
        + critic.to_action(talk_rows)
    )
    sampled = 1 + 3 * config.calql_actions
    critics_warmup = (
        target
        + primary.forward(2 * rows, 2 * config.calql_actions * rows)
        + critic.train(rows, sampled * rows)
    )
    with_joint = joint if config.joint_weight else 0
    return UpdateFlops(
        online=2
        * (critics_online + actor + critic.forward(rows, valued * rows) + with_joint + talk),
        warmup=2 * (critics_warmup + actor + critic.forward(rows, rows)),
    )


class _Critic:
    """Multiply-adds of every member of a task's ensemble."""

    def __init__(self, config: DualActorConfig, dims: Dims) -> None:
        shape = config.critic
        features = dims.features + (dims.h if config.critic_reads_h else 0)
        self.members = shape.members
        self.project = features * shape.feature_projection + dims.proprio * shape.proprio_projection
        self.state = (shape.feature_projection + shape.proprio_projection) * shape.hidden
        self.action_in = ACTION_DIM * shape.action_projection
        self.head = shape.action_projection * shape.hidden + shape.hidden**2 + shape.hidden

    def forward(self, states: int, actions: int) -> int:
        per_member = states * (self.project + self.state) + actions * (self.action_in + self.head)
        return self.members * per_member

    def train(self, states: int, actions: int) -> int:
        """Forward, gradients of the weights, gradients of what lies between."""
        between = self.members * (states * self.state + actions * self.head)
        return 2 * self.forward(states, actions) + between

    def to_action(self, actions: int) -> int:
        """Gradient of the value in the action."""
        return self.members * actions * (self.head + self.action_in)


class _Primary:
    def __init__(self, config: DualActorConfig, dims: Dims) -> None:
        hidden = config.primary.hidden
        seen = dims.h + (dims.features if config.primary.reads_features else 0) + dims.proprio
        self.state = seen * hidden
        self.noise = ACTION_DIM * hidden
        self.trunk = hidden**2 + hidden * ACTION_DIM
        self.time = 2 * TIME_CHANNELS * (TIME_CHANNELS + hidden)

    def forward(self, states: int, actions: int) -> int:
        return states * self.state + actions * (self.noise + self.trunk) + self.time

    def backward(self, states: int, actions: int) -> int:
        return self.forward(states, actions) + actions * self.trunk

    def to_noise(self, actions: int) -> int:
        return actions * (self.trunk + self.noise)


class _Refinement:
    def __init__(self, config: DualActorConfig, dims: Dims, words: int) -> None:
        width, hidden = config.refinement.projection, config.refinement.hidden
        self.project = (dims.features + dims.proprio) * width
        self.state = 2 * width * hidden
        self.words = COMMAND_COUNT * words * width
        self.commands = COMMAND_COUNT * width * hidden
        self.trunk = hidden**2 + hidden * ACTION_DIM

    def forward(self, states: int, means: int) -> int:
        table = self.words + self.commands
        return states * (self.project + self.state) + table + means * self.trunk

    def backward(self, states: int, means: int) -> int:
        between = states * self.state + self.commands + means * self.trunk
        return self.forward(states, means) + between
