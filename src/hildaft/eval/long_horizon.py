"""Long horizon: chains of bolts run by a policy, silent or spoken to, and where each of them broke."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, final, runtime_checkable

from hildaft.robots.bolt_sim.chain import BoltChain, ChainResult
from hildaft.robots.bolt_sim.failures import explain_failure
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import Action, Observation, Policy, SceneState


@runtime_checkable
class SeededPolicy(Policy, Protocol):
    """A policy whose noise can be begun anew."""

    def begin(self, seed: int) -> None:
        """Restarts the noise."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainOutcome:
    """How one chain went."""

    seed: int
    bolts_done: int
    """Bolts set upright, picked and assembled before anything failed."""
    result: ChainResult
    spoken_steps: int
    """Steps with a command in force."""
    failed_bolt: int | None
    """From 0; None where nothing failed."""
    failed_task: str | None
    reason: str | None
    """One of `robots.bolt_sim.failures.Reason`."""

    def to_json(self) -> dict[str, Any]:
        """As the results files hold it."""
        return {
            "seed": self.seed,
            "success": self.result.success,
            "bolts_done": self.bolts_done,
            "stages": [asdict(stage) for stage in self.result.stages],
            "task_steps": self.result.task_steps,
            "transit_steps": self.result.transit_steps,
            "spoken_steps": self.spoken_steps,
            "failed_bolt": self.failed_bolt,
            "failed_task": self.failed_task,
            "reason": self.reason,
        }


@final
class _Acting:
    """The policy's side of a chain: told of every step, it begins the operator anew with every task."""

    def __init__(
        self,
        policy: SeededPolicy,
        operator: SimulatedOperator,
        view: Callable[[], SceneState],
        seed: int,
    ) -> None:
        self._policy, self._operator, self._view, self._seed = policy, operator, view, seed
        self._task = ""
        self.states: list[SceneState] = []
        """Of the task under way, before each step."""
        self.spoken = 0

    def __call__(self, observation: Observation, task: str) -> Action:
        """One step."""
        if task != self._task:
            # No task follows itself, so a new name is a new task.
            self._task, self.states = task, []
            self._operator.begin(task, self._seed)
        self.states.append(self._view())
        command = self._operator.speak()
        self.spoken += not command.is_null
        action = self._policy.act(self._policy.encode(observation, task), command)
        # It keeps count of the steps here; told not to tweak, it never takes over.
        self._operator.tweak(action)
        return action


def run_chain(
    chain: BoltChain, policy: SeededPolicy, operator: SimulatedOperator, seed: int
) -> ChainOutcome:
    """Runs one chain of bolts. The operator must not tweak; it says what its config tells it to."""
    policy.begin(seed)
    acting = _Acting(policy, operator, chain.scene_state, seed)
    result = chain.run(acting, seed)
    last = result.stages[-1]
    reason = None if last.success else explain_failure([*acting.states, chain.scene_state()])
    return ChainOutcome(
        seed=seed,
        bolts_done=sum(stage.success for stage in result.stages) // 3,
        result=result,
        spoken_steps=acting.spoken,
        failed_bolt=None if last.success else last.bolt,
        failed_task=None if last.success else last.task,
        reason=reason,
    )
