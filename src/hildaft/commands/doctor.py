"""`hildaft doctor`: what this machine has, what it lacks, and the cure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hildaft.commands.parse import parse_words
from hildaft.types import HilDaftError


def doctor(words: Sequence[str]) -> int:
    """`hildaft doctor [--teleop]`; exit code 1 where something is not ready."""

    @dataclass(frozen=True)
    class DoctorArguments:
        """Look at this machine; each line is ok, warn or fail, with the cure. With an option, at that part alone."""

        out: Path = Path("runs")
        """Folder that runs will be written to."""
        teleop: bool = False
        """Devices in the operator's hand: drivers, permissions, live axes, rate and latency."""
        seconds: float = 10.0
        """How long to watch a device's axes."""
        udev: bool = False
        """Print the udev rules for a SpaceMouse and nothing else."""

    given = parse_words(DoctorArguments, "doctor", words)
    if given.teleop or given.udev:
        return _teleop(given.seconds, udev=given.udev)
    return _machine(given.out)


def _machine(out: Path) -> int:
    from hildaft.doctor.machine import check_machine

    findings = check_machine(out.resolve())
    for finding in findings:
        print(finding.line())
    return int(any(finding.level == "fail" for finding in findings))


def _teleop(seconds: float, *, udev: bool) -> int:
    from hildaft.doctor.teleop import UDEV_RULES, check_teleop

    if udev:
        print(UDEV_RULES)
        return 0
    if not 0.0 < seconds <= 3600.0:
        msg = f"doctor --seconds {seconds}: above 0, at most 3600 is allowed"
        raise HilDaftError(msg)
    return check_teleop(seconds)
