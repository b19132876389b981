"""Who goes first where robots and their learner share a machine: the robots. A control step is due in 100 ms."""

import contextlib
import os
import sys
from typing import Final

YIELD: Final = 10
"""Added to the niceness: a robot's process, when it wakes, runs at once and gets nine tenths of a contended core."""


def yield_to_robots() -> None:
    """Makes the calling thread, and the threads it starts, give way to the robots of this machine.

    It gets less of a contended core, and where there are several cores, one is left to the robots: niceness counts
    within a session only (autogroups), so a learner and a worker in two terminals would get equal shares without.
    Linux tells threads apart; elsewhere nothing is done. What is not permitted is left as it is.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, min(19, niceness + YIELD))
    with contextlib.suppress(OSError):
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            os.sched_setaffinity(0, cores - {min(cores)})
