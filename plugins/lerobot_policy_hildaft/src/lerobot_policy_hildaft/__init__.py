"""Registers HiL-DAFT's policy, bench and arms with LeRobot, which imports this package because of its name.

LeRobot finds the policy itself and its processors by the names of their modules, when they are needed.
"""

from lerobot_policy_hildaft.configuration_hildaft import HildaftConfig
from lerobot_policy_hildaft.env_hildaft import HildaftBoltEnvConfig
from lerobot_policy_hildaft.robot_hildaft import HildaftRobot, HildaftRobotConfig

__all__ = ["HildaftBoltEnvConfig", "HildaftConfig", "HildaftRobot", "HildaftRobotConfig"]
