"""Rebuilds what the frozen encoders made of stored episodes, for other encoders: images in, h and features out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hildaft.algo.policy import Encoders
from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode, HilDaftError, Observation


def encode_episode(episode: Episode, encoders: Encoders) -> Episode:
    """The same episode with h, features and hash of these encoders.

    Raises:
        HilDaftError: it was stored without its images, or with too few.
    """
    counts = {camera: len(frames) for camera, frames in episode.images.items()}
    if not counts or set(counts.values()) != {len(episode) + 1}:
        msg = (
            f"episode of task={episode.task!r}, seed={episode.seed}: images of its "
            f"{len(episode) + 1} observations are needed, found {counts or 'none'}; record it with "
            "images kept, or leave it out"
        )
        raise HilDaftError(msg)
    encoded = [
        encoders.encode(
            Observation(
                images={name: decode_jpeg(frames[i]) for name, frames in episode.images.items()},
                proprio=episode.proprio[i],
            ),
            episode.task,
        )
        for i in range(len(episode) + 1)
    ]
    return replace(
        episode,
        h=np.stack([one.h for one in encoded]),
        features=np.stack([one.features for one in encoded]),
        encoder_hash=encoders.hash,
    )


def encode_store(
    source: EpisodeStore,
    indices: Sequence[int],
    target: EpisodeStore,
    encoders: Encoders,
    on_episode: Callable[[int], None],
) -> None:
    """Appends the encoded episodes of these numbers to `target`, going on where an earlier call stopped.

    `on_episode` is told how many are finished, after each.

    Raises:
        HilDaftError: `target` holds episodes of other encoders or others than these, or an episode cannot be encoded.
    """
    finished = target.summaries()
    names = {summary.index: summary for summary in source.summaries()}
    for index, summary in zip(indices, finished, strict=False):
        wanted = names[index]
        same = (wanted.task, wanted.seed, wanted.source) == (
            summary.task,
            summary.seed,
            summary.source,
        )
        if summary.encoder_hash != encoders.hash or not same:
            msg = (
                f"episode file {summary.path}: of other encoders or another run; "
                "name an empty folder with --out"
            )
            raise HilDaftError(msg)
    if len(finished) > len(indices):
        msg = f"episode folder {target.folder}: it holds more than {len(indices)} episodes; name another with --out"
        raise HilDaftError(msg)
    on_episode(len(finished))
    for number, index in enumerate(indices[len(finished) :], len(finished) + 1):
        target.append(encode_episode(source.read(index), encoders))
        on_episode(number)
