"""`hildaft doctor`: what this machine has, what it lacks, and the cure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hildaft.commands.parse import parse_words


def doctor(words: Sequence[str]) -> int:
    """`hildaft doctor [--out FOLDER]`; exit code 1 where something fails."""

    @dataclass(frozen=True)
    class DoctorArguments:
        """Look at this machine; each line is ok, warn or fail, with the cure."""

        out: Path = Path("runs")
        """Folder that runs will be written to."""

    from hildaft.doctor.machine import check_machine

    given = parse_words(DoctorArguments, "doctor", words)
    findings = check_machine(given.out.resolve())
    for finding in findings:
        print(finding.line())
    return int(any(finding.level == "fail" for finding in findings))
