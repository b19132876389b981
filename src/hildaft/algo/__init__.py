"""The method: losses, the dual actor and Algorithm 1."""
