"""The durable episode store and the replay buffer."""
