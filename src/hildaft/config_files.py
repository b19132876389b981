"""Configs from YAML files: each mistake in one is one line. What is read beside a robot needs no torch."""

import dataclasses
import difflib
from collections.abc import Generator
from pathlib import Path
from typing import (
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
import yaml

from hildaft.arms import ArmConfig
from hildaft.lerobot_bridge.config import LeRobotConfig
from hildaft.robots.bolt_arm import BoltArmConfig
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.serl_http import SerlConfig
from hildaft.types import HilDaftError

Config = TypeVar("Config")

Environment: TypeAlias = GymConfig | ArmConfig
"""What can stand in the bolt bench's place; `kind` in its file says which."""

_KINDS: Final[dict[str, type[Environment]]] = {
    "gymnasium": GymConfig,
    "serl": SerlConfig,
    "lerobot": LeRobotConfig,
    "bolt_sim": BoltArmConfig,
}


def require_name(what: str, given: str, allowed: tuple[str, ...]) -> None:
    """Raises HilDaftError with the valid names, and the likely one, unless `given` is one of them."""
    if given in allowed:
        return
    close = difflib.get_close_matches(given, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    msg = f"{what}={given!r}: {', '.join(allowed)} are allowed{hint}"
    raise HilDaftError(msg)


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


def _widen(value: object) -> object:
    # YAML writes 1.0 and 1 alike for people; nothing else becomes a float.
    return float(value) if type(value) is int else value
