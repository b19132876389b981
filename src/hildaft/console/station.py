"""One robot as the console knows it: its feed, its operator, who sits in front of it, and what waits for review."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float32

from hildaft.console.feed import Feed
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.device import DeviceOperator
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import CONTROL_HZ, Episode, HilDaftError, Press, RefinementCommand

Mode: TypeAlias = Literal["practice", "record", "policy"]
"""What the robot is used for: the person alone, demonstrations that are kept, or a policy with the person beside it."""

LOOK_S: Final = 0.7
"""An episode is under review for so long before a button in the hand judges it: the press that ended the episode may
bounce, and nobody has seen the recording yet."""

Understand: TypeAlias = Callable[[str], RefinementCommand | None]
"""From a sentence to (forward, left, up), or None where one has to ask."""


def base_motion(frame: OperatorFrame, motion: Float32[np.ndarray, "6"]) -> Float32[np.ndarray, "6"]:
    """Motion along and about base axes of one along and about (forward, left, up)."""
    axes = frame.matrix
    return np.concatenate([axes @ motion[:3], axes @ motion[3:]]).astype(np.float32)


@final
class Station:
    """Ties one robot's loop to the people who look at it; safe to use from several threads."""

    def __init__(
        self,
        name: str,
        mode: Mode,
        feed: Feed,
        operator: BrowserOperator,
        frame: OperatorFrame,
        understand: Understand,
        instructions: Mapping[str, str],
        *,
        has_helper: bool = False,
        pauses_alone: bool = False,
    ) -> None:
        self.name: Final = name
        self.mode: Final[Mode] = mode
        self.feed: Final = feed
        self.operator: Final = operator
        self.frame: Final = frame
        self.understand: Final = understand
        self.instructions: Final = instructions
        self.note = ""
        """A line for the person, such as how many demonstrations are kept."""
        self.has_helper: Final = has_helper
        self.pauses_alone: Final = pauses_alone
        """Whether a robot whose person is lost stands still until somebody sits down and lets it go on."""
        self._changed = threading.Condition()
        self._occupant: object | None = None
        self._review: Episode | None = None
        self._verdict: Literal["keep", "discard"] | None = None
        self._review_began_s = 0.0

    # The seat.

    def sit_down(self, person: object) -> bool:
        """Gives control to a person, if nobody else has it."""
        with self._changed:
            if self._occupant is None:
                self._occupant = person
            return self._occupant is person

    def stand_up(self, person: object) -> None:
        """Takes control from a person who has it; the robot is released at once."""
        with self._changed:
            if self._occupant is not person:
                return
            self._occupant = None
        self.operator.release()

    def lose(self, person: object) -> None:
        """As `stand_up`, by a page that has closed or lost its link; pauses the robot where nobody may leave it so."""
        if self.sits(person) and self.pauses_alone:
            self.operator.pause(True)
        self.stand_up(person)

    def require_seat(self, person: object) -> None:
        """Raises HilDaftError unless this person is in control."""
        if not self.sits(person):
            msg = "you are watching: take control first"
            raise HilDaftError(msg)

    def sits(self, person: object) -> bool:
        """Whether this person is in control."""
        return self._occupant is person

    @property
    def is_taken(self) -> bool:
        """Whether somebody is in control."""
        return self._occupant is not None

    # What is going on.

    @property
    def showing(self) -> str:
        """Who moves the robot, as the banner says it."""
        if self._review is not None:
            return "replay"
        return "asks" if self.operator.asks else self.operator.control

    def state(self, person: object) -> dict[str, Any]:
        """Everything about the newest step that one person's page shows beside the pictures."""
        frame, operator = self.feed.frame, self.operator
        command = operator.command
        review = self._review
        return {
            "type": "state",
            "robot": self.name,
            "mode": self.mode,
            "control": "replay" if review is not None else operator.control,
            "paused": operator.paused,
            "asks": operator.asks,
            "aside": operator.aside,
            "in_control": self._occupant is person,
            "taken": self.is_taken,
            "task": frame.task,
            "instruction": self.instructions.get(frame.task, frame.task),
            "episode": frame.episode,
            "note": self.note,
            "step": frame.step,
            "frame": frame.number,
            "jaw": round(frame.jaw_opening, 3),
            "closed": frame.jaws_closed,
            "executed": [round(value, 3) for value in frame.executed],
            "command": list(command.signs),
            "said": list(self.frame.to_operator(command).signs),
            "words": self.frame.words(command),
            "guides": frame.guides,
            "axes": [self.frame.forward, self.frame.left, self.frame.up],
            "device": None if operator.device is None else _describe_device(operator.device),
            "helper": operator.helper_on if self.has_helper else None,
            "review": None if review is None else self._describe(review),
        }

    # Reviewing an episode.

    def _describe(self, episode: Episode) -> dict[str, Any]:
        return {
            "task": episode.task,
            "steps": len(episode),
            "success": episode.success,
            "seconds": round(len(episode) / CONTROL_HZ, 1),
            "cameras": list(episode.images),
            "hands": self._hands(episode),
        }

    def _hands(self, episode: Episode) -> list[tuple[int, int, str]]:
        """Runs of steps in which the person corrected the policy under one label: first, last, words."""
        runs: list[tuple[int, int, str]] = []
        before = -1
        for step in np.flatnonzero(episode.is_intervention).tolist():
            command = RefinementCommand.from_index(int(episode.refinement[step]))
            words = self.frame.words(command)
            if runs and before == step - 1 and runs[-1][2] == words:
                runs[-1] = (runs[-1][0], step, words)
            else:
                runs.append((step, step, words))
            before = step
        return runs

    def review(self, episode: Episode, stop: threading.Event) -> bool | None:
        """Shows a recorded episode and waits for the person: True to keep it, False to discard, None if stopped."""
        with self._changed:
            self._review, self._verdict = episode, None
            self._review_began_s = time.monotonic()
            try:
                while self._verdict is None and not stop.is_set():
                    self._changed.wait(0.1)
                return None if self._verdict is None else self._verdict == "keep"
            finally:
                self._review = None

    @property
    def under_review(self) -> Episode | None:
        """The episode that waits for a verdict."""
        return self._review

    def judge(self, verdict: Literal["keep", "discard"]) -> None:
        """The person's verdict; raises HilDaftError where nothing waits for one."""
        with self._changed:
            if self._review is None:
                msg = "review: no episode waits for a verdict; record one first"
                raise HilDaftError(msg)
            self._verdict = verdict
            self._changed.notify_all()

    # The keys of a device in the person's hand.

    def press(self, press: Press) -> None:
        """A key on the device at the robot's machine; in a review success keeps and failure discards."""
        with self._changed:
            if self._review is not None and press != "stop":
                looked_at = time.monotonic() - self._review_began_s >= LOOK_S
                if looked_at and press in ("success", "failure"):
                    self.judge("keep" if press == "success" else "discard")
                return
        if press == "pause":
            self.operator.pause(not self.operator.paused)
        else:
            self.operator.mark(press)


def _describe_device(device: DeviceOperator) -> dict[str, Any]:
    return {"name": device.name, "hand": device.hand, "fault": device.fault}


Stations: TypeAlias = Mapping[str, Station]
