"""A run's success classifier: trained on its episodes, judged on some it never saw, doubts queued for the person."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np

from hildaft.algo.success import (
    Judgement,
    LabelledEpisode,
    SuccessClassifier,
    SuccessConfig,
    TaskClassifier,
    inputs_of,
    judge,
    split_episodes,
    train_task,
    verdict_of,
    write_classifier,
)
from hildaft.data.episodes import EpisodeStore
from hildaft.eval.statistics import wilson_interval
from hildaft.types import Episode, HilDaftError

FOLDER: Final = "success"
CLASSIFIER_FILE: Final = "classifier.safetensors"
QUEUE_FILE: Final = "disagreements.jsonl"
REPORT_FILE: Final = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """An episode on which classifier and label disagree; the person fills in `verdict`."""

    episode: int
    task: str
    labelled: str
    """As recorded: "success" or "failure"."""
    classifier: str
    """What the classifier said, see `algo.success.Verdict`."""
    highest: float
    """Largest probability in the episode."""
    at_row: int
    """The observation that has it."""
    verdict: str = ""
    """The person's last word: "success", "failure", or "" while nobody looked. Training anew obeys it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What was measured for a task on its held-out test episodes."""

    task: str
    episodes: int
    threshold: float
    test: Judgement


def train_success(run: Path, config: SuccessConfig) -> list[TaskReport]:
    """Trains a classifier per task on a run's episodes and writes it, its report and the queue of doubts.

    Verdicts the person wrote into an earlier queue replace the recorded labels and are kept.

    Raises:
        HilDaftError: no episodes, episodes of different encoders, a task without enough of both
            outcomes, or a queue that cannot be read.
    """
    folder = run / FOLDER
    verdicts = read_verdicts(folder / QUEUE_FILE)
    by_task, encoder_hash = _read_episodes(run, verdicts)
    classifiers = {}
    reports: list[TaskReport] = []
    doubts: list[Doubt] = []
    for task, episodes in by_task.items():
        parts = split_episodes(episodes, config.seed)
        classifier = train_task(parts, config)
        classifiers[task] = classifier
        reports.append(
            TaskReport(
                task=task,
                episodes=len(episodes),
                threshold=classifier.threshold,
                test=judge(classifier, parts["test"], config),
            )
        )
        unseen = [*parts["calibrate"], *parts["test"]]
        for episode in sorted(unseen, key=lambda e: e.index):
            doubt = _doubt(classifier, episode, task, config)
            if doubt is not None:
                doubts.append(doubt)
    classifier = SuccessClassifier(encoder_hash=encoder_hash, tasks=classifiers)
    write_classifier(classifier, folder / CLASSIFIER_FILE)
    _write_queue(folder / QUEUE_FILE, doubts, verdicts)
    report = {"config": asdict(config), "tasks": [asdict(entry) for entry in reports]}
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return reports


def find_classifier(place: Path) -> Path:
    """The classifier's file in a run folder; the place itself where it is a file."""
    return place / FOLDER / CLASSIFIER_FILE if place.is_dir() else place


@final
class DoubtQueue:
    """Queues a run's episodes whose label and classifier disagree, as they are stored.

    A person who said "not yet" to the classifier, or marked a success it had not seen, is so asked once more, with
    time to look; what they answer is what the next classifier is trained on.
    """

    def __init__(self, run: Path, classifier: SuccessClassifier) -> None:
        self._path: Final = run / FOLDER / QUEUE_FILE
        self._classifier, self._config = classifier, SuccessConfig()

    def look_at(self, index: int, episode: Episode) -> None:
        """Compares an episode's label with the classifier; raises HilDaftError where the queue cannot be read."""
        if episode.source == "demo" or episode.task not in self._classifier.tasks:
            return
        labelled = LabelledEpisode(index, inputs_of(episode), episode.success)
        doubt = _doubt(self._classifier.of(episode.task), labelled, episode.task, self._config)
        if doubt is not None:
            kept = {entry.episode: entry for entry in read_queue(self._path)}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write_queue(self._path, [*kept.values(), doubt], read_verdicts(self._path))


