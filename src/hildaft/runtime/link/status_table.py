"""A learner's status as a table for people."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_status(reply: Any, console: Console | None = None) -> None:  # noqa: ANN401 - generated class
    """Prints a `StatusReply`: the learner in two lines, then one row per worker."""
    console = console or Console()
    console.print(
        f"run {reply.run}   {reply.stage}   up {_duration(reply.up_s)}   weights {reply.weights or 'none yet'}",
        highlight=False,
    )
    console.print(
        f"{reply.online_transitions} of {reply.wanted_transitions} transitions   {reply.stored_episodes} episodes "
        f"({reply.demonstrations} demonstrations)   {reply.warmup_updates} + {reply.online_updates} updates   "
        f"{reply.refused} calls refused",
        highlight=False,
    )
    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for heading in ("worker", "robot", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("episodes", "success", "waiting", "weight age", "Hz", "late", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    for worker in reply.workers:
        success = f"{100 * worker.successes / worker.episodes:.0f} %" if worker.episodes else "-"
        table.add_row(
            worker.worker,
            worker.robot,
            worker.state + (f" ({worker.gaps} not delivered)" if worker.gaps else ""),
            str(worker.episodes),
            success,
            f"{worker.pending_episodes} ({worker.pending_bytes >> 20} MiB)",
            f"{worker.weight_age_s:.1f} s" if worker.weights else "-",
            f"{worker.achieved_hz:.1f}",
            f"{100 * worker.late_share:.1f} %",
            f"{worker.seen_s:.1f} s ago",
        )
    console.print(table if reply.workers else "no worker has joined yet")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
