"""Steps per second and core of the bolt bench, both cameras rendered, in one process and in two at once.

`python benchmarks/sim_cost.py [--steps 300]` prints JSON; `sim.py` has the rest that is measured of the bench.
"""

import argparse

from common import Figure, write_out
from sim import measure_cost


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="per process")
    measured = measure_cost(parser.parse_args().steps)
    figures = {
        f"sim.steps_per_core_s{suffix}": Figure(
            cost["steps_per_cpu_s"],
            "1/s",
            round(1000 / cost["cpu_ms_p90"], 1),
            round(1000 / cost["cpu_ms_p10"], 1),
            f"CPU time, both cameras, {processes}; mean, 10th and 90th percentile",
        )
        for suffix, processes, cost in (
            ("", "one process", measured["processes_1"]),
            ("_two", "two processes", measured["processes_2"]),
        )
    }
    write_out(figures, measured)


if __name__ == "__main__":
    main()
