"""Success seen in images: `train-success`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from hildaft.commands.parse import parse_words


def train_success(words: Sequence[str]) -> int:
    """`hildaft train-success RUN [overrides]`."""
    from hildaft.algo.success import SuccessConfig
    from hildaft.eval.success_training import FOLDER, QUEUE_FILE, read_queue, render_reports
    from hildaft.eval.success_training import train_success as train

    @dataclass(frozen=True)
    class TrainSuccessArguments:
        """Train a classifier that sees success in a run's stored features; judge it on held-out episodes."""

        run: tyro.conf.Positional[Path]
        """Run folder with episodes of both outcomes, whoever labelled them."""
        config: Annotated[SuccessConfig, tyro.conf.arg(name="")] = field(
            default_factory=SuccessConfig
        )

    given = parse_words(TrainSuccessArguments, "train-success", words)
    print(render_reports(train(given.run, given.config)))
    queue = given.run / FOLDER / QUEUE_FILE
    waiting = sum(not doubt.verdict for doubt in read_queue(queue))
    if waiting:
        print(
            f"{waiting} episodes to look at: fill in each verdict in {queue}, then run this again"
        )
    return 0
