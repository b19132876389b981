"""What a run is made of: the parts' configs composed, the named presets, and reading and writing them."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Final,
    Literal,
)

import tyro
import yaml

from hildaft.algo.config import HILDAFT, PAPER, DualActorConfig
from hildaft.algo.training import TrainingConfig
from hildaft.baselines import cloning, dsrl, hg_dagger, hil_conrft, single_actor
from hildaft.baselines.dsrl import DsrlConfig
from hildaft.config_files import Environment, read_environment, read_yaml, require_name
from hildaft.eval.local_bench import EvaluationConfig
from hildaft.eval.statistics import STEP_LIMIT
from hildaft.lerobot_bridge.config import LeRobotConfig
from hildaft.models.selection import EncoderConfig, check_backbone
from hildaft.robots.bolt_arm import TASKS, BoltArmConfig
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.judged import JudgeConfig
from hildaft.robots.serl_http import SerlConfig
from hildaft.teleop.person import OperatorConfig
from hildaft.types import HilDaftError

INSTRUCTIONS: Final = {
    "upright": "place the bolt upright",
    "pick": "pick up the bolt",
    "assemble": "assemble the bolt",
}
"""What the backbone is told (l_task), as Table I words it."""


def _never_from_words(words: list[str]) -> Environment | None:
    msg = f"environment={words}: it is read from the file that --env names"
    raise ValueError(msg)


# One value to tyro: it would look for options inside it when it explains an unknown one.
_OPAQUE: Final = tyro.constructors.PrimitiveConstructorSpec[Environment | None](
    nargs=1,
    metavar="FILE",
    instance_from_str=_never_from_words,
    is_instance=lambda value: (
        value is None or isinstance(value, (GymConfig, SerlConfig, LeRobotConfig, BoltArmConfig))
    ),
    str_from_instance=lambda value: ["none" if value is None else value.name],
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run; saved as config.yaml in its folder."""

    preset: Annotated[str, tyro.conf.Suppress] = "hildaft"
    """Name of the preset this started from; the fields below hold what was used."""
    seed: int = 0
    """Decides initial weights, scenes, the operator's faults and every sample."""
    tasks: tuple[str, ...] = TASKS
    """Trained together, one critic each."""
    robot: Literal["A", "B"] = "A"
    """Variant of the bolt bench: mounting, cameras and colours differ."""
    environment: Annotated[Environment | None, tyro.conf.Fixed, _OPAQUE] = None
    """A Gymnasium environment or a real arm in the bolt bench's place, read from the file that --env names."""
    backbone: str = "octo-tiny"
    """The frozen VLA that makes h: octo-tiny, smol-tiny, octo-small, octo-base, smolvla, octo:SOURCE, smolvla:SOURCE;
    a source is a folder or a hub name."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoders beside it."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Who says that a task is done."""
    real_time: bool = False
    """Act at 10 Hz by the clock instead of as fast as the simulator runs."""
    operator: OperatorConfig = field(default_factory=OperatorConfig)
    """The simulated person who demonstrates, tweaks and talks."""
    method: DualActorConfig = HILDAFT
    """The dual-actor method and its switches."""
    pool_tasks: bool = False
    """All tasks count as one: one critic, one set of buffers, nothing balanced, as in HIL-ConRFT."""
    dsrl: DsrlConfig = field(default_factory=DsrlConfig)
    """DSRL in the dual actor's place, unless its variant is off."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Amounts of data and updates."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Episodes per evaluation and how often."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            msg = f"seed={self.seed}: 0 or more is allowed"
            raise HilDaftError(msg)
        known = TASKS if self.environment is None else tuple(self.environment.tasks)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            msg = f"tasks={self.tasks}: one or more different names out of {', '.join(known)}"
            raise HilDaftError(msg)
        for task in self.tasks:
            require_name("tasks", task, known)
        check_backbone(self.backbone)
        if self.dsrl.variant != "off" and (self.method.refinement_actor or self.pool_tasks):
            msg = (
                f"dsrl.variant={self.dsrl.variant!r}: method.refinement_actor and pool_tasks must be off with it;"
                " start from preset dsrl"
            )
            raise HilDaftError(msg)

    @property
    def instructions(self) -> dict[str, str]:
        """What the backbone is told, by task."""
        if self.environment is None:
            return {task: INSTRUCTIONS[task] for task in self.tasks}
        return {task: self.environment.tasks[task].instruction for task in self.tasks}

    @property
    def step_limit(self) -> int:
        """Control steps of an episode."""
        return STEP_LIMIT if self.environment is None else self.environment.step_limit


PRESETS: Final[dict[str, RunConfig]] = {
    "hildaft": RunConfig(),
    "paper": RunConfig(preset="paper", method=PAPER, training=TrainingConfig(batch_size=256)),
    "single-actor": RunConfig(preset="single-actor", method=single_actor.METHOD),
    "bc": RunConfig(preset="bc", method=cloning.METHOD, training=cloning.TRAINING),
    "hg-dagger": RunConfig(preset="hg-dagger", method=hg_dagger.METHOD),
    "hil-conrft": RunConfig(
        preset="hil-conrft",
        method=hil_conrft.METHOD,
        pool_tasks=True,
        training=hil_conrft.TRAINING,
    ),
    "dsrl": RunConfig(preset="dsrl", method=dsrl.METHOD, dsrl=DsrlConfig(variant="na")),
    "demo": RunConfig(
        preset="demo",
        training=TrainingConfig(online_transitions=6_000),
        evaluation=EvaluationConfig(
            episodes=20, episodes_before=20, episodes_during=10, every=2_000
        ),
    ),
    "smoke": RunConfig(
        preset="smoke",
        training=TrainingConfig(
            demonstrations=4,
            warmup_updates=100,
            online_transitions=600,
            rollout_gate=50,
            talk_tweak_gate=20,
        ),
        evaluation=EvaluationConfig(episodes=4, episodes_before=4, episodes_during=2, every=300),
    ),
    "tiny": RunConfig(
        preset="tiny",
        training=TrainingConfig(
            demonstrations=2,
            warmup_updates=40,
            online_transitions=150,
            batch_size=24,
            update_to_data=0.5,
            rollout_gate=10,
            talk_tweak_gate=5,
            refinement_batch_size=12,
        ),
        evaluation=EvaluationConfig(episodes=1, episodes_before=1, episodes_during=1, every=100),
    ),
}
"""`hildaft`: the default. `paper`: the literal reading. `single-actor` to `dsrl`: what they are compared with
(docs/baselines.md). `demo`: about 15 minutes on two cores.
`smoke`: all of it in about a minute, too short to learn much. `tiny`: for tests."""


def write_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved config as YAML."""
    path.write_text(config_text(config), encoding="utf-8")


def config_text(config: RunConfig) -> str:
    """The resolved config as YAML."""
    # Through JSON-like values only: a tuple would be written as a Python-specific tag.
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def read_config(path: Path) -> RunConfig:
    """Reads a config.yaml; an unknown field, a wrong type or a bad value is one HilDaftError."""
    return read_yaml(RunConfig, path, "give a run folder made by `hildaft train`")


def with_environment(config: RunConfig, path: Path) -> RunConfig:
    """The config with the environment of a YAML file in the bolt bench's place, all of its tasks trained.

    Its scenes hold no bolts: image features are what the embedded encoder reads the bench's geometry from.
    """
    environment = read_environment(path)
    return dataclasses.replace(
        config,
        environment=environment,
        tasks=tuple(environment.tasks),
        encoders=dataclasses.replace(config.encoders, image="keypoints-unread"),
    )
