"""What a run is made of: the parts' configs composed, the named presets, and reading and writing them."""

import dataclasses
import difflib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import dacite
import tyro
import yaml

from hildaft.algo.config import HILDAFT, PAPER, DualActorConfig
from hildaft.algo.training import TrainingConfig
from hildaft.arms import ArmConfig
from hildaft.baselines import cloning, dsrl, hg_dagger, hil_conrft, single_actor
from hildaft.baselines.dsrl import DsrlConfig
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

Config = TypeVar("Config")


Environment: TypeAlias = GymConfig | ArmConfig
"""What can stand in the bolt bench's place; `kind` in its file says which."""

_KINDS: Final[dict[str, type[Environment]]] = {
    "gymnasium": GymConfig,
    "serl": SerlConfig,
    "lerobot": LeRobotConfig,
    "bolt_sim": BoltArmConfig,
}


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


def require_name(what: str, given: str, allowed: tuple[str, ...]) -> None:
    """Raises HilDaftError with the valid names, and the likely one, unless `given` is one of them."""
    if given in allowed:
        return
    close = difflib.get_close_matches(given, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    msg = f"{what}={given!r}: {', '.join(allowed)} are allowed{hint}"
    raise HilDaftError(msg)


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
(docs/baselines.md). `demo`: about half an hour on two cores.
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


def _widen(value: object) -> object:
    # YAML writes 1.0 and 1 alike for people; nothing else becomes a float.
    return float(value) if type(value) is int else value


def read_config(path: Path) -> RunConfig:
    """Reads a config.yaml; an unknown field, a wrong type or a bad value is one HilDaftError."""
    return read_yaml(RunConfig, path, "give a run folder made by `hildaft train`")


def read_environment(path: Path) -> Environment:
    """Reads the YAML file of a Gymnasium environment or a real arm; files it names are looked for beside it.

    Raises:
        HilDaftError: as `read_config`, or of a kind that there is not.
    """
    advice = "docs/gymnasium.md and docs/robots.md say how to write one"
    kind = str(_read_mapping(path, advice).get("kind", "gymnasium"))
    require_name(f"config {path}: kind", kind, tuple(_KINDS))
    config = read_yaml(_KINDS[kind], path, advice)
    match config:
        case LeRobotConfig():
            return config.beside(path.parent)
        case SerlConfig() | BoltArmConfig():
            return config
        case GymConfig():
            tasks = {
                name: dataclasses.replace(task, env_id=_beside(task.env_id, path.parent))
                for name, task in config.tasks.items()
            }
            operator = _beside(config.operator, path.parent)
            return dataclasses.replace(config, tasks=tasks, operator=operator)


def _beside(name: str, folder: Path) -> str:
    """`file.py:thing` with the file's place resolved; anything else as it is."""
    file, _, thing = name.rpartition(":")
    return f"{(folder / file).resolve()}:{thing}" if file.endswith(".py") else name


def read_arm(path: Path) -> ArmConfig:
    """Reads the YAML file of a real arm; raises HilDaftError for one of anything else."""
    config = read_environment(path)
    if isinstance(config, GymConfig):
        msg = (
            f"config {path}: kind 'serl', 'lerobot' or 'bolt_sim' is needed, and examples/robots has one of each"
            " to copy; `hildaft check-env` looks at a Gymnasium environment"
        )
        raise HilDaftError(msg)
    return config


def with_environment(config: RunConfig, path: Path) -> RunConfig:
    """The config with the environment of a YAML file in the bolt bench's place, all of its tasks trained."""
    environment = read_environment(path)
    return dataclasses.replace(config, environment=environment, tasks=tuple(environment.tasks))


def read_yaml(kind: type[Config], path: Path, advice: str) -> Config:
    """A config of this kind from a YAML file.

    Raises:
        HilDaftError: no such file (`advice` says what to do), no YAML, an unknown field, a wrong type or a bad value.
    """
    data = _read_mapping(path, advice)
    try:
        rules = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _widen})
        return dacite.from_dict(kind, data, rules)
    except dacite.DaciteError as error:
        msg = f"config {path}: {_reason(error, kind, data)}"
        raise HilDaftError(msg) from error
    except HilDaftError as error:
        msg = f"config {path}: {error}"
        raise HilDaftError(msg) from error


def _reason(error: dacite.DaciteError, kind: type[object], data: dict[str, Any]) -> str:
    """What dacite found, with what is allowed in its place."""
    stray = next(_stray_fields(kind, data, ""), None)
    if isinstance(error, dacite.UnexpectedDataError) and stray is not None:
        return stray
    if isinstance(error, dacite.WrongTypeError) and get_origin(error.field_type) is Literal:
        allowed = ", ".join(map(str, get_args(error.field_type)))
        return f"{error.field_path}={error.value!r}: {allowed} are allowed"
    if isinstance(error, dacite.MissingValueError):
        return f"{error.field_path} is missing"
    return " ".join(str(error).split())


def _stray_fields(kind: object, data: object, path: str) -> Generator[str]:
    """A line for each key of nested mappings that is no field of the dataclass it stands for."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(data, dict):
        hints = get_type_hints(kind)
        for key, value in cast(dict[str, Any], data).items():
            name = f"{path}{key}"
            if key in hints:
                inner = hints[key]
                dot = "." if isinstance(value, dict) and get_origin(inner) is not dict else ""
                yield from _stray_fields(inner, value, name + dot)
                continue
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{', '.join(hints)} are allowed"
            yield f"there is no field {name!r}; {hint}"
    elif isinstance(data, dict) and get_origin(kind) is dict:
        for key, value in cast(dict[str, Any], data).items():
            yield from _stray_fields(get_args(kind)[1], value, f"{path}.{key}.")
    elif isinstance(data, list) and get_origin(kind) is tuple:
        for index, value in enumerate(cast(list[Any], data)):
            yield from _stray_fields(get_args(kind)[0], value, f"{path}[{index}].")
    else:
        for part in get_args(kind):
            yield from _stray_fields(part, data, path)


def _read_mapping(path: Path, advice: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"config {path}: there is no such file; {advice}"
        raise HilDaftError(msg) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"config {path}: cannot be read as YAML ({' '.join(str(error).split())})"
        raise HilDaftError(msg) from error
    if not isinstance(data, dict):
        msg = f"config {path}: a mapping of fields is expected, found {type(data).__name__}"
        raise HilDaftError(msg)
    return cast(dict[str, Any], data)
