"""How a command that runs for long is stopped."""

import signal
import threading


def stop_on_signals() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; the second ends the process at once, and a robot is still stopped."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        signal.signal(number, signal.default_int_handler)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
