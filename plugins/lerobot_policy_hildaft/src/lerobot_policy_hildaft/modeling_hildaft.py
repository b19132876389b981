"""The dual actor behind LeRobot's policy interface: frozen encoders, then primary or refined action."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from hildaft.build import build_encoders, build_policy
from hildaft.config import RunConfig, read_config
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.talk import PHRASES
from hildaft.types import NULL_COMMAND, HilDaftError, Observation, RefinementCommand
from lerobot_policy_hildaft.configuration_hildaft import _BY_HILDAFT, HildaftConfig

CAMERAS = ("head", "wrist")


class HildaftPolicy(PreTrainedPolicy):
    """Acts as `hildaft eval` does: one noise sample per action, clipped to [-1, 1].

    Observations are single: a batch is gone through row by row, because the encoders are made for a robot's loop.
    """

    config_class = HildaftConfig
    name = "hildaft"

    def __init__(self, config: HildaftConfig, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.run_config = _run_config(config)
        self._policy = build_policy(self.run_config, build_encoders(self.run_config))
        self._tasks = {name: name for name in self.run_config.tasks}
        self._tasks |= {words: name for name, words in self.run_config.instructions.items()}
        self._command = _command(config.command)
        self._weights: bytes = b""
        self._resets = 0
        # LeRobot moves and counts parameters; the frozen networks stay where HiL-DAFT put them.
        self.register_buffer("anchor", torch.zeros(1), persistent=False)

    @classmethod
    def _load_as_safetensor(
        cls, model: "HildaftPolicy", model_file: str, map_location: str, strict: bool
    ) -> "HildaftPolicy":
        del map_location, strict
        model._weights = Path(model_file).read_bytes()
        # Checks names and shapes, and says in one line what does not fit.
        model._policy.load(model._weights, 1)
        return model

    def _save_pretrained(
        self, save_directory: Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        del state_dict
        self.config._save_pretrained(save_directory)
        (save_directory / "model.safetensors").write_bytes(self._weights)

    def reset(self) -> None:
        """Restarts the noise; called at each episode start."""
        self._policy.begin(self.config.seed + self._resets)
        self._resets += 1

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, 7) for both cameras' images (b, 3, h, w) in [0, 1] and `observation.state` (b, 2)."""
        del kwargs
        state = batch["observation.state"]
        tasks, spoken = batch.get("task"), batch.get("refinement_command")
        actions = []
        for row in range(len(state)):
            images = {name: _image(batch[f"observation.images.{name}"][row]) for name in CAMERAS}
            proprio = state[row].detach().cpu().numpy().astype(np.float32)
            encoded = self._policy.encode(
                Observation(images=images, proprio=proprio), self._task(_row(tasks, row))
            )
            words = _row(spoken, row)
            command = self._command if words is None else _command(words)
            actions.append(torch.from_numpy(self._policy.act(encoded, command)))
        return torch.stack(actions).to(state.device)

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """A chunk of one action, (b, 1, 7)."""
        return self.select_action(batch, **kwargs).unsqueeze(1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Raises: LeRobot does not train this policy."""
        raise NotImplementedError(_BY_HILDAFT)

    def get_optim_params(self) -> dict:
        """Raises: LeRobot does not train this policy."""
        raise NotImplementedError(_BY_HILDAFT)

    def _task(self, text: str | None) -> str:
        if not text and len(self.run_config.tasks) == 1:
            return self.run_config.tasks[0]
        if text in self._tasks:
            return self._tasks[text]
        msg = f"task={text!r}: the policy was trained on {', '.join(self.run_config.instructions.values())}"
        raise HilDaftError(msg)


def _row(values: Any, row: int) -> str | None:
    if values is None or isinstance(values, str):
        return values
    return str(values[row])


def _image(image: Tensor) -> np.ndarray:
    """(3, h, w) in [0, 1] to (h, w, 3) bytes."""
    bytes_ = (image.detach().cpu().float() * 255.0).round().clamp(0, 255).to(torch.uint8)
    return bytes_.permute(1, 2, 0).contiguous().numpy()


def _command(words: str) -> RefinementCommand:
    if words in PHRASES:
        return RefinementCommand.from_index(PHRASES.index(words))
    command = parse_phrase(words) if words else NULL_COMMAND
    if command is None:
        msg = f"command={words!r}: not understood; try it with `hildaft talk {words!r}`"
        raise HilDaftError(msg)
    return command


def _run_config(config: HildaftConfig) -> RunConfig:
    if not config.run_config:
        msg = (
            "policy hildaft: no run in its config; give --policy.path=FOLDER, a folder that"
            " `hildaft export-policy RUN --out FOLDER` wrote"
        )
        raise HilDaftError(msg)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config.run_config, encoding="utf-8")
        return read_config(path)
