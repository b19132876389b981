"""Demonstrations that were recorded before a run: found, checked, and encoded anew where their encoders differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from hildaft.algo.policy import Encoders
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.encoding import encode_episode
from hildaft.types import HilDaftError


@final
class RecordedDemonstrations:
    """The oldest successful demonstrations of each task in a folder that `hildaft record` or a run has written.

    Args:
        folder: the folder.
        tasks: the run's tasks.
        wanted: demonstrations per task.
        robot: name of the robot they must be of; None where those of any robot do.
        encoders: the run's frozen encoders.

    Raises:
        HilDaftError: no such folder, or too few successful demonstrations of a task.
    """

    def __init__(
        self, folder: Path, tasks: Sequence[str], wanted: int, robot: str | None, encoders: Encoders
    ) -> None:
        if not (folder / "episodes").is_dir():
            msg = f"recorded={folder}: no folder of recordings; make one with `hildaft record --out {folder}`"
            raise HilDaftError(msg)
        self._store: Final = EpisodeStore(folder / "episodes")
        self._encoders = encoders
        usable = [s for s in self._store.summaries() if s.source == "demo" and s.success]
        self._indices: dict[str, list[int]] = {}
        for task in tasks:
            own = [s for s in usable if s.task == task]
            fit = [s.index for s in own if robot in (None, s.robot)]
            if len(fit) < wanted:
                others = sorted({s.robot for s in own if s.robot != robot})
                of = "" if robot is None else f" on robot {robot}"
                also = (
                    f" ({len(own) - len(fit)} on {', '.join(others)})"
                    if len(own) > len(fit)
                    else ""
                )
                msg = (
                    f"recorded={folder}: {len(fit)} successful demonstrations of {task!r}{of}{also}, {wanted} are"
                    " wanted; record more, or lower --training.demonstrations"
                )
                raise HilDaftError(msg)
            self._indices[task] = fit[:wanted]

    def fill(self, store: EpisodeStore) -> str:
        """Puts them into a run's store, task by task; what an earlier call has put there stays. Returns what it did.

        Those of other encoders are encoded anew from their stored images.

        Raises:
            HilDaftError: one is damaged, or of other encoders and without its images.
        """
        there = [s.task for s in store.summaries() if s.source == "demo"]
        added = 0
        for task, indices in self._indices.items():
            for index in indices[there.count(task) :]:
                episode = self._store.read(index)
                if episode.encoder_hash != self._encoders.hash:
                    episode = encode_episode(episode, self._encoders)
                store.append(episode)
                added += 1
        return f"{added} demonstrations taken from {self._store.folder.parent}"
