"""Demonstrations that were recorded or imported before a run, in the place of those it would record."""

from pathlib import Path

from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode, HilDaftError


def choose_demonstrations(
    folder: Path, tasks: tuple[str, ...], wanted: int, encoder_hash: str
) -> list[Episode]:
    """The first successful demonstrations of each task, in the order a run records them.

    Args:
        folder: an episode folder, or one that `hildaft record` made.
        tasks: in the run's order.
        wanted: per task.
        encoder_hash: of the run's frozen networks.

    Raises:
        HilDaftError: a task has too few, or they were encoded by other networks.
    """
    inner = folder / "episodes"
    if not folder.is_dir():
        msg = f"demonstrations {folder}: there is no such folder; record some with `hildaft record --out {folder}`"
        raise HilDaftError(msg)
    store = EpisodeStore(inner if inner.is_dir() else folder)
    chosen: list[Episode] = []
    for task in tasks:
        there = [
            summary.index
            for summary in store.summaries()
            if summary.task == task and summary.source == "demo" and summary.success
        ]
        if len(there) < wanted:
            msg = (
                f"demonstrations {folder}: {len(there)} successful ones of {task!r}, {wanted} are wanted; record more,"
                f" or ask for fewer with --training.demonstrations {max(1, len(there))}"
            )
            raise HilDaftError(msg)
        chosen += [store.read(index) for index in there[:wanted]]
    for episode in chosen:
        if episode.encoder_hash != encoder_hash:
            msg = (
                f"demonstrations {folder}: their h and features are of other frozen networks than this run's; name"
                " the backbone they were recorded with, or export and import them to make both anew"
            )
            raise HilDaftError(msg)
    return chosen
