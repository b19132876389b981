"""What must hold before an export goes on in a folder that has episodes: it is of the same run, numbers stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hildaft.data.episode_file import EpisodeSummary
from hildaft.data.lerobot_format import OURS
from hildaft.types import HilDaftError


def require_same_labels(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on where hildaft/info.json says another thing than this export would write into it."""
    if bool(was.get("video", False)) != now["video"]:
        how = "without" if now["video"] else "with"
        msg = f"folder {folder}: it was begun {how} --video; go on that way, or name another folder"
        raise HilDaftError(msg)
    for name, value in now.items():
        if was.get(name, value) != value:
            msg = (
                f"folder {folder}: its {OURS} says {name}={was[name]!r}, this run has {value!r};"
                " a dataset is of one run: name another folder"
            )
            raise HilDaftError(msg)


def require_its_own(folder: Path, row: Mapping[str, Any], summary: EpisodeSummary) -> None:
    """Refuses a store whose episode of this number is not the one that was exported."""
    found = {
        "task": summary.task,
        "source": summary.source,
        "robot": summary.robot,
        "seed": summary.seed,
        "policy_version": summary.policy_version,
        "success": summary.success,
        "length": summary.steps,
    }
    for name, value in found.items():
        was = row["length" if name == "length" else f"hildaft/{name}"]
        if was != value:
            msg = (
                f"folder {folder}: episode {summary.index} was exported into it with {name}={was!r},"
                f" in {summary.path.parent} it has {value!r}; a dataset is of one run: name another folder"
            )
            raise HilDaftError(msg)


def texts_of_tasks(
    rows: Sequence[Mapping[str, Any]],
    fresh: Sequence[EpisodeSummary],
    instructions: Mapping[str, str],
) -> dict[str, str]:
    """Text by task, in the order of their numbers.

    Those of `rows`, which files already written hold, stay; tasks of `fresh` episodes come after them. Both are by
    first appearance, so an export that was stopped numbers as one that was not.
    """
    texts = {str(row["hildaft/task"]): str(row["tasks"][0]) for row in rows}
    for summary in fresh:
        texts.setdefault(summary.task, instructions.get(summary.task, summary.task))
    return texts
