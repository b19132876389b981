"""Every command of the documentation is understood by its parser, and run unless it is marked.

Marks stand in the comment behind a command: (needs hardware), (needs its package), (needs LeRobot), (long). Commands
that train, serve or wait for a person are long by nature; the system tests run those.
"""

import json
import pickle
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tyro

import hildaft.cli
from hildaft.algo.checkpoint import write_checkpoint
from hildaft.build import build_encoders, build_learner
from hildaft.config import read_config
from hildaft.types import HilDaftError
from run_folders import write_run

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"\((needs hardware|needs its package|needs LeRobot|long)\)")
LONG = {
    *("demo", "train", "learner", "worker", "status", "console", "record", "pretrain", "study"),
    *("encode", "train-success", "sweep", "chain", "draw-commands", "fleet"),
}
OUTLINE = {"RUN", "DEMOS"}
"""Words that stand for a folder of the reader's: such a line is parsed alone."""
NEEDS_A_DEVICE = {"--teleop", "--udev", "--microphone"}
SHORT = {"--episodes": "1"}
"""Options whose documented value would take minutes, and the value they are run with."""


def commands():
    found = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if "results" in page.parts:
            continue
        for line in page.read_text(encoding="utf-8").splitlines():
            match = re.match(r"(?: {4})?hildaft ([a-z-]+.*)", line)
            if match is None or match[1].startswith("COMMAND"):
                continue
            words, _, comment = match[1].partition("#")
            line = words.partition("|")[0].strip()
            marked = MARK.search(comment) is not None
            found[line] = found.get(line, marked) and marked
    return found


COMMANDS = commands()


class ParsedError(Exception):
    """Raised where the command would have begun its work."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The files that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    run = write_run(folder / "runs" / "demo", episodes=3)
    config = read_config(run / "config.yaml")
    learner = build_learner(config, build_encoders(config))
    write_checkpoint(run / "checkpoints", learner.state(), {}, step=1)
    for name in ("pick", "a", "b"):
        shutil.copytree(run, folder / "runs" / name)
    shutil.copytree(run / "episodes", folder / "demos" / "episodes")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "docs" / "results", folder / "docs" / "results")
    shutil.copytree(ROOT / "tests" / "fixtures" / "lerobot_0_6_1" / "image", folder / "data/theirs")
    shutil.copy(ROOT / "examples" / "robots" / "so101.yaml", folder / "arm.yaml")
    shutil.copy(ROOT / "examples" / "gymnasium" / "fetch_reach.yaml", folder / "my_env.yaml")
    mapping = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/datasets.md").read_text(), re.DOTALL)
    (folder / "my.yaml").write_text(mapping[1])
    (folder / "demo.pkl").write_bytes(pickle.dumps(serl_transitions()))
    return folder


def serl_transitions():
    image = np.zeros((1, 16, 16, 3), np.uint8)
    seen = {"state": np.zeros((1, 19), np.float32), "side_policy": image, "wrist_1": image}
    last = {"dones": True, "rewards": 1.0, "masks": 0.0}
    return [
        {
            "observations": seen,
            "next_observations": seen,
            "actions": np.zeros(7, np.float32),
            **last,
        }
    ]


@pytest.mark.parametrize("line", COMMANDS)
def test_its_parser_understands_it(line, sandbox, monkeypatch):
    def cli(*words, **options):
        tyro.cli(*words, **options)
        raise ParsedError

    monkeypatch.chdir(sandbox)
    monkeypatch.setattr("hildaft.commands.parse.tyro", SimpleNamespace(cli=cli))
    command, *words = shlex.split(line)
    with pytest.raises(ParsedError):
        hildaft.cli._command(command)(words)


def test_it_runs(sandbox, monkeypatch, capsys):
    """One after the other: what one writes another reads."""
    monkeypatch.chdir(sandbox)
    ran = []
    for line, marked in COMMANDS.items():
        command, *words = shlex.split(line)
        published = any(word.startswith(("octo:", "smolvla:")) for word in words)
        if marked or command in LONG or published or (NEEDS_A_DEVICE | OUTLINE) & set(words):
            continue
        for place, word in enumerate(words[:-1]):
            words[place + 1] = SHORT.get(word, words[place + 1])
        try:
            code = hildaft.cli._command(command)(words)
        except HilDaftError as error:
            raise AssertionError(f"hildaft {line}: {error}") from error
        # The doctor's verdict on this machine is not the page's.
        assert code == 0 or command == "doctor", line
        ran.append(line)
    assert {line.split()[0] for line in ran} >= {
        *("inspect", "export", "import", "convert-pickle", "export-policy", "report", "eval"),
        *("certs", "check-env", "doctor"),
    }
    assert json.loads((sandbox / "policy" / "config.json").read_text())["type"] == "hildaft"
    capsys.readouterr()
