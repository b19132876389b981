"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and where it is not ok, what to do."""

    level: Literal["ok", "warn", "fail"]
    part: str
    text: str
    cure: str = ""

    def line(self) -> str:
        """The finding as printed."""
        cure = f"; {self.cure}" if self.cure else ""
        return f"{self.level:<4}  {self.part:<8}  {self.text}{cure}"
