"""Success seen in an image: a small classifier on stored features, for robots without a simulator. Not in the paper.

A robot that only sees needs a reward. The classifier reads what the worker stores with each observation (h, image
features, gripper status), so training it touches no pixel and acting on it costs nothing. Episodes, never rows, are
split: neighbouring rows look alike. One part trains, one calibrates and sets the threshold, one is judged on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.types import Encoded, Episode, HilDaftError

Part: TypeAlias = Literal["train", "calibrate", "test"]

FORMAT: Final = "hildaft.success"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class SuccessConfig:
    """How a success classifier is trained and when it is believed."""

    held_rows: int = 3
    """Last observations of a successful episode that show the success: the bench ends one when it has held for 3."""
    margin_rows: int = 3
    """Observations before them that are left out: nobody can say at which frame it became true."""
    streak: int = 2
    """Observations in a row above the threshold that make a success, at most `held_rows`."""
    precision: float = 0.98
    """Share of announced successes that must be true when the threshold is set, in (0.5, 1]."""
    updates: int = 400
    hidden: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    dropout: float = 0.2
    seed: int = 0
    """Decides the split and the weights."""

    def __post_init__(self) -> None:
        for name in ("held_rows", "streak", "updates", "hidden"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.margin_rows >= 0, "margin_rows", self.margin_rows, "0 or more")
        _require(self.streak <= self.held_rows, "streak", self.streak, "at most held_rows")
        _require(0.5 < self.precision <= 1.0, "precision", self.precision, "above 0.5, at most 1")
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "0 to below 1")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        msg = f"success.{name}={value!r}: {allowed} is allowed"
        raise HilDaftError(msg)


@dataclass(frozen=True, slots=True)
class LabelledEpisode:
    """What the classifier needs of an episode; `success` is the person's last word."""

    index: int
    inputs: Float32[np.ndarray, "t1 d"]
    success: bool


def inputs_of(episode: Episode) -> Float32[np.ndarray, "t1 d"]:
    """h, image features and gripper status of every observation, side by side."""
    return np.concatenate([episode.h, episode.features, episode.proprio], axis=1)


def label_rows(
    episode: LabelledEpisode, config: SuccessConfig
) -> tuple[Bool[np.ndarray, " t1"], Bool[np.ndarray, " t1"]]:
    """Which observations show success, and which of all are used."""
    count = len(episode.inputs)
    shows = np.zeros(count, dtype=np.bool_)
    used = np.ones(count, dtype=np.bool_)
    if episode.success:
        first = max(count - config.held_rows, 0)
        shows[first:] = True
        used[max(first - config.margin_rows, 0) : first] = False
    return shows, used


def split_episodes(
    episodes: Sequence[LabelledEpisode], seed: int
) -> dict[Part, list[LabelledEpisode]]:
    """60 % train, 20 % calibrate, 20 % test, successes and failures apart; the same for the same numbers."""
    parts: dict[Part, list[LabelledEpisode]] = {"train": [], "calibrate": [], "test": []}
    order: tuple[Part, ...] = ("train", "test", "train", "calibrate", "train")
    for success in (True, False):
        kind = [episode for episode in episodes if episode.success is success]
        shuffled = np.random.default_rng([seed, int(success)]).permutation(len(kind))
        for place, at in enumerate(shuffled):
            parts[order[place % len(order)]].append(kind[at])
    return parts


@final
class SuccessNetwork(nn.Module):
    """One task's classifier: normalised inputs to a logit, calibrated by a temperature and an offset."""

    mean: Tensor
    deviation: Tensor
    calibration: Tensor

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, inputs: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Uncalibrated logits."""
        return self.layers((inputs - self.mean) / self.deviation)[:, 0]

    def probability(self, inputs: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Calibrated probability that each observation shows success."""
        slope, offset = self.calibration
        return torch.sigmoid(slope * self.forward(inputs) + offset)


@dataclass(frozen=True, kw_only=True)
class TaskClassifier:
    """A task's network and from which probability it is believed."""

    network: SuccessNetwork
    threshold: float
    streak: int

    def probabilities(self, inputs: Float32[np.ndarray, "t d"]) -> Float32[np.ndarray, " t"]:
        """Calibrated probability of each row."""
        with torch.inference_mode():
            return self.network.probability(torch.from_numpy(inputs)).numpy()

    def announced(self, probabilities: Float32[np.ndarray, " t"]) -> int | None:
        """The first row at which success is announced, or None."""
        run = 0
        for row, value in enumerate(probabilities):
            run = run + 1 if value >= self.threshold else 0
            if run == self.streak:
                return row
        return None


