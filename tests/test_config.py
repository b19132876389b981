from dataclasses import replace
from pathlib import Path

import pytest

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
