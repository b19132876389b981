"""Is this machine ready? `doctor`."""

from collections.abc import Sequence
from dataclasses import dataclass

from hildaft.commands.parse import parse_words
from hildaft.types import HilDaftError


def doctor(words: Sequence[str]) -> int:
    """`hildaft doctor --teleop [--seconds S] [--udev]`; exit code 1 where something is not ready."""

    @dataclass(frozen=True)
    class DoctorArguments:
        """Check what a run needs on this machine, and say what to do."""

        teleop: bool = False
        """Devices in the operator's hand: drivers, permissions, live axes, rate and latency."""
        seconds: float = 10.0
        """How long to watch a device's axes."""
        udev: bool = False
        """Print the udev rules for a SpaceMouse and nothing else."""

    from hildaft.doctor.teleop import UDEV_RULES, check_teleop

    given = parse_words(DoctorArguments, "doctor", words)
    if not given.teleop:
        msg = "doctor: nothing to check was named; give --teleop"
        raise HilDaftError(msg)
    if not 0.0 < given.seconds <= 3600.0:
        msg = f"doctor --seconds {given.seconds}: above 0, at most 3600 is allowed"
        raise HilDaftError(msg)
    if given.udev:
        print(UDEV_RULES)
        return 0
    return check_teleop(given.seconds)
