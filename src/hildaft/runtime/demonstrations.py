"""Demonstrations that another run, or `hildaft record`, has recorded: the same human data for several runs."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hildaft.data.episode_file import EpisodeSummary
from hildaft.data.episodes import EpisodeStore, sync_folder
from hildaft.types import HilDaftError


def take_demonstrations(
    source: Path | None,
    folder: Path,
    *,
    tasks: Sequence[str],
    wanted: int,
    robot: str,
    encoder_hash: str,
) -> None:
    """Puts the first `wanted` demonstrations of every task into a new run's `episodes`, whole or not at all.

    Args:
        source: a run folder, or a folder of episodes; None for a run that records its own.
        folder: the new run's folder; it must have no episodes yet.
        tasks: in the order a session records them.
        wanted: per task.
        robot: name of the robot the run is for.
        encoder_hash: of the frozen encoders the run is trained on.

    Raises:
        HilDaftError: too few of a task, another robot, other encoders, or a disk that takes no more.
    """
    if source is None:
        return
    episodes = source / "episodes" if (source / "episodes").is_dir() else source
    if not episodes.is_dir():
        msg = f"demonstrations {source}: there is no such folder; give a run folder or a folder of episodes"
        raise HilDaftError(msg)
    found = [s for s in EpisodeStore(episodes).summaries() if s.source == "demo"]
    chosen: list[EpisodeSummary] = []
    for task in tasks:
        of_task = [summary for summary in found if summary.task == task][:wanted]
        if len(of_task) < wanted:
            msg = (
                f"demonstrations {source}: {len(of_task)} of task {task!r}, {wanted} are wanted; record more or set "
                "training.demonstrations"
            )
            raise HilDaftError(msg)
        chosen += of_task
    for summary in chosen:
        for name, expected in (("robot", robot), ("encoder_hash", encoder_hash)):
            if getattr(summary, name) != expected:
                msg = (
                    f"demonstrations {source}: {summary.path.name} has {name} {getattr(summary, name)!r}, the run "
                    f"{expected!r}; take others, or rebuild them with `hildaft encode`"
                )
                raise HilDaftError(msg)
    part = folder / "episodes.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number, summary in enumerate(chosen):
            label = summary.path.name.partition("-")[2]
            _link(summary.path, part / f"{number:06d}-{label}")
        sync_folder(part)
        part.rename(folder / "episodes")
    except OSError as error:
        msg = f"run folder {folder}: {error.strerror or error}; free space or mend the permissions"
        raise HilDaftError(msg) from error


def _link(source: Path, target: Path) -> None:
    # Episode files are never changed, so one copy serves every run on this disk.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
