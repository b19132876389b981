"""Backbones from the command line: choose, time, re-encode; nothing is imported that was not chosen."""

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import COMMAND, hildaft, wait_for_episodes
from test_imports import run_python

from hildaft.build import build_encoders
from hildaft.config import PRESETS, read_config, write_config
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.encoding import encode_episode
from run_folders import rollout

OPTIONAL = {"transformers", "lerobot", "torchvision", "msgpack", "huggingface_hub"}


def test_only_what_was_chosen_is_imported() -> None:
    loaded = run_python(
        "from hildaft.build import build_encoders\n"
        "from hildaft.config import RunConfig\n"
        "import sys\n"
        "build_encoders(RunConfig())\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ).split()
    assert "torch" in loaded
    assert not OPTIONAL & set(loaded)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(PRESETS["tiny"], folder / "config.yaml")
    store = EpisodeStore(folder / "episodes")
    for task in ("upright", "pick"):
        store.append(rollout(rng, task, success=True, helped=2))
    return folder


def test_a_run_is_encoded_anew_beside_itself(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run / "episodes").iterdir()}
    result = hildaft("encode", str(run), "--backbone", "octo-tiny")
    assert result.returncode == 0, result.stderr
    out = run.with_name("run-octo-tiny")
    assert "hildaft train --out" in result.stdout
    assert read_config(out / "config.yaml") == PRESETS["tiny"]
    episodes = [episode for _, episode in EpisodeStore(out / "episodes").iterate()]
    assert [episode.task for episode in episodes] == ["upright", "pick"]
    assert {len(episode.encoder_hash) for episode in episodes} == {64}
    assert episodes[0].h.std(0).max() > 0
    assert before == {path.name: path.read_bytes() for path in (run / "episodes").iterdir()}
    again = hildaft("encode", str(run), "--backbone", "octo-tiny")
    assert again.returncode == 0
    other = hildaft("encode", str(run), "--out", str(out), "--image", "resnet10:no.pth")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "no.pth" in other.stderr


def test_a_stopped_encode_goes_on_to_the_same_episodes(run: Path, tmp_path: Path) -> None:
    store = EpisodeStore(run / "episodes")
    rng = np.random.default_rng(1)
    for _ in range(4):
        store.append(rollout(rng, "pick", success=True, helped=2))
    words = ["encode", str(run), "--backbone", "smol-tiny", "--out"]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, *words, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for_episodes(process, out, 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"the same command goes on from here" in said
    kept = {path.name: path.read_bytes() for path in (out / "episodes").iterdir()}
    assert 1 <= len(EpisodeStore(out / "episodes")) < 6
    result = hildaft(*words, str(out))
    assert result.returncode == 0, result.stderr
    encoded = EpisodeStore(out / "episodes")
    assert [encoded.read(i).task for i in encoded.indices] == ["upright", *["pick"] * 5]
    assert kept.items() <= {p.name: p.read_bytes() for p in (out / "episodes").iterdir()}.items()
    encoders = build_encoders(replace(PRESETS["tiny"], backbone="smol-tiny"))
    for number in (0, 5):
        afresh = encode_episode(store.read(number), encoders)
        np.testing.assert_array_equal(encoded.read(number).h, afresh.h)
        np.testing.assert_array_equal(encoded.read(number).features, afresh.features)


def test_a_run_on_another_backbone_trains_is_evaluated_and_looked_at(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = [
        *("--tasks", "upright", "--training.demonstrations", "1"),
        *("--training.warmup-updates", "8", "--training.online-transitions", "40"),
    ]
    result = hildaft("train", "tiny", "--backbone", "smol-tiny", "--out", str(run), *small)
    assert result.returncode == 0, result.stderr
    assert (run / "report" / "index.html").is_file()
    (final,) = (run / "evaluations").glob("*-final.json")
    assert [task["task"] for task in json.loads(final.read_text())["tasks"]] == ["upright"]

    seen = json.loads(hildaft("doctor", "--run", str(run), "--json").stdout)
    assert (seen["backbone"], seen["h_dim"]) == ("smol-tiny", 192)
    assert 0 < seen["spread_mm"] < 100
    other = hildaft("doctor", "--run", str(run), "--backbone", "octo-tiny")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "hildaft encode" in other.stderr


def test_the_doctor_times_a_backbone() -> None:
    result = hildaft("doctor", "--backbone", "octo-tiny", "--json")
    found = json.loads(result.stdout)
    assert result.returncode == (0 if found["keeps_up"] else 1)
    # An observation that was encoded before is answered from memory in 0.02 ms; no machine encodes in that.
    assert found["encode_p50_ms"] > 0.2
    assert found["h_dim"] == 128
    assert len(found["hash"]) == 64
    assert found["spread_mm"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["doctor", "--backbone", "octo-tinny"], "did you mean 'octo-tiny'"),
        (["doctor", "--backbone", "octo:nowhere"], "octo checkpoint 'nowhere': no such folder"),
        (["encode", "nowhere"], "nowhere"),
        (["train", "tiny", "--backbone", "octo"], "backbone='octo'"),
        (["train", "tiny", "--encoders.image", "resnet10:none.pth"], "none.pth"),
        (["train", "tiny", "--encoders.text", "t5:"], "encoders.text='t5:'"),
    ],
)
def test_one_clear_line(tmp_path: Path, words: list[str], expected: str) -> None:
    out = ["--out", str(tmp_path / "run")] if words[0] == "train" else []
    result = hildaft(*words, *out)
    assert result.returncode == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
