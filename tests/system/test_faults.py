"""The short form of the fault suite, as `make faults` runs it in full: real processes, killed."""

import json
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_nothing_is_lost_in_the_short_form(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    amounts = ["--kills", "6", "--longest-s", "8", "--malformed", "300", "--checkpoints", "5"]
    amounts += ["--holds", "1"]
    result = subprocess.run(
        [sys.executable, str(SUITE), *amounts, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    figures = json.loads(out.read_text())
    assert figures["kills"] > 0
    assert figures["transitions"] >= figures["ledger"] > 50
    wrong = ("lost", "duplicated", "reordered", "torn_accepted", "malformed_accepted")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert figures["malformed_sent"] == 300
    assert figures["malformed_untyped"] == figures["fuzz_tracebacks"] == 0
    assert (figures["holds"], figures["moves_after_hold"]) == (5, 0)
    assert figures["hold_ms_max"] < 200
    assert figures["checkpoint_fallbacks"] > 0
