"""Times the learner's updates against a plain loop over tasks and ensemble members.

Prints JSON. Variants are interleaved in one process, on one thread; figures are medians of process CPU time in
milliseconds, which a busy machine disturbs less than wall time.
`python benchmarks/learner.py --rounds 15`
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

from reference_critic import ReferenceCritic, reference_of

from hildaft.algo import losses
from hildaft.algo.dual_actor import HILDAFT, Dims, DualActor, DualActorConfig
from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.models.consistency import sample_primary_noise
from hildaft.models.critic import CriticConfig
from hildaft.types import ACTION_DIM, COMMAND_COUNT, NULL_COMMAND, RefinementCommand

TASKS: Final = ("upright", "pick", "assemble")
ROWS: Final = 86
DIMS: Final = Dims(h=128, features=160, proprio=2)


@dataclass(frozen=True)
class LoopLearner:
    """The same updates, written the plain way.

    One module per member, a loop over members, tasks and sampled actions, default Adam, and critic
    gradients that the actors' losses compute and nobody uses.
    """

    twin: DualActor
    critics: Sequence[Sequence[ReferenceCritic]]
    targets: Sequence[Sequence[ReferenceCritic]]
    critic_adam: Sequence[torch.optim.Adam]
    primary_adam: torch.optim.Adam
    refinement_adam: torch.optim.Adam

    @staticmethod
    def like(twin: DualActor) -> "LoopLearner":
        """A loop learner with the twin's critics, sharing its actors."""
        config = twin.config.critic
        critics = [
            [reference_of(twin.critics, config, task, member) for member in range(config.members)]
            for task in range(len(TASKS))
        ]
        return LoopLearner(
            twin=twin,
            critics=critics,
            targets=copy.deepcopy(critics),
            critic_adam=[
                torch.optim.Adam([p for member in task for p in member.parameters()], lr=3e-4)
                for task in critics
            ],
            primary_adam=torch.optim.Adam(twin.actors.primary.parameters(), lr=3e-4),
            refinement_adam=torch.optim.Adam(twin.actors.refinement.parameters(), lr=3e-4),
        )

    def update_critics(self, batch: Batch, *, warmup: bool) -> None:
        """Bellman, and in the warm-up Cal-QL, task by task."""
        config, actors = self.twin.config, self.twin.actors
        for task, members in enumerate(self.critics):
            features = actors.normalisation.standardise_features(batch.features[task])
            next_features = actors.normalisation.standardise_features(batch.next_features[task])
            proprio, next_proprio = batch.proprio[task], batch.next_proprio[task]
            with torch.no_grad():
                following = self._sample(
                    batch.next_h[task], batch.next_features[task], next_proprio
                )
                next_q = [t(next_features, next_proprio, following) for t in self.targets[task]]
                least = torch.stack(next_q).amin(dim=0)
                target = batch.reward[task] + config.discount * batch.not_terminal[task] * least
                target = target.clamp(0.0, config.max_return)
            loss = torch.zeros(())
            sampled = self._calql_actions(batch, task) if warmup else []
            for member in members:
                q_value = member(features, proprio, batch.action[task])
                loss = loss + (q_value - target).square().mean() / len(members)
                if not warmup:
                    continue
                values = [member(features, proprio, action) for action in sampled]
                uniform = torch.stack(values[: config.calql_actions], dim=-1)
                policy = torch.stack(values[config.calql_actions :], dim=-1)
                penalty = losses.conservative_loss(
                    q_value[None, None],
                    uniform[None, None],
                    policy[None, None],
                    batch.mc_return[task][None],
                    temperature=config.calql_temperature,
                    floor_uniform=False,
                )
                loss = loss + config.calql_weight * penalty.sum() / len(members)
            self.critic_adam[task].zero_grad()
            loss.backward()
            self.critic_adam[task].step()
            for slow, fast in zip(self.targets[task], members, strict=True):
                _follow(slow, fast, config.target_rate)

    def update_primary(self, batch: Batch) -> None:
        """Eq. 6, with a pass per task and member for the values."""
        config, actors = self.twin.config, self.twin.actors
        noise = sample_primary_noise(tuple(batch.reward.shape), self.twin._generator)
        action = actors.primary_action(batch.h, batch.features, batch.proprio, noise)
        target = batch.action.clone()
        target[..., :3] += config.tied_noise * noise[..., :3]
        q_value = self._q_of(action, batch)
        task_weights = losses.compute_task_weights(
            q_value.mean(dim=1), constant=0.1, low=0.8, high=1.2
        )
        loss = 0.5 * losses.bc_loss(action, target, batch.from_demos)
        loss = loss + 0.5 * losses.weighted_task_q_loss(q_value, task_weights)
        self.primary_adam.zero_grad()
        loss.backward()
        self.primary_adam.step()

    def update_refinement(self, batch: TalkTweakBatch) -> None:
        """Eq. 11 and X2, one pass per term."""
        config, actors = self.twin.config, self.twin.actors
        noise = sample_primary_noise(tuple(batch.command.shape), self.twin._generator)
        with torch.no_grad():
            primary_action = actors.primary_action(batch.h, batch.features, batch.proprio, noise)
        random_command = torch.randint(COMMAND_COUNT, batch.command.shape)
        null = torch.full_like(batch.command, NULL_COMMAND.index)
        action, null_action, random_action = (
            actors.refined_action(batch.h, batch.features, batch.proprio, command, noise)
            for command in (batch.command, null, random_command)
        )
        signs = [RefinementCommand.from_index(i).signs for i in range(COMMAND_COUNT)]
        direction = torch.tensor(signs, dtype=torch.float32)[random_command]
        loss = (
            losses.refinement_bc_loss(action, batch.action)
            + 0.1 * losses.refinement_q_loss(self._q_of(action, batch))
            + losses.refinement_reg_loss(null_action, primary_action)
            + config.counterfactual_weight
            * losses.counterfactual_loss(
                random_action, primary_action, direction, config.counterfactual_step
            )
        )
        self.refinement_adam.zero_grad()
        loss.backward()
        self.refinement_adam.step()

    def _sample(self, h: Tensor, features: Tensor, proprio: Tensor) -> Tensor:
        noise = sample_primary_noise((len(h),), self.twin._generator)
        return self.twin.actors.primary_action(h, features, proprio, noise)

    @torch.no_grad()
    def _calql_actions(self, batch: Batch, task: int) -> list[Tensor]:
        m = self.twin.config.calql_actions
        h, next_h = batch.h[task], batch.next_h[task]
        return [
            *(2.0 * torch.rand(len(h), ACTION_DIM) - 1.0 for _ in range(m)),
            *(self._sample(h, batch.features[task], batch.proprio[task]) for _ in range(m)),
            *(
                self._sample(next_h, batch.next_features[task], batch.next_proprio[task])
                for _ in range(m)
            ),
        ]

    def _q_of(self, action: Tensor, batch: Batch | TalkTweakBatch) -> Tensor:
        features = self.twin.actors.normalisation.standardise_features(batch.features)
        return torch.stack(
            [
                torch.stack([m(features[i], batch.proprio[i], action[i]) for m in members]).mean(0)
                for i, members in enumerate(self.critics)
            ]
        )


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    for target, parameter in zip(slow.parameters(), fast.parameters(), strict=True):
        target.lerp_(parameter, rate)


