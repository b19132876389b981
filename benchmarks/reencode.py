"""The update of the ancestors: images in the replay buffer, shifted and encoded anew in every update.

A frozen ResNet-10 in plain torch, as HIL-SERL and ConRFT use it. Generous to the other side: each image is encoded
once per update and its features serve every loss, where the ancestors encode it up to five times; h, the backbone's
embedding, is taken as given, although they run the backbone again too.
"""

from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import DIMS, TASKS
from hildaft.algo.dual_actor import Dims, DualActor
from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.types import COMMAND_COUNT
from synthetic import random_table

SIDE: Final = 128
CAMERAS: Final = 2
PAD: Final = 4
WIDTHS: Final = (64, 128, 256, 512)


class Block(nn.Module):
    """Two convolutions with GroupNorm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(4, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(4, outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(4, outputs)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def resnet10() -> nn.Module:
    """One block per stage, pooled to 512 numbers: the encoder of SERL, HIL-SERL and ConRFT."""
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.GroupNorm(4, 64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    )
    stages = [
        Block(inputs, outputs, 1 if inputs == outputs else 2)
        for inputs, outputs in zip((64, *WIDTHS), WIDTHS, strict=False)
    ]
    network = nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def random_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to PAD pixels, its border repeated (DrQ)."""
    padded = F.pad(images, (PAD,) * 4, mode="replicate")
    offsets = torch.randint(2 * PAD + 1, (2, len(images)), generator=generator).tolist()
    return torch.stack(
        [image[:, y : y + SIDE, x : x + SIDE] for image, y, x in zip(padded, *offsets, strict=True)]
    )


@final
class ReencodingLearner:
    """Our update behind an encoder that runs on every sampled image."""

    def __init__(self, actor: DualActor, rows: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.encoder = resnet10()
        dims = Dims(h=DIMS.h, features=CAMERAS * WIDTHS[-1], proprio=DIMS.proprio)
        self.actor = DualActor(actor.config, TASKS, dims, random_table(64), seed=0)
        self.rows = rows
        # Frames of the buffer: uint8, as everyone stores them.
        self.frames = torch.randint(
            256, (300, CAMERAS, 3, SIDE, SIDE), dtype=torch.uint8, generator=self.generator
        )

    @torch.no_grad()
    def _features(self) -> Tensor:
        """Features of a batch of states: sampled, shifted, encoded, joined over the cameras."""
        n = len(TASKS)
        rows = torch.randint(len(self.frames), (n * self.rows,), generator=self.generator)
        images = self.frames[rows].flatten(0, 1).float() / 127.5 - 1.0
        shifted = random_shift(images, self.generator)
        encoded = self.encoder(shifted.contiguous(memory_format=torch.channels_last))
        return encoded.view(n, self.rows, -1)

    def online(self) -> None:
        """One online update: states and next states of the batch, states of the talk-and-tweak rows."""
        n, b = len(TASKS), self.rows

        def normal(*width: int) -> Tensor:
            return torch.randn(n, b, *width, generator=self.generator)

        batch = Batch(
            tasks=range(n),
            h=normal(DIMS.h),
            features=self._features(),
            proprio=normal(DIMS.proprio),
            action=normal(7).clamp(-1.0, 1.0),
            reward=torch.zeros(n, b),
            not_terminal=torch.ones(n, b),
            mc_return=torch.zeros(n, b),
            next_h=normal(DIMS.h),
            next_features=self._features(),
            next_proprio=normal(DIMS.proprio),
            from_demos=(torch.arange(b) < b // 2).expand(n, b),
        )
        talk = TalkTweakBatch(
            h=normal(DIMS.h),
            features=self._features(),
            proprio=normal(DIMS.proprio),
            action=normal(7).clamp(-1.0, 1.0),
            command=torch.randint(COMMAND_COUNT, (n, b), generator=self.generator),
            tasks=tuple(range(n)),
        )
        self.actor.update_critics(batch, "online")
        self.actor.update_primary(batch, "online", talk)
        self.actor.update_refinement(talk)
