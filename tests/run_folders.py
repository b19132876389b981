"""Run folders as a training run leaves them, with invented numbers."""

from pathlib import Path

import numpy as np

from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episodes import EpisodeStore
from hildaft.eval.evaluate import (
    EvaluationRecord,
    EvaluationResult,
    Outcome,
    TaskEvaluation,
    write_evaluation,
)
from hildaft.eval.run_data import write_provenance
from hildaft.runtime.metrics import MetricsWriter
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Encoded, Episode, Observation

TASKS = ("upright", "pick", "assemble")


def rollout(rng: np.random.Generator, task: str, *, success: bool, helped: int) -> Episode:
    steps = 12 if success else 25
    builder = EpisodeBuilder(
        task=task,
        source="online",
        robot="A",
        seed=1,
        policy_version=3,
        encoder_hash="abc",
        action_scale=ActionScale(),
    )
    encoded = Encoded(*(np.zeros(n, np.float32) for n in (4, 3, 2)))
    for step in range(steps + 1):
        images = {}
        for camera, size in (("head", 256), ("wrist", 128)):
            y, x = np.mgrid[0:size, 0:size] / size
            blob = np.hypot(x - 0.2 - 0.5 * step / steps, y - 0.5) < 0.1
            shade = np.stack([0.75 + 0 * x, 0.72 - 0.2 * y, 0.6 + 0.1 * x], -1)
            shade[blob] = (0.12, 0.48, 0.43) if camera == "head" else (0.7, 0.3, 0.2)
            images[camera] = (255 * shade).astype(np.uint8)
        builder.observe(Observation(images=images, proprio=np.zeros(2, np.float32)), encoded)
        if step < steps:
            action = rng.uniform(-1, 1, 7).astype(np.float32)
            human = action if 4 <= step < 4 + helped else None
            builder.act(
                policy_action=action,
                human_action=human,
                executed_action=action,
                reward=float(success and step == steps - 1),
                terminated=success and step == steps - 1,
                truncated=not success and step == steps - 1,
            )
    return builder.build(label_tweaks)


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    preset: str = "hildaft",
    transitions: int = 7500,
    episodes: int = 50,
) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"preset: {preset}\nseed: {seed}\ntasks: [upright]\n")
    write_provenance(
        folder,
        command=["hildaft", "train", "--preset", preset, "--seed", str(seed)],
        commit="0123456789abcdef",
        date="2026-01-01",
        machine="2 cores",
    )
    marks = np.linspace(0, transitions, 7).astype(int).tolist()
    for number, at in enumerate(marks):
        name = "warmup" if number == 0 else "final" if number == 6 else "online"
        tasks = []
        for index, task in enumerate(TASKS):
            rate = 0.35 - 0.1 * index + (0.65 + 0.1 * index) * (1 - np.exp(-3.5 * at / transitions))
            outcomes = []
            for i in range(episodes):
                success = bool(rng.random() < rate)
                length = int(rng.normal(34 - 8 * at / transitions, 5)) if success else 50
                outcomes.append(
                    Outcome(
                        seed=i,
                        success=success,
                        length=min(length, 50),
                        stalled=not success and bool(rng.random() < 0.4),
                    )
                )
            tasks.append(TaskEvaluation(task=task, talk="none", outcomes=tuple(outcomes)))
        record = EvaluationRecord(
            name=name,
            transitions=at,
            robot_minutes=at / 600,
            wall_minutes=at / 300,
            preset=preset,
            seed=seed,
            result=EvaluationResult(tasks=tuple(tasks)),
            diagnostics={"obedience": 0.9, "size_mm": 2.1, "null_drift_mm": 0.1, "spread_mm": 0.8},
        )
        write_evaluation(folder, record)
    write_rows(folder, rng, transitions)
    store = EpisodeStore(folder / "episodes")
    for success, helped in ((False, 0), (True, 6), (True, 0)):
        for task in TASKS:
            store.append(rollout(rng, task, success=success, helped=helped))
    return folder


def write_rows(folder: Path, rng: np.random.Generator, transitions: int) -> None:
    writer = MetricsWriter(folder, print)
    for at in range(0, 4000, 100):
        losses = {f"warmup/critic/{t}/calql_loss": float(rng.gamma(4) / (1 + at)) for t in TASKS}
        writer.write(0, at, {**losses, "warmup/actor/bc_loss": 2 * np.exp(-at / 1500)})
    for at in range(0, transitions, 37):
        x = at / transitions
        row = {"rollout/intervention_share": float(rng.beta(1, 4) * (1 - 0.8 * x))}
        for index, task in enumerate(TASKS):
            row[f"critic/{task}/bellman_loss"] = float(0.02 * rng.gamma(4) * (1.2 - x))
            row[f"actor/qbar/{task}"] = float(0.3 + 0.6 * x - 0.05 * index + 0.02 * rng.normal())
            row[f"actor/eps/{task}"] = float((1 + 0.2 * index * (1 - x)) / 3)
        row |= {"actor/bc_loss": 0.2, "actor/q_loss": -0.5 * x, "refinement/reg_loss": 0.01}
        if at % 5 == 0:
            row["refinement/obedience"] = float(0.5 + 0.47 * (1 - np.exp(-5 * x)))
        writer.write(at, 4000 + at, row)
        task = TASKS[at % 3]
        writer.write(at, 4000 + at, {f"rollout/success/{task}": float(rng.random() < 0.4 + x)})
    writer.close()
