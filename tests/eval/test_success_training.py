import json
from pathlib import Path

import numpy as np
import pytest

from hildaft.algo.success import (
    LabelledEpisode,
    SuccessConfig,
    read_classifier,
    split_episodes,
)
from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episodes import EpisodeStore
from hildaft.eval.success_training import read_queue, render_reports, train_success
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Encoded, HilDaftError, Observation

CONFIG = SuccessConfig(updates=80, hidden=8)


def write_episode(
    store: EpisodeStore, rng, *, success: bool, looks_done: bool, encoder: str
) -> None:
    builder = EpisodeBuilder(
        task="pick",
        source="online",
        robot="A",
        seed=1,
        policy_version=0,
        encoder_hash=encoder,
        action_scale=ActionScale(),
        keep_images=False,
    )
    steps = 12
    for step in range(steps + 1):
        features = rng.normal(0.0, 0.3, 2).astype(np.float32)
        features[0] += 5.0 * (looks_done and step >= steps - 2)
        encoded = Encoded(np.zeros(2, np.float32), features, np.zeros(2, np.float32))
        builder.observe(Observation(images={}, proprio=np.zeros(2, np.float32)), encoded)
        if step < steps:
            last = step == steps - 1
            builder.act(
                policy_action=np.zeros(7, np.float32),
                human_action=None,
                executed_action=np.zeros(7, np.float32),
                reward=float(success and last),
                terminated=success and last,
                truncated=not success and last,
            )
    store.append(builder.build(label_tweaks))


def make_run(folder: Path, *, unpressed: int = -1, encoders: tuple[str, ...] = ("abc",)) -> Path:
    """Every other episode succeeds; in `unpressed` the task was done and nobody pressed the key."""
    rng = np.random.default_rng(0)
    store = EpisodeStore(folder / "episodes")
    for number in range(30):
        success = number % 2 == 0
        looks_done = success or number == unpressed
        encoder = encoders[number % len(encoders)]
        write_episode(store, rng, success=success, looks_done=looks_done, encoder=encoder)
    return folder


def held_out_failure() -> int:
    nothing = np.zeros((1, 1), np.float32)
    episodes = [LabelledEpisode(n, nothing, n % 2 == 0) for n in range(30)]
    return next(e.index for e in split_episodes(episodes, CONFIG.seed)["test"] if not e.success)


def test_a_run_gets_a_classifier_figures_and_a_queue_that_the_person_can_answer(tmp_path) -> None:
    unpressed = held_out_failure()
    run = make_run(tmp_path / "run", unpressed=unpressed)
    [report] = train_success(run, CONFIG)
    assert report.episodes == 30
    assert report.test.recall == 1.0
    assert report.test.false == 1
    assert "pick" in render_reports([report])
    assert read_classifier(run / "success/classifier.safetensors").encoder_hash == "abc"
    assert json.loads((run / "success/report.json").read_text())["tasks"][0]["task"] == "pick"
    queue = run / "success/disagreements.jsonl"
    [doubt] = read_queue(queue)
    assert (doubt.episode, doubt.labelled, doubt.classifier) == (unpressed, "failure", "false")
    answer = {**json.loads(queue.read_text()), "verdict": "success"}
    queue.write_text(json.dumps(answer) + "\n")
    [report] = train_success(run, CONFIG)
    # The answer is obeyed and stays.
    assert report.test.false == 0
    assert [d.verdict for d in read_queue(queue) if d.episode == unpressed] == ["success"]


def test_bad_runs_and_bad_queues_are_one_line(tmp_path) -> None:
    with pytest.raises(HilDaftError, match="no episodes folder"):
        train_success(tmp_path / "none", CONFIG)
    mixed = make_run(tmp_path / "mixed", encoders=("abc", "def"))
    with pytest.raises(HilDaftError, match="2 different encoders"):
        train_success(mixed, CONFIG)
    queue = tmp_path / "queue.jsonl"
    for line, why in (("nonsense", "line 1"), ('{"episode": 1}', "line 1")):
        queue.write_text(line + "\n")
        with pytest.raises(HilDaftError, match=why):
            read_queue(queue)
    good = {
        "episode": 1,
        "task": "pick",
        "labelled": "failure",
        "classifier": "false",
        "highest": 1.0,
        "at_row": 3,
        "verdict": "perhaps",
    }
    queue.write_text(json.dumps(good) + "\n")
    with pytest.raises(HilDaftError, match="perhaps"):
        read_queue(queue)
