"""Kills a writing process at the worst moment: while its temporary file is there."""

import os
import signal
import time


def kill_while_writing(process, folder, deadline_s=240.0):
    """Stops the process until it is caught with a temporary file, then kills it; False if never."""
    end = time.monotonic() + deadline_s
    caught = False
    while not caught and time.monotonic() < end:
        if any(folder.glob(".writing-*")):
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            # Only a process that stands still shows whether the file is still unfinished.
            caught = any(folder.glob(".writing-*"))
            if not caught:
                os.kill(process.pid, signal.SIGCONT)
        else:
            time.sleep(0.0002)
    os.kill(process.pid, signal.SIGKILL)
    return caught
