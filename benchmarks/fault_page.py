"""The page beside faults.json."""

import json
import sys
from pathlib import Path

ROWS = (
    ("kill -9 of worker, learner or both", "kills"),
    ("of these, the learner", "kills_learner"),
    ("journals left with a torn record at their end", "damaged_tails"),
    ("network cut for 0.2 to 1.5 s", "cuts"),
    ("inserts whose request was lost", "network_request_lost"),
    ("inserts whose reply was lost", "network_reply_lost"),
    ("inserts delayed by up to 0.3 s", "network_delayed"),
    ("inserts delivered twice", "delivered_twice"),
    ("old inserts delivered again, late and out of order", "delivered_late"),
    ("leaps of a wall clock by up to a day", "clock_jumps"),
    ("disks filled (learner's, worker's)", "full_disks"),
    ("newest checkpoint damaged", "damaged_checkpoints"),
    ("malformed calls to a live learner", "malformed_sent"),
    ("workers killed, workers frozen, policies frozen, cameras cut at a moving robot", "holds"),
    ("of these, workers killed while the robot drove to its start pose", "holds_in_reset"),
)
FOUND = (
    ("transitions the robots made and the journals had", "ledger"),
    ("transitions in the learners' stores", "transitions"),
    ("episodes in the learners' stores", "episodes"),
    ("**transitions lost**", "lost"),
    ("**transitions twice**", "duplicated"),
    ("**out of a worker's order**", "reordered"),
    ("**torn episodes accepted**", "torn_accepted"),
    ("**malformed calls accepted**", "malformed_accepted"),
    ("malformed calls answered with an untyped error", "malformed_untyped"),
    ("damaged checkpoints after which the one before was read, and said", "checkpoint_fallbacks"),
    ("latest hold of the robot after that (ms)", "hold_ms_max"),
    ("median hold of the robot after that (ms)", "hold_ms_median"),
    ("poses sent to a robot after its hold, in a reset", "moves_after_hold"),
    ("memory of the learner before the malformed calls (MiB)", "fuzz_memory_mib"),
    ("its growth over them (MiB)", "fuzz_memory_growth_mib"),
    ("episodes of the honest worker stored meanwhile", "fuzz_episodes_served"),
    ("tracebacks in that learner's log", "fuzz_tracebacks"),
)


def write_page(path: Path) -> None:
    """Writes faults.md beside faults.json."""
    document = json.loads(path.read_text())
    lines = [
        "# Faults survived",
        "",
        "Real processes: the link, the spool, the intake and the worker loop as they are; robot, policy and training",
        "are cheap, so that a kill costs a second and not a minute. Every robot numbers its steps and writes the",
        "number of each journalled step into a ledger of its own; the learner's store is compared with the ledgers.",
        "A kill may fall between the journal's write and the ledger's: so the store may hold one step per start more.",
        "",
        f"`{document['command']}`  ",
        f"seed {document['seed']}, commit {document['commit']}, {document['date']}, {document['machine']}, "
        f"{document['wall_s']:.0f} s",
        "",
    ]
    for title, rows in (("what was done", ROWS), ("what was found", FOUND)):
        lines += [f"| {title} | |", "|---|---:|"]
        lines += [f"| {text} | {document[name]} |" for text, name in rows if name in document]
        lines.append("")
    lines += [
        "The malformed calls are wrong or missing tokens, foreign schema versions and runs, random bytes, truncated",
        "and bit-flipped episodes, episodes under another worker's name or number, wrong order, unknown methods,",
        "messages above the size cap, and plain noise on the socket. The bit-exact resume of a killed training run is",
        "a test (`tests/system/test_training_run.py`), the hold of a robot whose worker dies another",
        "(`tests/robots/test_watchdog.py`).",
        "",
    ]
    path.with_suffix(".md").write_text("\n".join(lines))


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