def random_batches() -> tuple[Batch, TalkTweakBatch]:
    """Data of the right shapes; nothing is learned here."""
    generator = torch.Generator().manual_seed(0)
    n = len(TASKS)

    def normal(width: int) -> Tensor:
        return torch.randn(n, ROWS, width, generator=generator)

    state = {"h": normal(DIMS.h), "features": normal(DIMS.features), "proprio": normal(2)}
    action = normal(ACTION_DIM).clamp(-1.0, 1.0)
    batch = Batch(
        **state,
        action=action,
        reward=torch.zeros(n, ROWS),
        not_terminal=torch.ones(n, ROWS),
        mc_return=torch.rand(n, ROWS, generator=generator),
        next_h=normal(DIMS.h),
        next_features=normal(DIMS.features),
        next_proprio=normal(2),
        from_demos=(torch.arange(ROWS) < ROWS // 2).expand(n, ROWS),
    )
    command = torch.randint(COMMAND_COUNT, (n, ROWS), generator=generator)
    return batch, TalkTweakBatch(**state, action=action, command=command, task=torch.arange(n))


def measure(config: DualActorConfig, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each update, of the online and of the warm-up sum, batched and looped."""
    batch, talk_tweak = random_batches()
    table = torch.randn(COMMAND_COUNT, 64)
    grouped = DualActor(config, TASKS, DIMS, table, seed=0)
    loop = LoopLearner.like(DualActor(config, TASKS, DIMS, table, seed=0))
    variants: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "critics_online": (
            lambda: grouped.update_critics(batch, "online"),
            lambda: loop.update_critics(batch, warmup=False),
        ),
        "critics_warmup": (
            lambda: grouped.update_critics(batch, "warmup"),
            lambda: loop.update_critics(batch, warmup=True),
        ),
        "primary": (
            lambda: grouped.update_primary(batch, "online"),
            lambda: loop.update_primary(batch),
        ),
        "refinement": (
            lambda: grouped.update_refinement(talk_tweak),
            lambda: loop.update_refinement(talk_tweak),
        ),
    }
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in variants}
    for round_ in range(rounds + 2):
        for name, pair in variants.items():
            for run, taken in zip(pair, times[name], strict=True):
                start = time.process_time()
                run()
                # The first two rounds warm up the allocator and the caches.
                if round_ >= 2:
                    taken.append(1000.0 * (time.process_time() - start))
    parts = {name: [statistics.median(taken) for taken in both] for name, both in times.items()}
    actors = [parts["primary"][i] + parts["refinement"][i] for i in range(2)]
    parts["online"] = [parts["critics_online"][i] + actors[i] for i in range(2)]
    parts["warmup"] = [parts["critics_warmup"][i] + parts["primary"][i] for i in range(2)]
    return {
        name: {
            "grouped_ms": round(grouped_ms, 2),
            "loop_ms": round(loop_ms, 2),
            "ratio": round(loop_ms / grouped_ms, 2),
        }
        for name, (grouped_ms, loop_ms) in parts.items()
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--calql-actions", type=int, default=HILDAFT.calql_actions)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = replace(
        HILDAFT,
        critic=CriticConfig(members=arguments.members),
        calql_actions=arguments.calql_actions,
    )
    size = 512
    square = torch.randn(size, size)
    start = time.process_time()
    for _ in range(50):
        square @ square
    gflops = 50 * 2 * size**3 / (time.process_time() - start) / 1e9
    result = {
        "tasks": len(TASKS),
        "rows": ROWS * len(TASKS),
        "members": arguments.members,
        "calql_actions": arguments.calql_actions,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "sgemm_gflops": round(gflops, 1),
        "updates": measure(config, arguments.rounds),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
