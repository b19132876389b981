"""A sweep over a Ray cluster (extra `ray`): one task per run. The sweep folder has to be on storage all nodes share."""

import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from hildaft.eval.sweep import Ending, Job, Launcher, run_job
from hildaft.types import HilDaftError


def run_on_ray(address: str, cpus: float, gpus: float) -> Launcher:
    """A launcher over the cluster at this address; "local" starts one on this machine.

    `cpus` and `gpus` are reserved for each run.

    Raises:
        HilDaftError: Ray is not installed, or the cluster does not answer.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        msg = "ray is not installed: pip install 'hildaft[ray]', here and on every node, or leave --ray away"
        raise HilDaftError(msg) from error
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        msg = f"ray cluster {address!r}: {str(error).splitlines()[0]}; give `local`, `auto` or HOST:PORT"
        raise HilDaftError(msg) from error

    def launch(jobs: Sequence[Job], stop: threading.Event) -> Iterator[Ending]:
        # A run that loses its node is not begun again by Ray: the same command goes on from its checkpoint.
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run)
        waiting = {remote.remote(job): job for job in jobs}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=0.5)
                for reference in done:
                    yield _ending(ray, reference, waiting.pop(reference))
                if stop.is_set():
                    for reference in waiting:
                        # As Ctrl-C in the task, which then stops its run in good order.
                        ray.cancel(reference, force=False)
                    yield from (_ending(ray, reference, job) for reference, job in waiting.items())
                    waiting = {}
        finally:
            ray.shutdown()

    return launch


def _run(job: Job) -> Ending:
    stop = threading.Event()
    ending: list[Ending] = []
    # In a thread: Ray's cancellation is an exception in this one, which then tells the other.
    worker = threading.Thread(target=lambda: ending.append(run_job(job, stop)), name="run")
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.2)
    except KeyboardInterrupt:
        stop.set()
        worker.join()
    return ending[0]


def _ending(ray: Any, reference: object, job: Job) -> Ending:  # noqa: ANN401 - Ray has no types here
    try:
        ending: Ending = ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return Ending(job=job, state="stopped")
    except ray.exceptions.RayError as error:
        return Ending(job=job, state="failed", reason=f"ray: {str(error).splitlines()[0]}")
    return ending
