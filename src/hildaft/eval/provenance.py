"""Writes down what made a run: command, commit, date, machine."""

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

from hildaft.eval.run_data import write_provenance


def commit_of_code() -> str:
    """The commit this code is of, "-dirty" behind it where files differ."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or "not a checkout"


def today() -> str:
    """The date, as ISO 8601 writes it (UTC)."""
    return datetime.now(timezone.utc).date().isoformat()


def record_provenance(folder: Path) -> None:
    """Writes `run.json` of a run that this process starts; raises HilDaftError where it cannot be written."""
    write_provenance(
        folder,
        command=["hildaft", *sys.argv[1:]],
        commit=commit_of_code(),
        date=today(),
        machine=f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()},"
        f" torch {torch.__version__}",
    )
