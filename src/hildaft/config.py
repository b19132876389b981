"""What a run is made of: the parts' configs composed, the named presets, and reading and writing them."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import dacite
import yaml

from hildaft.algo.config import HILDAFT, PAPER, DualActorConfig
from hildaft.algo.training import TrainingConfig
from hildaft.eval.local_bench import EvaluationConfig
from hildaft.models.selection import EncoderConfig, check_backbone
from hildaft.teleop.simulated_operator import OperatorConfig
from hildaft.types import HilDaftError

TASKS: Final = ("upright", "pick", "assemble")
"""The bolt bench's tasks, in the order of Fig. 2."""

INSTRUCTIONS: Final = {
    "upright": "place the bolt upright",
    "pick": "pick up the bolt",
    "assemble": "assemble the bolt",
}
"""What the backbone is told (l_task), as Table I words it."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run; saved as config.yaml in its folder."""

    preset: str = "hildaft"
    """Name of the preset this started from; the fields below hold what was used."""
    seed: int = 0
    """Decides initial weights, scenes, the operator's faults and every sample."""
    tasks: tuple[str, ...] = TASKS
    """Trained together, one critic each."""
    robot: Literal["A", "B"] = "A"
    """Variant of the bolt bench: mounting, cameras and colours differ."""
    backbone: str = "octo-tiny"
    """The frozen VLA that makes h: octo-tiny, smol-tiny, octo-small, octo-base, smolvla, octo:SOURCE, smolvla:SOURCE;
    a source is a folder or a hub name."""
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoders beside it."""
    real_time: bool = False
    """Act at 10 Hz by the clock instead of as fast as the simulator runs."""
    operator: OperatorConfig = field(default_factory=OperatorConfig)
    """The simulated person who demonstrates, tweaks and talks."""
    method: DualActorConfig = HILDAFT
    """The dual-actor method and its switches."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Amounts of data and updates."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Episodes per evaluation and how often."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            msg = f"seed={self.seed}: 0 or more is allowed"
            raise HilDaftError(msg)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            msg = f"tasks={self.tasks}: one or more different names out of {', '.join(TASKS)}"
            raise HilDaftError(msg)
        for task in self.tasks:
            require_name("tasks", task, TASKS)
        check_backbone(self.backbone)


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
    "demo": RunConfig(
        preset="demo",
        training=TrainingConfig(online_transitions=6_000),
        evaluation=EvaluationConfig(
            episodes=20, episodes_before=20, episodes_during=10, every=2_000
        ),
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
"""`hildaft`: the default. `paper`: the literal reading. `demo`: half an hour on two cores. `tiny`: for tests."""


def write_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved config as YAML."""
    # Through JSON-like values only: a tuple would be written as a Python-specific tag.
    text = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)
    path.write_text(text, encoding="utf-8")


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
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"config {path}: there is no such file; give a run folder made by `hildaft train`"
        raise HilDaftError(msg) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"config {path}: cannot be read as YAML ({' '.join(str(error).split())})"
        raise HilDaftError(msg) from error
    if not isinstance(data, dict):
        msg = f"config {path}: a mapping of fields is expected, found {type(data).__name__}"
        raise HilDaftError(msg)
    try:
        rules = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _widen})
        return dacite.from_dict(RunConfig, data, rules)
    except dacite.DaciteError as error:
        msg = f"config {path}: {' '.join(str(error).split())}"
        raise HilDaftError(msg) from error