def _doubt(
    classifier: TaskClassifier, episode: LabelledEpisode, task: str, config: SuccessConfig
) -> Doubt | None:
    said = verdict_of(classifier, episode, config)
    if said in ("true", "rightly silent"):
        return None
    values = classifier.probabilities(episode.inputs)
    return Doubt(
        episode=episode.index,
        task=task,
        labelled="success" if episode.success else "failure",
        classifier=said,
        highest=round(float(values.max()), 4),
        at_row=int(np.argmax(values)),
    )


def _read_episodes(
    run: Path, verdicts: Mapping[int, Doubt]
) -> tuple[dict[str, list[LabelledEpisode]], str]:
    if not (run / "episodes").is_dir():
        msg = f"run {run}: it has no episodes folder; name a run, e.g. runs/demo"
        raise HilDaftError(msg)
    by_task: dict[str, list[LabelledEpisode]] = {}
    hashes: set[str] = set()
    for index, episode in EpisodeStore(run / "episodes").iterate():
        hashes.add(episode.encoder_hash)
        success = episode.success
        if index in verdicts:
            success = verdicts[index].verdict == "success"
        labelled = LabelledEpisode(index, inputs_of(episode), success)
        by_task.setdefault(episode.task, []).append(labelled)
    if len(hashes) != 1:
        msg = f"run {run}: episodes of {len(hashes)} different encoders; one is needed, encode them anew first"
        raise HilDaftError(msg)
    return dict(sorted(by_task.items())), hashes.pop()


def read_verdicts(queue: Path) -> dict[int, Doubt]:
    """The episodes a person has judged, by number; raises HilDaftError as `read_queue` does."""
    return {doubt.episode: doubt for doubt in read_queue(queue) if doubt.verdict}


def read_queue(queue: Path) -> list[Doubt]:
    """All entries of a queue; none where there is no file yet.

    Raises:
        HilDaftError: a line that is no entry, or a verdict other than "success", "failure" or "".
    """
    doubts: list[Doubt] = []
    lines = queue.read_text(encoding="utf-8").splitlines() if queue.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            doubt = Doubt(**cast("dict[str, Any]", json.loads(line)))
        except (ValueError, TypeError) as error:
            msg = f"{queue}, line {number}: no entry of the queue; mend it, or delete the file"
            raise HilDaftError(msg) from error
        if doubt.verdict not in ("", "success", "failure"):
            msg = f'{queue}, line {number}: verdict={doubt.verdict!r}; "success", "failure" or "" is allowed'
            raise HilDaftError(msg)
        doubts.append(doubt)
    return doubts


def _write_queue(queue: Path, doubts: Iterable[Doubt], verdicts: Mapping[int, Doubt]) -> None:
    kept = {doubt.episode: doubt for doubt in doubts} | dict(verdicts)
    lines = [json.dumps(asdict(kept[index])) + "\n" for index in sorted(kept)]
    temporary = queue.with_suffix(".writing")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.rename(queue)


def render_reports(reports: Sequence[TaskReport]) -> str:
    """The held-out figures as a table, with Wilson's 95 % intervals."""
    lines = [
        f"{'task':<12} {'episodes':>8} {'held out':>8} {'threshold':>9}   precision          recall"
    ]
    for report in reports:
        test = report.test
        said, there = test.true + test.false, test.true + test.missed
        lines.append(
            f"{report.task:<12} {report.episodes:>8} {test.episodes:>8} {report.threshold:>9.3f}   "
            f"{_share(test.true, said):<18} {_share(test.true, there)}"
        )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    if whole == 0:
        return "none announced"
    interval = wilson_interval(part, whole)
    return f"{part}/{whole} ({100 * interval.low:.0f}-{100 * interval.high:.0f} %)"
