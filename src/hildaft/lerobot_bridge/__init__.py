"""LeRobot's arms and teleoperators as ours, through its abstract protocols alone."""
