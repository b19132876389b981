"""The bolt bench: an embedded MuJoCo simulation of the paper's three tasks.

Importing this package registers `hildaft/BoltUpright-v0`, `hildaft/BoltPick-v0` and
`hildaft/BoltAssemble-v0` with Gymnasium; it loads neither MuJoCo nor OpenGL.
"""

from gymnasium.envs.registration import register

for _name, _task in (("Upright", "upright"), ("Pick", "pick"), ("Assemble", "assemble")):
    register(
        id=f"hildaft/Bolt{_name}-v0",
        entry_point="hildaft.robots.bolt_sim.env:BoltEnv",
        kwargs={"task": _task},
    )