def train_task(
    parts: Mapping[Part, Sequence[LabelledEpisode]], config: SuccessConfig
) -> TaskClassifier:
    """Trains on one part, calibrates and sets the threshold on another.

    Raises:
        HilDaftError: a part holds no success, or no observation that shows none.
    """
    inputs, shows = _stack(parts["train"], config, "train")
    torch.manual_seed(config.seed)
    network = SuccessNetwork(inputs.shape[1], config.hidden, config.dropout)
    network.mean.copy_(inputs.mean(0))
    network.deviation.copy_(inputs.std(0).clamp_min(1e-3))
    weight = ((shows == 0).sum() / shows.sum()).clamp(1.0, 20.0)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    network.train()
    for _ in range(config.updates):
        loss = F.binary_cross_entropy_with_logits(network(inputs), shows, pos_weight=weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(requires_grad=False)
    _calibrate(network, *_stack(parts["calibrate"], config, "calibrate"))
    threshold = _choose_threshold(network, parts["calibrate"], config)
    return TaskClassifier(network=network, threshold=threshold, streak=config.streak)


def _stack(
    episodes: Sequence[LabelledEpisode], config: SuccessConfig, part: Part
) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    rows: list[Float32[np.ndarray, "t d"]] = []
    labels: list[Bool[np.ndarray, " t"]] = []
    for episode in episodes:
        shows, used = label_rows(episode, config)
        rows.append(episode.inputs[used])
        labels.append(shows[used])
    flat = np.concatenate(labels) if labels else np.zeros(0, dtype=np.bool_)
    if not flat.any() or flat.all():
        msg = (
            f"success classifier: the {part} part holds {int(flat.sum())} observations of success and "
            f"{int((~flat).sum())} of none; record at least 5 successful episodes, and failures too"
        )
        raise HilDaftError(msg)
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(flat.astype(np.float32))


def _calibrate(
    network: SuccessNetwork, inputs: Float[Tensor, "b d"], shows: Float[Tensor, " b"]
) -> None:
    """Platt's scaling: slope and offset that make the probabilities fit rows the network has not seen."""
    with torch.no_grad():
        logits = network(inputs)
    scale = torch.tensor([1.0, 0.0], requires_grad=True)
    # Platt's targets: a handful of perfect rows must not push the probabilities to 0 and 1.
    positives, negatives = float(shows.sum()), float((1 - shows).sum())
    target = shows * ((positives + 1) / (positives + 2)) + (1 - shows) / (negatives + 2)
    optimiser = torch.optim.LBFGS([scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(scale[0] * logits + scale[1], target)
        value.backward()
        return value

    optimiser.step(loss)
    # A slope of 0 or less would turn the order round: the network then knows nothing.
    slope = max(float(scale.detach()[0]), 1e-3)
    network.calibration.copy_(torch.tensor([slope, float(scale.detach()[1])]))


def _choose_threshold(
    network: SuccessNetwork, episodes: Sequence[LabelledEpisode], config: SuccessConfig
) -> float:
    """The threshold that misses least among those whose announcements are true often enough.

    The middle one of several that are equal: the edge of what few episodes allow is no safe place. Where none is
    good enough, the one that errs least.
    """
    tried: list[tuple[float, Judgement]] = []
    for threshold in (*np.linspace(0.05, 0.95, 19), 0.97, 0.98, 0.99, 0.995, 0.999):
        candidate = TaskClassifier(
            network=network, threshold=float(threshold), streak=config.streak
        )
        tried.append((float(threshold), judge(candidate, episodes, config)))
    good = [entry for entry in tried if entry[1].precision >= config.precision]
    if not good:
        fewest = min(entry[1].false for entry in tried)
        good = [entry for entry in tried if entry[1].false == fewest]
    most = max(entry[1].true for entry in good)
    equal = [threshold for threshold, outcome in good if outcome.true == most]
    return equal[len(equal) // 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How a classifier did on some episodes."""

    episodes: int
    true: int
    """Successes announced when they were there."""
    false: int
    """Announced in a failure, or too early in a success."""
    missed: int
    """Successes not announced."""

    @property
    def precision(self) -> float:
        """Share of announcements that were true; NaN where there were none."""
        said = self.true + self.false
        return self.true / said if said else float("nan")

    @property
    def recall(self) -> float:
        """Share of successes announced; NaN where there were none."""
        there = self.true + self.missed
        return self.true / there if there else float("nan")


def judge(
    classifier: TaskClassifier, episodes: Sequence[LabelledEpisode], config: SuccessConfig
) -> Judgement:
    """Plays each episode to the classifier as it would have seen it live."""
    true = false = missed = 0
    for episode in episodes:
        verdict = verdict_of(classifier, episode, config)
        true += verdict == "true"
        false += verdict in ("false", "early")
        missed += verdict in ("missed", "early")
    return Judgement(episodes=len(episodes), true=true, false=false, missed=missed)


Verdict: TypeAlias = Literal["true", "false", "early", "missed", "rightly silent"]


def verdict_of(
    classifier: TaskClassifier, episode: LabelledEpisode, config: SuccessConfig
) -> Verdict:
    """How the classifier's announcement compares with the person's label.

    An announcement within the last `held_rows + margin_rows` observations of a success is in time.
    """
    values = classifier.probabilities(episode.inputs)
    at = classifier.announced(values)
    if at is None:
        return "missed" if episode.success else "rightly silent"
    if not episode.success:
        return "false"
    in_time = at >= len(values) - config.held_rows - config.margin_rows
    return "true" if in_time else "early"


@dataclass(frozen=True, kw_only=True)
class SuccessClassifier:
    """A classifier per task, for one kind of frozen encoders."""

    encoder_hash: str
    tasks: Mapping[str, TaskClassifier]

    def probability(self, encoded: Encoded, task: str) -> float:
        """Calibrated probability that an observation shows success; raises HilDaftError for an unknown task."""
        row = np.concatenate([encoded.h, encoded.features, encoded.proprio])[None]
        return float(self.of(task).probabilities(row.astype(np.float32))[0])

    def limits(self, task: str) -> tuple[float, int]:
        """From which probability, and for how many observations in a row, a task's success is believed."""
        part = self.of(task)
        return part.threshold, part.streak

    def of(self, task: str) -> TaskClassifier:
        """The task's classifier; raises HilDaftError for an unknown task."""
        if task not in self.tasks:
            msg = f"success classifier: task={task!r} was not trained; {', '.join(self.tasks)} were"
            raise HilDaftError(msg)
        return self.tasks[task]


def write_classifier(classifier: SuccessClassifier, path: Path) -> None:
    """Writes one safetensors file, whole or not at all."""
    tensors = {
        f"{task}/{name}": tensor.contiguous()
        for task, part in classifier.tasks.items()
        for name, tensor in part.network.state_dict().items()
    }
    head = {
        "format": FORMAT,
        "version": SCHEMA_VERSION,
        "encoder_hash": classifier.encoder_hash,
        "tasks": {
            task: {"threshold": part.threshold, "streak": part.streak}
            for task, part in classifier.tasks.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    save_file(tensors, temporary, metadata={"hildaft": json.dumps(head)})
    temporary.rename(path)


def read_classifier(path: Path) -> SuccessClassifier:
    """Reads it back; raises HilDaftError for a missing, damaged or foreign file."""
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {})["hildaft"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if head["format"] != FORMAT or head["version"] != SCHEMA_VERSION:
            raise KeyError(head["format"])
        tasks = {
            task: TaskClassifier(
                network=_network(tensors, task),
                threshold=float(part["threshold"]),
                streak=int(part["streak"]),
            )
            for task, part in head["tasks"].items()
        }
        return SuccessClassifier(encoder_hash=str(head["encoder_hash"]), tasks=tasks)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        msg = f"success classifier {path}: no whole file of this version; make it with `hildaft train-success RUN`"
        raise HilDaftError(msg) from error


def _network(tensors: Mapping[str, Tensor], task: str) -> SuccessNetwork:
    own = {
        name.removeprefix(f"{task}/"): t
        for name, t in tensors.items()
        if name.startswith(f"{task}/")
    }
    hidden, dim = own["layers.0.weight"].shape
    network = SuccessNetwork(dim, hidden, dropout=0.0)
    network.load_state_dict(own)
    return network.eval().requires_grad_(requires_grad=False)
