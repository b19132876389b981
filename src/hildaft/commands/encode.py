"""Another backbone for a run's stored episodes: `encode`."""

import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from hildaft.commands.parse import parse_words

if TYPE_CHECKING:
    from hildaft.config import RunConfig
    from hildaft.data.episodes import EpisodeStore
    from hildaft.models.backbone import FrozenEncoders


def encode(words: Sequence[str]) -> int:
    """`hildaft encode RUN [--backbone X] [--image X] [--out FOLDER]`."""

    @dataclass(frozen=True)
    class EncodeArguments:
        """Rebuild h and image features of a run's episodes, from their stored images, into a new run folder.

        What was recorded once can so be trained on with any backbone: `hildaft train --out FOLDER --resume`. Stopped,
        the same command goes on where it was.
        """

        run: tyro.conf.Positional[Path]
        """Run folder; left as it is."""
        backbone: str | None = None
        """octo-tiny, octo-small, octo:FOLDER, ...; the run's own where not given (its weights may have changed)."""
        image: str | None = None
        """keypoints, resnet10:FILE or resnet18:FILE; the run's own where not given."""
        out: Path | None = None
        """The new run folder; beside the old one, with the backbone's name, where not given."""
        demos_only: bool = False
        """Take the demonstrations alone: the online stage then collects its own episodes."""

    given = parse_words(EncodeArguments, "encode", words)
    return _encode(given.run, given.backbone, given.image, given.out, demos_only=given.demos_only)


def _encode(
    run: Path, backbone: str | None, image: str | None, out: Path | None, *, demos_only: bool
) -> int:
    from hildaft.build import build_encoders
    from hildaft.config import read_config
    from hildaft.data.episodes import EpisodeStore
    from hildaft.types import HilDaftError

    old = read_config(run / "config.yaml")
    beside = replace(old.encoders, image=image or old.encoders.image)
    new = replace(old, backbone=backbone or old.backbone, encoders=beside)
    name = re.sub(r"[^\w.-]+", "-", new.backbone)
    out = out or run.with_name(f"{run.resolve().name}-{name}")
    if out.resolve() == run.resolve():
        msg = f"encode --out {out}: a folder other than the run's is needed; name a new one"
        raise HilDaftError(msg)
    if not (run / "episodes").is_dir():
        msg = f"run folder {run}: it holds no episodes; name a run that was trained"
        raise HilDaftError(msg)
    encoders = build_encoders(new)
    _claim_or_continue(new, out)
    source = EpisodeStore(run / "episodes")
    wanted = [s.index for s in source.summaries() if s.source == "demo" or not demos_only]
    if not _encode_with_progress(source, wanted, EpisodeStore(out / "episodes"), encoders):
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(
        f"{len(wanted)} episodes in {out}: h {encoders.h_dim}, features {encoders.feature_dim}, "
        f"encoders {encoders.hash[:12]}\ntrain on them: hildaft train --out {out} --resume"
    )
    return 0


def _claim_or_continue(config: "RunConfig", out: Path) -> None:
    from hildaft.build import claim_folder
    from hildaft.config import read_config
    from hildaft.types import HilDaftError

    if not out.exists():
        claim_folder(config, out)
    elif read_config(out / "config.yaml") != config:
        msg = f"encode --out {out}: it belongs to a run of other settings; name a new folder"
        raise HilDaftError(msg)


def _encode_with_progress(
    source: "EpisodeStore", wanted: list[int], target: "EpisodeStore", encoders: "FrozenEncoders"
) -> bool:
    """Whether all were encoded; False where the user stopped it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from hildaft.runtime.encoding import encode_store

    columns = (TextColumn("encode"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # As the other long commands do: a shell starts its background jobs deaf to this signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Progress(*columns) as progress:
            bar = progress.add_task("encode", total=len(wanted))
            encode_store(
                source,
                wanted,
                target,
                encoders,
                lambda finished: progress.update(bar, completed=finished),
            )
    except KeyboardInterrupt:
        return False
    return True
