"""Reads what a run folder holds: config, command, metrics, evaluations and episodes."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml

from hildaft.data.episodes import EpisodeStore
from hildaft.eval.evaluate import EvaluationRecord, TaskEvaluation, read_evaluations
from hildaft.eval.statistics import STEP_LIMIT
from hildaft.runtime.metrics import read_metrics
from hildaft.types import HilDaftError

CONFIG_FILE: Final = "config.yaml"
PROVENANCE_FILE: Final = "run.json"
_UNKNOWN: Final = "not recorded"


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything the report needs of one run."""

    folder: Path
    config_text: str
    command: str
    commit: str
    date: str
    machine: str
    metrics: Sequence[Mapping[str, float]]
    evaluations: Sequence[EvaluationRecord]
    """In order of transitions, those with talk included."""
    store: EpisodeStore | None
    """The run's episodes, or None if it has no such folder."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def preset(self) -> str:
        """Name of the preset, from the evaluations."""
        return self.evaluations[-1].preset if self.evaluations else _UNKNOWN

    @property
    def seed(self) -> str:
        """The run's seed, from the evaluations."""
        return str(self.evaluations[-1].seed) if self.evaluations else _UNKNOWN

    @property
    def silent(self) -> list[EvaluationRecord]:
        """Evaluations without talk: the learning curve."""
        return [record for record in self.evaluations if record.talk == "none"]

    @property
    def before(self) -> EvaluationRecord | None:
        """The warm-up policy's evaluation."""
        return next((record for record in self.silent if record.name == "warmup"), None)

    @property
    def after(self) -> EvaluationRecord | None:
        """The last evaluation after the warm-up, the final one in a finished run."""
        return next((r for r in reversed(self.silent) if r.name != "warmup"), None)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Transitions and values of one metric, where it was written."""
        rows = [(row["step"], row[name]) for row in self.metrics if name in row]
        return [step for step, _ in rows], [value for _, value in rows]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of one method under several seeds, which are pooled."""

    name: str
    """The preset; where runs of one preset differ, also what this group has of its own."""
    runs: Sequence[RunData]

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of the evaluations."""
        records = [record for run in self.runs for record in run.silent]
        return list(dict.fromkeys(task.task for record in records for task in record.result.tasks))

    @property
    def step_limit(self) -> int:
        """What a failure counts as."""
        records = [record for run in self.runs for record in run.silent]
        return max(
            (task.step_limit for record in records for task in record.result.tasks),
            default=STEP_LIMIT,
        )

    def pooled(self, task: str, *, after: bool) -> TaskEvaluation | None:
        """Outcomes of one task over all runs, before or after; None if there are none."""
        records = [run.after if after else run.before for run in self.runs]
        found = [
            evaluation
            for record in records
            if record is not None
            for evaluation in record.result.tasks
            if evaluation.task == task and evaluation.outcomes
        ]
        outcomes = tuple(outcome for evaluation in found for outcome in evaluation.outcomes)
        if not outcomes:
            return None
        return TaskEvaluation(
            task=task, talk="none", outcomes=outcomes, step_limit=found[0].step_limit
        )


def write_provenance(
    run_folder: Path, *, command: Sequence[str], commit: str, date: str, machine: str
) -> None:
    """Writes `run.json`: how to make this run again.

    Raises:
        HilDaftError: if it cannot be written.
    """
    path = run_folder / PROVENANCE_FILE
    document = {
        "command": shlex.join(command),
        "commit": commit,
        "date": date,
        "machine": machine,
    }
    try:
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError as error:
        msg = f"run file {path}: {error.strerror or error}; free space or mend the permissions"
        raise HilDaftError(msg) from error


def read_run(folder: Path) -> RunData:
    """Reads one run folder.

    Raises:
        HilDaftError: if it is missing, not a run folder, or holds damaged files.
    """
    config = folder / CONFIG_FILE
    if not folder.is_dir():
        msg = f"run folder {folder} does not exist: name a folder made by hildaft train or demo"
        raise HilDaftError(msg)
    try:
        text = config.read_text(encoding="utf-8")
        if not isinstance(yaml.safe_load(text), dict):
            raise ValueError("it is no mapping")
        provenance = _read_provenance(folder / PROVENANCE_FILE)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        msg = (
            f"run folder {folder} is not one of ours ({CONFIG_FILE} or {PROVENANCE_FILE}: {reason})"
            ": name a folder made by hildaft train or demo"
        )
        raise HilDaftError(msg) from error
    episodes = folder / "episodes"
    store = EpisodeStore(episodes) if episodes.is_dir() else None
    if store is not None:
        # A truncated file is told before the drawing, not after.
        store.summaries()
    return RunData(
        folder=folder.resolve(),
        config_text=text,
        command=provenance.get("command", _UNKNOWN),
        commit=provenance.get("commit", _UNKNOWN),
        date=provenance.get("date", _UNKNOWN),
        machine=provenance.get("machine", _UNKNOWN),
        metrics=read_metrics(folder),
        evaluations=read_evaluations(folder),
        store=store,
    )


def group_runs(runs: Sequence[RunData]) -> list[RunGroup]:
    """Groups of one preset and one config each, but for the seed, in order of first appearance."""
    groups: dict[tuple[str, str], list[RunData]] = {}
    settings = {run.folder: _settings(run) for run in runs}
    for run in runs:
        groups.setdefault((run.preset, str(settings[run.folder])), []).append(run)
    first: dict[str, Mapping[str, object]] = {}
    named: list[RunGroup] = []
    for (preset, _), members in groups.items():
        own = settings[members[0].folder]
        reference = first.setdefault(preset, own)
        changed = [f"{key} {own[key]}" for key in own if own[key] != reference.get(key)]
        named.append(RunGroup(name=", ".join([preset, *changed]), runs=members))
    return named


def _settings(run: RunData) -> dict[str, object]:
    """A run's config in one level, without what may differ between seeds of one method."""
    flat: dict[str, object] = {}
    pending: list[tuple[str, object]] = [("", yaml.safe_load(run.config_text))]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            inner = cast(dict[str, object], value)
            pending += [(f"{name}.{key}".lstrip("."), inner[key]) for key in reversed(inner)]
        elif name != "seed" and not name.startswith("evaluation."):
            flat[name] = value
    return flat


def _read_provenance(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    document: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError("it is no mapping")
    return {str(key): str(value) for key, value in cast(dict[Any, Any], document).items()}
