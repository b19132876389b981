"""Every choice of the method in one place, with the two named presets."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from hildaft.models.consistency import ConsistencyConfig
from hildaft.models.critic import CriticConfig
from hildaft.models.refinement import RefinementConfig
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class DualActorConfig:
    """Losses, optimisers and every departure from the paper; the defaults are preset `hildaft`."""

    primary: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """Shape of the primary actor."""

    critic: CriticConfig = field(default_factory=CriticConfig)
    """Shape of the critics."""

    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    """Shape of the refinement actor."""

    discount: float = 0.97
    """gamma per control step. Not in the paper; from HIL-SERL."""

    target_rate: float = 0.005
    """Share of the critics' weights that enters the target critics per update. From ConRFT. Where tasks take turns
    (`tasks_per_update`) a task's targets catch up for the updates that were not its own."""

    critic_learning_rate: float = 3e-4
    """Adam's step for the critics. From ConRFT."""

    primary_learning_rate: float = 1e-3
    """Adam's step for the primary actor.

    Differs from the paper (primary_learning_rate): the ancestors' 3e-4 (the paper is silent) fits
    the demonstrations more slowly.
    """

    primary_average: float = 0.998
    """What acts is an average of the primary actor's weights that keeps this share per update; 0 acts with the
    newest. Differs from the paper (primary_average): an average is steadier than the newest update."""

    refinement_learning_rate: float = 1e-3
    """Adam's step for the refinement actor.

    Differs from the paper (refinement_learning_rate): the ancestors' 3e-4 fits more slowly.
    """

    warmup_bc_weight: float = 1.0
    """lambda_1 of eq. 6 in the warm-up (Sec. V-A)."""

    warmup_q_weight: float = 0.1
    """lambda_2 of eq. 6 in the warm-up (Sec. V-A)."""

    online_bc_weight: float = 0.5
    """lambda_1 of eq. 6 online (Sec. V-A)."""

    online_q_weight: float = 0.1
    """lambda_2 of eq. 6 online. Differs from the paper (online_q_weight): 0.1 in place of 0.5, under which success
    fell below the warm-up policy's in the first 3000 transitions (docs/LOG.md)."""

    bc_form: Literal["direct", "karras"] = "direct"
    """Eq. 5 at sigma = K only, or ConRFT's form over all noise levels."""

    bc_data: Literal["demos", "successes", "all"] = "successes"
    """Rows eq. 5 sees online: the demos, the rollouts of successful episodes too, or everything.

    Differs from the paper (bc_data): demos, which hold the interventions, and the policy's own rollouts where they
    led to success, not those whose failures it would clone; the paper's text says all.
    """

    advantage_temperature: float = 1.0
    """From the 5,000th update on, eq. 5 weighs each row by exp(advantage / (this x the standard deviation of it, each
    task's mean taken off)), at most 5, scaled to a mean of 1. The advantage is the value of the row's action less the
    policy's.

    Differs from the paper (X4): eq. 5 weighs all rows alike, a person's pauses and slips too. 0 switches it off.
    """

    tied_noise: float = 0.05
    """How far one unit of noise moves eq. 5's target along its own axis; action units.

    Differs from the paper (X1): noise (in units of K) and translation are tied, so that the noise
    steers; without it the best fit ignores the noise. 0 switches it off.
    """

    reweight_tasks: bool = True
    """Eq. 15 with the weights of eq. 16, or eq. 14."""

    task_weight_constant: float = 0.1
    """c of eq. 16 (Sec. IV-C)."""

    task_weight_min: float = 0.8
    """eps_min of eq. 16 (Sec. IV-C)."""

    task_weight_max: float = 1.2
    """eps_max of eq. 16 (Sec. IV-C)."""

    target_clip: bool = True
    """Bellman targets are clipped to [0, max_return].

    Differs from the paper (target_clip): a guard against over-estimation.
    """

    max_return: float = 1.0
    """Largest return of an episode: one reward of 1 (Sec. V-A)."""

    critic_reads_h: bool = False
    """The critics also read h.

    Differs from the paper (critic_reads_h): its critics read images only; off by default.
    """

    calql_actions: int = 4
    """Actions sampled per state from each of: uniform, the policy, the policy at the next state.

    Differs from the paper (calql_actions): 4 in place of Cal-QL's 10, for speed on a CPU.
    """

    calql_weight: float = 0.1
    """Weight of Cal-QL's conservative term in the warm-up. Not in the paper; from ConRFT."""

    calql_temperature: float = 1.0
    """Temperature of its soft maximum. Not in the paper; from Cal-QL."""

    calql_floor_uniform: bool = False
    """Floors uniform actions at the Monte-Carlo return too, as ConRFT does and Cal-QL does not."""

    refinement_bc_weight: float = 1.0
    """eta_1 of eq. 11 (Sec. V-A)."""

    refinement_q_weight: float = 0.1
    """eta_2 of eq. 11 (Sec. V-A)."""

    refinement_reg_weight: float = 1.0
    """eta_3 of eq. 11.

    Differs from the paper (eta_3): 1 in place of 0.1, for less drift under "[null]".
    """

    counterfactual_weight: float = 0.5
    """Weight beside eq. 11 of moving the primary action along a random command.

    Differs from the paper (X2): without it the refinement actor does not listen. 0 switches it off.
    """

    counterfactual_step: float = 0.25
    """How far X2 moves each named axis; action units (3.75 mm)."""

    joint_weight: float = 0.25
    """Weight of eq. 8 in the primary actor's loss.

    Differs from the paper (X3): the talk-and-tweak data also train the primary actor, as if the
    human were cloned a second time where the policy erred; 0 switches it off.
    """

    null_bypass: bool = True
    """No command means primary mode.

    Differs from the paper (null_bypass): "[null]" does not go through the refinement actor, which
    costs success.
    """

    to_rollouts: bool = False
    """Interventions go to the rollouts too.

    Differs from the paper (to_rollouts): as in ConRFT; off by default.
    """

    talk_in_rollouts: bool = False
    """The operator may talk before tweaking while the policy trains.

    Differs from the paper (talk_in_rollouts): in Algorithm 1 rollouts are the primary mode's alone;
    off by default.
    """

    refinement_actor: bool = True
    """Whether there is a refinement actor. Off: Table I's ablation without the dual actor; commands are not heard."""

    shared_critic: bool = False
    """One critic for all tasks, which cannot tell them apart but by what it sees.

    Differs from the paper (shared_critic): Sec. IV-C has one per task; an ablation, off by default.
    """

    tasks_per_update: int = 6
    """More tasks than this take turns, in even groups: an update draws its rows from one group's tasks and steps
    their critics alone; eq. 16 compares them with every other task's last known value. 0: all tasks in every update.

    Differs from the paper (tasks_per_update): its three tasks share every update, as up to six do here. With many
    more, each critic would get a few rows per update, and moving its weights through memory would take longer than
    learning from them.
    """

    metrics_every: int = 25
    """Updates between two that report metrics; where tasks take turns, one of each group then does."""

    def __post_init__(self) -> None:
        for name in (
            "warmup_bc_weight",
            "warmup_q_weight",
            "online_bc_weight",
            "online_q_weight",
            "advantage_temperature",
            "tied_noise",
            "calql_weight",
            "refinement_bc_weight",
            "refinement_q_weight",
            "refinement_reg_weight",
            "counterfactual_weight",
            "counterfactual_step",
            "joint_weight",
        ):
            self._require(name, getattr(self, name) >= 0.0, ">= 0; 0 switches it off")
        for name in (
            "critic_learning_rate",
            "primary_learning_rate",
            "refinement_learning_rate",
            "task_weight_constant",
            "calql_temperature",
            "max_return",
        ):
            self._require(name, getattr(self, name) > 0.0, "> 0")
        self._require("discount", 0.0 <= self.discount < 1.0, "in [0, 1); use 0.97")
        self._require("primary_average", 0.0 <= self.primary_average < 1.0, "in [0, 1)")
        self._require("target_rate", 0.0 < self.target_rate <= 1.0, "in (0, 1]; use 0.005")
        self._require("calql_actions", self.calql_actions >= 1, ">= 1; Cal-QL uses 10")
        self._require(
            "tasks_per_update", self.tasks_per_update >= 0, ">= 0; 0: all in every update"
        )
        self._require("metrics_every", self.metrics_every >= 1, ">= 1")
        self._require(
            "joint_weight",
            self.refinement_actor or self.joint_weight == 0.0,
            "0 without a refinement actor",
        )
        ordered = 0.0 < self.task_weight_min <= self.task_weight_max
        self._require("task_weight_min", ordered, "> 0 and at most task_weight_max")

    @property
    def has_critics(self) -> bool:
        """Whether any loss reads a critic; without one, none is trained."""
        refinement = self.refinement_q_weight if self.refinement_actor else 0.0
        weights = (self.warmup_q_weight, self.online_q_weight, self.advantage_temperature)
        return max(*weights, refinement) > 0.0

    def _require(self, name: str, fulfilled: bool, allowed: str) -> None:
        if not fulfilled:
            msg = f"method.{name}={getattr(self, name)}: must be {allowed}"
            raise HilDaftError(msg)


HILDAFT: Final = DualActorConfig()
"""The paper with the labelled departures: the default."""

PAPER: Final = replace(
    HILDAFT,
    primary=replace(HILDAFT.primary, reads_features=False),
    primary_average=0.0,
    advantage_temperature=0.0,
    joint_weight=0.0,
    online_q_weight=0.5,
    primary_learning_rate=3e-4,
    refinement_learning_rate=3e-4,
    bc_data="all",
    tied_noise=0.0,
    target_clip=False,
    calql_actions=10,
    refinement_reg_weight=0.1,
    counterfactual_weight=0.0,
    null_bypass=False,
    tasks_per_update=0,
)
"""The literal reading."""
