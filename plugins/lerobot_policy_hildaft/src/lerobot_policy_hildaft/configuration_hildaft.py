"""The policy's config as LeRobot saves and reads it; `hildaft export-policy` writes it."""

from dataclasses import dataclass, field

from lerobot.configs import PreTrainedConfig

ACTION_NAMES = ("dx.vel", "dy.vel", "dz.vel", "droll.vel", "dpitch.vel", "dyaw.vel", "gripper.pos")
"""Each in [-1, 1]: shares of the action scale along and about base axes; the gripper closes above 0."""

_BY_HILDAFT = (
    "trained by `hildaft train` or `hildaft learner`; LeRobot runs it and does not train it"
)


@PreTrainedConfig.register_subclass("hildaft")
@dataclass
class HildaftConfig(PreTrainedConfig):
    """A run of HiL-DAFT, ready to act."""

    run_config: str = ""
    """The run's config.yaml: it names the frozen encoders and the shape of the actors."""
    command: str = ""
    """What a person says throughout, such as "move left"; "" for silence."""
    seed: int = 0
    """Of the actors' noise; each reset goes on from there."""
    action_feature_names: list[str] = field(default_factory=lambda: list(ACTION_NAMES))
    """Order of the action's entries."""

    @property
    def observation_delta_indices(self) -> None:
        """One observation is enough."""
        return

    @property
    def action_delta_indices(self) -> None:
        """One action at a time."""
        return

    @property
    def reward_delta_indices(self) -> None:
        """None are read."""
        return

    def get_optimizer_preset(self) -> None:
        """Raises: LeRobot does not train this policy."""
        raise NotImplementedError(_BY_HILDAFT)

    def get_scheduler_preset(self) -> None:
        """None: nothing is trained here."""
        return

    def validate_features(self) -> None:
        """Raises ValueError without both cameras and the gripper's state."""
        wanted = {"observation.images.head", "observation.images.wrist", "observation.state"}
        if missing := sorted(wanted - set(self.input_features or {})):
            msg = f"policy hildaft: {', '.join(missing)} missing from the inputs; --rename_map maps other names"
            raise ValueError(msg)
