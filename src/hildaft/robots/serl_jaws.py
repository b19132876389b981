"""The gripper of a SERL server, whose routes take up to a second: moved beside the control loop."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, final

from hildaft.robots.guard import RobotError
from hildaft.robots.serl_client import GripperCommand

_LOOK_S: Final = 0.02


@final
class SerlJaws:
    """Runs one gripper command at a time in a thread of its own, and knows how the jaws are commanded.

    Args:
        name: of the robot, for messages.
        command: runs a gripper route to its end.
        require_going: raises StoppedError while the arm is halted.
        patience_s: how long `settle` waits for a command under way; longer than the route may take.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[GripperCommand], None],
        require_going: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._name, self._command, self._require_going = name, command, require_going
        self._patience_s: Final = patience_s
        self._worker: Final = ThreadPoolExecutor(1, thread_name_prefix="gripper")
        self._under_way: Future[None] | None = None
        self.closed = False
        """Whether the jaws are commanded closed."""

    def move(self, *, close: bool) -> None:
        """Starts the jaws where they should change and none of their commands is under way.

        Raises:
            RobotError: their last command failed.
            StoppedError: the arm is halted.
        """
        if self._under_way is not None and not self._under_way.done():
            return
        self._take_result()
        if close != self.closed:
            self._require_going()
            self.closed = close
            self._under_way = self._worker.submit(self._command, "close" if close else "open")

    def settle(self) -> None:
        """Waits for the command under way, if there is one.

        Raises:
            RobotError: it failed, or does not end.
            StoppedError: the arm is halted meanwhile.
        """
        deadline = time.monotonic() + self._patience_s
        while self._under_way is not None and not self._under_way.done():
            self._require_going()
            if time.monotonic() > deadline:
                msg = (
                    f"robot {self._name}: its gripper has not ended its last command after {self._patience_s:.0f} s;"
                    " the arm holds. Look at the gripper and at the server's terminal, then start again"
                )
                raise RobotError(msg)
            wait([self._under_way], timeout=_LOOK_S)
        self._take_result()

    def close(self) -> None:
        """Starts nothing more; what is under way runs to its end."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _take_result(self) -> None:
        if self._under_way is None:
            return
        failed, self._under_way = self._under_way.exception(), None
        if failed is not None:
            msg = f"robot {self._name}: its gripper failed ({failed}); the arm holds"
            raise RobotError(msg) from failed
