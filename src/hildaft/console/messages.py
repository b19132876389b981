"""What the page may say to the server: every message checked field by field before anything acts on it.

Messages are JSON objects with a `type`; version 1. Directions are the operator's: forward, left, up.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
from jaxtyping import Float32

from hildaft.types import HilDaftError, RefinementCommand

VERSION: Final = 1
MAX_BYTES: Final = 4096
"""Longest message taken; the longest one the page sends is a typed sentence."""
MAX_TEXT: Final = 200
"""Longest sentence, characters."""

Key: TypeAlias = Literal["success", "failure", "again", "stop", "pause", "resume", "hand-back"]
SeatChange: TypeAlias = Literal["take", "leave"]
ReviewVerdict: TypeAlias = Literal["keep", "discard"]

_KEYS: Final = ("success", "failure", "again", "stop", "pause", "resume", "hand-back")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drive:
    """A sign of the hand, repeated while a key or stick is held."""

    motion: Float32[np.ndarray, "6"]
    """Forward, left, up, and the rotations about these axes, each in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The hand is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grip:
    """Open or close the jaws."""

    closes: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Say:
    """Words by button."""

    said: RefinementCommand
    keep: bool
    """Whether the words stay in force until others come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """Words by text; without `act` only their meaning is shown."""

    text: str
    act: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Listen:
    """The push-to-talk button goes down or up; in between binary messages bring the sound, 16-bit mono at 16 kHz."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Press:
    """A key beside the robot."""

    key: Key


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """Take or leave control."""

    change: SeatChange


@dataclass(frozen=True, kw_only=True, slots=True)
class Select:
    """Look at another robot."""

    robot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """What becomes of a recorded episode."""

    verdict: ReviewVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Helper:
    """Whether the simulated operator stands in."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """The page is alive."""

    stamp_ms: float
    """The page's clock, echoed so that it can show how long the way there and back takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The page has a state, and everything sent before it."""

    number: int


Message: TypeAlias = (
    Drive
    | Release
    | Grip
    | Say
    | Sentence
    | Listen
    | Press
    | Seat
    | Select
    | Review
    | Helper
    | Beat
    | Seen
)


def parse_message(text: str) -> Message:
    """The message in a JSON text.

    Raises:
        HilDaftError: too long, not JSON, an unknown type, a field missing, of another type or out of range.
    """
    if len(text) > MAX_BYTES:
        msg = f"message of {len(text)} characters: {MAX_BYTES} at most are allowed"
        raise HilDaftError(msg)
    try:
        # NaN and Infinity are no JSON; Python would take them.
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = "message: a JSON object is expected"
        raise HilDaftError(msg) from error
    if not isinstance(data, dict):
        msg = f"message: a JSON object is expected, not {type(data).__name__}"
        raise HilDaftError(msg)
    return _parse(cast(dict[str, Any], data))


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _parse(data: dict[str, Any]) -> Message:
    match data.get("type"):
        case "drive":
            motion = np.array(_numbers(data, "motion", 6), dtype=np.float32)
            return Drive(motion=motion)
        case "release":
            return Release()
        case "grip":
            return Grip(closes=_flag(data, "closes"))
        case "say":
            return Say(said=_signs(data), keep=_flag(data, "keep"))
        case "text":
            said = data.get("text")
            if not isinstance(said, str) or not 0 < len(said) <= MAX_TEXT:
                raise _bad("text", said, f"1 to {MAX_TEXT} characters")
            return Sentence(text=said, act=_flag(data, "act"))
        case "listen":
            return Listen(on=_flag(data, "on"))
        case "key":
            return Press(key=cast(Key, _choice(data, "key", _KEYS)))
        case "seat":
            return Seat(change=cast(SeatChange, _choice(data, "change", ("take", "leave"))))
        case "select":
            return Select(robot=str(data.get("robot")))
        case "review":
            verdict = _choice(data, "verdict", ("keep", "discard"))
            return Review(verdict=cast(ReviewVerdict, verdict))
        case "helper":
            return Helper(on=_flag(data, "on"))
        case "beat":
            return Beat(stamp_ms=_number("stamp", data.get("stamp"), 1e15))
        case "seen":
            return Seen(number=_count(data, "number"))
        case other:
            raise _bad("type", other, "drive, release, grip, say, text, key, seat, select, ...")


def _signs(data: dict[str, Any]) -> RefinementCommand:
    values: object = data.get("signs")
    if isinstance(values, list) and len(cast(list[Any], values)) == 3:
        x, y, z = cast(list[Any], values)
        whole = type(x) is int and type(y) is int and type(z) is int
        if whole and all(-1 <= sign <= 1 for sign in (x, y, z)):
            return RefinementCommand((x, y, z))
    raise _bad("signs", values, "three values out of -1, 0, 1")


def _numbers(data: dict[str, Any], name: str, count: int) -> list[float]:
    values: object = data.get(name)
    if not isinstance(values, list) or len(cast(list[Any], values)) != count:
        raise _bad(name, values, f"{count} numbers in -1 to 1")
    return [_number(name, value, 1.0) for value in cast(list[Any], values)]


def _number(name: str, value: object, bound: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _bad(name, value, "a number")
    # Not by `math.isfinite`, which takes no integer beyond the largest float; NaN is below no bound.
    if not abs(value) <= bound:
        raise _bad(name, value, f"a number from {-bound:g} to {bound:g}")
    return float(value)


def _count(data: dict[str, Any], name: str) -> int:
    value: object = data.get(name)
    if type(value) is not int or value < 0:
        raise _bad(name, value, "a whole number from 0")
    return value


def _flag(data: dict[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def _choice(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = data.get(name)
    if value not in allowed:
        raise _bad(name, value, ", ".join(allowed))
    return cast(str, value)


def _bad(name: str, value: object, allowed: str) -> HilDaftError:
    return HilDaftError(f"message field {name}={value!r}: {allowed} is allowed"[:300])
