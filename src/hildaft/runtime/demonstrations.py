"""Demonstrations and corrections that another run, or `hildaft record`, has recorded: human data for a new run."""

import os
import shutil
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from hildaft.data.episode_file import EpisodeSummary, read_episode, serialise_episode
from hildaft.data.episodes import EpisodeStore, sync_folder
from hildaft.types import Episode, HilDaftError


def take_demonstrations(
    source: Path,
    folder: Path,
    *,
    tasks: Sequence[str],
    wanted: int,
    robot: str,
    encoder_hash: str,
    encode: Callable[[Episode], Episode] | None = None,
    corrections: Path | None = None,
    room: int = 0,
) -> None:
    """Puts the first `wanted` demonstrations of every task into a new run's `episodes`, whole or not at all.

    Corrections follow them: the online stage takes what lies in the store in place of rollouts of its own, so they go
    into the buffers as Algorithm 1 says, after the warm-up.

    Args:
        source: a run folder, or a folder of episodes.
        folder: the new run's folder; it must have no episodes yet.
        tasks: in the order a session records them.
        wanted: per task.
        robot: name of the robot the run is for.
        encoder_hash: of the frozen encoders the run is trained on.
        encode: encodes those of other encoders anew; without it they are refused.
        corrections: a run folder, or a folder of episodes, in which a policy was corrected.
        room: transitions of the online stage, at most so many of which the corrections may be.

    Raises:
        HilDaftError: too few of a task, another robot, other encoders, no corrections or too many of them, or a disk
            that takes no more.
    """
    found = [s for s in _summaries("demonstrations", source) if s.source == "demo" and s.success]
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
    corrected = [] if corrections is None else _corrected(corrections, tasks, room)
    given = [("demonstrations", s) for s in chosen] + [("corrections", s) for s in corrected]
    for kind, summary in given:
        for name, expected in (("robot", robot), ("encoder_hash", encoder_hash)):
            if encode is not None and name == "encoder_hash":
                continue
            if getattr(summary, name) != expected:
                msg = (
                    f"{kind} {summary.path.parent}: {summary.path.name} has {name} {getattr(summary, name)!r}, the run "
                    f"{expected!r}; take others, or rebuild them with `hildaft encode`"
                )
                raise HilDaftError(msg)
    _bring([summary for _, summary in given], folder, encoder_hash, encode)


def _summaries(kind: str, source: Path) -> list[EpisodeSummary]:
    episodes = source / "episodes" if (source / "episodes").is_dir() else source
    if not episodes.is_dir():
        msg = f"{kind} {source}: there is no such folder; give a run folder or a folder of episodes"
        raise HilDaftError(msg)
    return EpisodeStore(episodes).summaries()


def _corrected(source: Path, tasks: Sequence[str], room: int) -> list[EpisodeSummary]:
    """The episodes of a policy, of these tasks, the tasks in turn as a session goes through them."""
    found = [s for s in _summaries("corrections", source) if s.source == "online"]
    turns = {task: [s for s in found if s.task == task] for task in tasks}
    rounds = zip_longest(*turns.values())
    chosen = [s for each in rounds for s in each if s is not None]
    steps = sum(s.steps for s in chosen)
    if not any(s.interventions for s in chosen):
        msg = f"corrections {source}: nobody corrected a policy at {', '.join(tasks)}; record some with --policy"
        raise HilDaftError(msg)
    if steps > room:
        msg = f"corrections {source}: {steps} transitions, training.online_transitions={room} has no room; raise it"
        raise HilDaftError(msg)
    return chosen


def _bring(
    chosen: Sequence[EpisodeSummary],
    folder: Path,
    encoder_hash: str,
    encode: Callable[[Episode], Episode] | None,
) -> None:
    part = folder / "episodes.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number, summary in enumerate(chosen):
            target = part / f"{number:06d}-{summary.path.name.partition('-')[2]}"
            if encode is not None and summary.encoder_hash != encoder_hash:
                target.write_bytes(serialise_episode(encode(read_episode(summary.path))))
            elif summary.origin is not None:
                # Without the number that a worker gave it in its own run: here it would stand for what that worker
                # sends under the same number, and that would count as delivered.
                target.write_bytes(serialise_episode(read_episode(summary.path)))
            else:
                _link(summary.path, target)
        sync_folder(part)
        part.rename(folder / "episodes")
    except OSError as error:
        msg = f"run folder {folder}: {error.strerror or error}; free space or mend the permissions"
        raise HilDaftError(msg) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    # Episode files are never changed, so one copy serves every run on this disk.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
