"""How a command that runs for long is stopped."""

import signal
import threading


def stop_on_signals(*more: signal.Signals) -> threading.Event:
    """Set by the first Ctrl-C, SIGTERM or signal named; the second ends the process, and a robot is still stopped."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM, *more):
        # What `nohup` has switched off stays off.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)
    return stop
