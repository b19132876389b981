"""A SpaceMouse without hardware: what pyspacemouse's device does, report by report."""

from dataclasses import dataclass, field, replace


@dataclass
class State:
    t: float = -1.0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    buttons: list[int] = field(default_factory=lambda: [0, 0])


class FakeCap:
    """Repeats its last state when nothing was queued, as the driver does."""

    name = "FakeMouse"

    def __init__(self) -> None:
        self.state, self.queue, self.error = State(), [], None
        self.closed = False
        self.reads = 0

    def report(self, **values) -> None:
        newest = self.queue[-1] if self.queue else self.state
        self.queue.append(replace(newest, t=newest.t + 1.5, **values))

    def read(self) -> State:
        self.reads += 1
        if self.error is not None:
            raise self.error
        if self.queue:
            self.state = self.queue.pop(0)
        return self.state

    def close(self) -> None:
        self.closed = True
