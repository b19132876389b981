from dataclasses import replace
from pathlib import Path

import pytest

from hildaft.commands.parse import split_preset
from hildaft.config import PRESETS, read_config, write_config
from hildaft.types import HilDaftError


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_the_file(tmp_path: Path, name: str) -> None:
    config = replace(PRESETS[name], seed=7, tasks=("pick",))
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_preset_names_are_recorded() -> None:
    assert all(config.preset == name for name, config in PRESETS.items())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: [", "YAML"),
        ("- 1", "mapping"),
        ("seed: abc", "seed"),
        ("nonsense: 1", "nonsense"),
        ("robot: C", "robot"),
        ("training: {batch_size: -1}", "batch_size"),
    ],
)
def test_bad_file_is_one_error(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(HilDaftError, match=named) as error:
        read_config(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "preset", "rest"),
    [
        ([], "demo", []),
        (["tiny", "--seed", "1"], "tiny", ["--seed", "1"]),
        (["--seed", "1", "--preset", "smoke"], "smoke", ["--seed", "1"]),
        (["--preset=paper"], "paper", []),
    ],
)
def test_a_preset_is_named_first_or_by_its_option(words, preset, rest):
    assert split_preset(words, "demo") == (preset, rest)


@pytest.mark.parametrize("words", [["smok"], ["--preset", "smok"], ["tiny", "--preset", "smoke"]])
def test_a_preset_that_is_none_is_one_line(words):
    with pytest.raises(HilDaftError, match="smok") as error:
        split_preset(words)
    assert "\n" not in str(error.value)
