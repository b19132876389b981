"""Datasets in and out: `export`, `export-policy`, `import`, `inspect`, `convert-pickle`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from hildaft.commands.parse import parse_words
from hildaft.types import HilDaftError


def export(words: Sequence[str]) -> int:
    """`hildaft export RUN --out FOLDER`."""

    @dataclass(frozen=True)
    class ExportArguments:
        """Write a run's episodes as a LeRobotDataset v3.0; goes on where an earlier export stopped."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        out: Path
        """Folder of the dataset."""
        video: bool = False
        """Write the images as H.264 videos, smaller and lossy; without it they stay the JPEG images they are."""

    from hildaft.jobs import export_run

    given = parse_words(ExportArguments, "export", words)
    result = export_run(given.run, given.out, as_video=given.video)
    print(f"{given.out}: {result.episodes} episodes, {result.frames} frames ({result.added} added)")
    return 0


def export_policy(words: Sequence[str]) -> int:
    """`hildaft export-policy RUN --out FOLDER`."""

    @dataclass(frozen=True)
    class ExportPolicyArguments:
        """Write a run's newest policy for LeRobot's own evaluation and rollout, through our plugin for it."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        out: Path
        """Folder to make; give it to LeRobot as --policy.path."""

    from hildaft.config import read_config
    from hildaft.jobs import export_policy as export_newest
    from hildaft.robots.cameras import IMAGE_SIZE

    given = parse_words(ExportPolicyArguments, "export-policy", words)
    on_bench = read_config(given.run / "config.yaml").environment is None
    # The bolt bench's own pictures; everything else gives the policy's size.
    sizes = {"head": 256, "wrist": 128} if on_bench else {"head": IMAGE_SIZE, "wrist": IMAGE_SIZE}
    for path in export_newest(given.run, given.out, sizes):
        print(path)
    return 0


def import_(words: Sequence[str]) -> int:
    """`hildaft import DATASET --out FOLDER [--map FILE]`."""

    @dataclass(frozen=True)
    class ImportArguments:
        """Add a LeRobotDataset's episodes, or converted transitions, to an episode folder; none is added twice."""

        dataset: tyro.conf.Positional[Path]
        """Folder of the dataset, or a .safetensors file that `hildaft convert-pickle` wrote."""
        out: Path
        """Episode folder, made where missing; episodes are added."""
        map: Path | None = None
        """YAML file that says what the columns mean; not needed for datasets that HiL-DAFT exported."""
        env: Path | None = None
        """YAML file of the environment the episodes are for, for its tasks; the bolt bench's where not given."""

    from hildaft.jobs import import_episodes

    given = parse_words(ImportArguments, "import", words)
    result = import_episodes(given.dataset, given.out, given.map, given.env)
    print(
        f"{given.out}: {result.episodes} episodes added, {result.present} were there,"
        f" {result.skipped} of other tasks left out,"
        f" {100 * result.clipped:.1f} % of steps clipped to the action scale"
    )
    if result.skipped and not result.episodes + result.present:
        what = "the bolt bench's" if given.env is None else f"those of {given.env}"
        msg = f"import {given.dataset}: none of its tasks is one of {what}; name its environment's file with --env"
        raise HilDaftError(msg)
    return 0


def inspect(words: Sequence[str]) -> int:
    """`hildaft inspect DATASET [--frames FILE]`."""

    @dataclass(frozen=True)
    class InspectArguments:
        """Say what a run folder, an episode folder or a LeRobot dataset holds, and what should make one look twice."""

        dataset: tyro.conf.Positional[Path]
        """Folder."""
        frames: Path | None = None
        """Write the first and last frames of the first episodes to this PNG file."""

    from hildaft.eval.inspection import inspect_dataset

    given = parse_words(InspectArguments, "inspect", words)
    print(inspect_dataset(given.dataset, given.frames).text(given.dataset))
    return 0


def convert_pickle(words: Sequence[str]) -> int:
    """`hildaft convert-pickle FILE --out FILE`."""

    @dataclass(frozen=True)
    class ConvertArguments:
        """Convert HIL-SERL's or ConRFT's pickled transitions to safetensors, in a process that builds only arrays."""

        file: tyro.conf.Positional[Path]
        """The pickle."""
        out: Path
        """File to write; must not exist."""

    from hildaft.data.pickled_demos import convert_pickle as convert

    given = parse_words(ConvertArguments, "convert-pickle", words)
    print(f"{given.out}: {convert(given.file, given.out)}")
    return 0
