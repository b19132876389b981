"""LeRobot itself, imported only when one of its devices is asked for; and its protocols as far as they are used."""

import contextlib
import importlib
import pkgutil
from collections.abc import Generator, Mapping
from typing import Any, Literal, Protocol, cast, final, runtime_checkable

from hildaft.robots.real_arm import Sink
from hildaft.types import HilDaftError


@runtime_checkable
class Arm(Protocol):
    """What is used of LeRobot's abstract `Robot`."""

    @property
    def observation_features(self) -> Mapping[str, Any]:
        """Key to `float`, or to an image's shape (h, w, 3)."""
        ...

    @property
    def action_features(self) -> Mapping[str, Any]:
        """Key to `float`."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Establishes the connection."""
        ...

    def get_observation(self) -> Mapping[str, Any]:
        """Values and images by key."""
        ...

    def send_action(self, action: dict[str, Any]) -> Mapping[str, Any]:
        """Sends positions; returns what was sent in fact."""
        ...

    def disconnect(self) -> None:
        """Lets the arm go."""
        ...


@runtime_checkable
class Teleoperator(Protocol):
    """What is used of LeRobot's abstract `Teleoperator`."""

    @property
    def action_features(self) -> Mapping[str, Any]:
        """Key to `float`, or `{"names": {key: index}}`."""
        ...

    def connect(self) -> None:
        """Establishes the connection."""
        ...

    def get_action(self) -> Mapping[str, Any]:
        """Values by key."""
        ...

    def disconnect(self) -> None:
        """Lets the device go."""
        ...


@final
class DryArm:
    """Implements `Arm` over another one: reads it, and describes what would have been sent."""

    def __init__(self, arm: Arm, sink: Sink) -> None:
        self._arm, self._sink = arm, sink

    @property
    def observation_features(self) -> Mapping[str, Any]:
        """The arm's."""
        return self._arm.observation_features

    @property
    def action_features(self) -> Mapping[str, Any]:
        """The arm's."""
        return self._arm.action_features

    @property
    def is_calibrated(self) -> bool:
        """The arm's."""
        return getattr(self._arm, "is_calibrated", True)

    def connect(self, calibrate: bool = True) -> None:
        """Connects: what is read decides what would be sent."""
        self._arm.connect(calibrate=calibrate)

    def get_observation(self) -> Mapping[str, Any]:
        """The arm's."""
        return self._arm.get_observation()

    def send_action(self, action: dict[str, Any]) -> Mapping[str, Any]:
        """Describes it."""
        values = ", ".join(f"{key}={value:.3f}" for key, value in action.items())
        self._sink(f"send_action {values}")
        return action

    def disconnect(self) -> None:
        """Lets the arm go."""
        self._arm.disconnect()


def make_arm(options: Mapping[str, Any]) -> Arm:
    """An arm by LeRobot's own config, not yet connected; raises HilDaftError."""
    return cast(Arm, _make("robot", options))


def make_teleoperator(options: Mapping[str, Any]) -> Teleoperator:
    """A teleoperator by LeRobot's own config, not yet connected; raises HilDaftError."""
    return cast(Teleoperator, _make("teleoperator", options))


def _make(what: Literal["robot", "teleoperator"], options: Mapping[str, Any]) -> object:
    try:
        package: Any = importlib.import_module(f"lerobot.{what}s")
        draccus: Any = importlib.import_module("draccus")
    except ImportError as error:
        msg = (
            f"{what} type={options['type']!r}: LeRobot cannot be imported ({error}); install it beside HiL-DAFT"
            " (docs/lerobot.md says how)"
        )
        raise HilDaftError(msg) from error
    base = package.RobotConfig if what == "robot" else package.TeleoperatorConfig
    _register(package, str(options["type"]), base)
    try:
        config = draccus.decode(base, dict(options))
        make = (
            package.make_robot_from_config
            if what == "robot"
            else package.make_teleoperator_from_config
        )
        return make(config)
    except Exception as error:  # draccus and drivers raise what they like
        raise _said(f"{what} type={options['type']!r}: cannot be made", error) from error


def _register(package: Any, kind: str, base: Any) -> None:  # noqa: ANN401 - LeRobot is not typed here
    """LeRobot's devices register themselves when they are imported, and so do its plugins."""
    importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    modules = [f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
    # An arm's cameras are found the same way as the arm.
    for module in ["lerobot.cameras.opencv", "lerobot.cameras.realsense", *modules]:
        if module in modules and kind in base.get_known_choices():
            return
        # One whose own extra is not installed is not the one asked for, or says so when it is made.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if kind not in base.get_known_choices():
        there = ", ".join(sorted(base.get_known_choices()))
        msg = f"type={kind!r}: LeRobot knows {there}; install the plugin that brings it"
        raise HilDaftError(msg)


def _said(what: str, error: Exception) -> HilDaftError:
    return HilDaftError(f"{what} ({' '.join(f'{type(error).__name__} {error}'.split())[:300]})")


@contextlib.contextmanager
def theirs(what: str, kind: type[HilDaftError], cure: str) -> Generator[None]:
    """Code of a driver runs inside: whatever it raises becomes one line."""
    try:
        yield
    except HilDaftError:
        raise
    except Exception as error:
        said = _said(what, error)
        raise kind(f"{said}; {cure}") from error
