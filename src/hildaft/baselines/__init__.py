"""Table I's other methods, on the same code path as ours: mostly a config, DSRL with updates of its own.

docs/baselines.md names every implementation detail and departure.
"""
