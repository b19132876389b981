"""The person's side: devices, the simulated operator, and tweaks turned into words."""
