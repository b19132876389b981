"""Fixtures of the report's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hildaft.eval.report import write_report
from run_folders import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder and returns it."""
    return lambda name, **options: write_run(tmp_path / name, **options)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run folder and its page, drawn once for all tests that only read them."""
    run = write_run(tmp_path_factory.mktemp("runs") / "one", episodes=20)
    (run / "config.yaml").write_text("note: <script>alert(1)</script>\n")
    return run, write_report([run])
