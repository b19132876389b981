"""Is this machine ready? `doctor`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hildaft.commands.parse import parse_words


def doctor(words: Sequence[str]) -> int:
    """`hildaft doctor --backbone X [--run RUN] [--json]`; exit code 1 where something is not ready."""

    @dataclass(frozen=True)
    class DoctorArguments:
        """Check what a run needs on this machine, and say what to do."""

        backbone: str | None = None
        """Load this backbone (octo-tiny, octo-small, octo:FOLDER, ...) and time it at batch 1."""
        run: Path | None = None
        """A trained run: its backbone where none is named, and the spread of its head's actions over w."""
        json: bool = False
        """Print what was measured as JSON."""

    from hildaft.types import HilDaftError

    given = parse_words(DoctorArguments, "doctor", words)
    if given.backbone is None and given.run is None:
        msg = "doctor: nothing to check was named; give --backbone NAME or --run RUN"
        raise HilDaftError(msg)
    return _check_backbone(given.backbone, given.run, as_json=given.json)


def _check_backbone(backbone: str | None, run: Path | None, *, as_json: bool) -> int:
    import json
    import time
    from dataclasses import asdict, replace

    from hildaft.build import build_encoders, build_policy, measure_run_spread
    from hildaft.config import RunConfig, read_config
    from hildaft.doctor.backbone import check_backbone, peak_memory_mb, render_check

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
