"""`hildaft doctor`: what this machine has, what it lacks, and the cure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hildaft.commands.parse import parse_words
from hildaft.doctor.finding import Finding
from hildaft.types import HilDaftError


def doctor(words: Sequence[str]) -> int:
    """`hildaft doctor [--teleop] [--backbone X] [--run RUN] [--learner ADDRESS]`; exit code 1 where a line fails."""

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
        backbone: str | None = None
        """Load this backbone (octo-tiny, octo-small, octo:FOLDER, ...) and time it at batch 1."""
        run: Path | None = None
        """A trained run: its backbone where none is named, and the spread of its head's actions over w."""
        learner: str | None = None
        """HOST:PORT of a learner: its port, whether it answers, and how far its clock is from ours."""
        certs: Path | None = None
        """Folder with certificates: their time, keys, CA and, with --learner, host name."""
        name: str = "status"
        """With --learner and --certs: whose certificate to show."""
        token_file: Path | None = None
        """With --learner: copy of its RUN/token; without it the variable HILDAFT_TOKEN is read."""
        json: bool = False
        """With --backbone or --run: print what was measured as JSON."""

    given = parse_words(DoctorArguments, "doctor", words)
    if given.teleop or given.udev:
        return _teleop(given.seconds, udev=given.udev)
    if given.backbone is not None or given.run is not None:
        return _check_backbone(given.backbone, given.run, as_json=given.json)
    if given.learner is not None or given.certs is not None:
        return _link(given.learner, given.certs, given.name, given.token_file)
    return _machine(given.out)


def _machine(out: Path) -> int:
    from hildaft.doctor.machine import check_machine

    return _print(check_machine(out.resolve()))


def _print(findings: list[Finding]) -> int:
    for finding in findings:
        print(finding.line())
    return int(any(finding.level == "fail" for finding in findings))


def _link(learner: str | None, certs: Path | None, name: str, token_file: Path | None) -> int:
    from hildaft.doctor.link import check_certificates, check_link

    if learner is None:
        assert certs is not None
        return _print(check_certificates(certs))
    return _print(check_link(learner, certs, name, token_file))


def _teleop(seconds: float, *, udev: bool) -> int:
    from hildaft.doctor.teleop import UDEV_RULES, check_teleop

    if udev:
        print(UDEV_RULES)
        return 0
    if not 0.0 < seconds <= 3600.0:
        msg = f"doctor --seconds {seconds}: above 0, at most 3600 is allowed"
        raise HilDaftError(msg)
    return check_teleop(seconds)


def _check_backbone(backbone: str | None, run: Path | None, *, as_json: bool) -> int:
    import json
    import time
    from dataclasses import asdict, replace

    from hildaft.build import build_encoders, build_policy
    from hildaft.config import RunConfig, read_config
    from hildaft.doctor.backbone import check_backbone, peak_memory_mb, render_check
    from hildaft.jobs import measure_run_spread

    config = RunConfig() if run is None else read_config(run / "config.yaml")
    config = replace(config, backbone=backbone or config.backbone)
    before, started = peak_memory_mb(), time.perf_counter()
    encoders = build_encoders(config)
    load_s, memory_mb = time.perf_counter() - started, peak_memory_mb() - before
    policy = build_policy(config, encoders)
    spread_mm = None if run is None else measure_run_spread(config, run, encoders)
    check = check_backbone(
        config.backbone,
        policy,
        config.tasks[0],
        dims=(encoders.h_dim, encoders.feature_dim),
        load_s=load_s,
        memory_mb=memory_mb,
        spread_mm=spread_mm,
    )
    if as_json:
        print(json.dumps({**asdict(check), "keeps_up": check.keeps_up}, indent=1))
    else:
        print("\n".join(render_check(check)))
    return 0 if check.keeps_up else 1
