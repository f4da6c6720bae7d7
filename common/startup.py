"""Before torch is imported: how its threads wait, and Ctrl-C during the seconds the import takes.

torch's wheels ship GNU OpenMP, which reads OMP_WAIT_POLICY when loaded. If unset, a thread that waits for others spins,
and takes its core from processes that need it: two EnCoDe runs of two threads each on two cores processed 378 images a
second each, 1,066 with PASSIVE, where waiting threads sleep. A run alone is at least a tenth faster with spinning
threads. So threads sleep only in a run that starts on a busy machine.
"""

import os
import signal
import sys
import time
from pathlib import Path

from common.experiments import ROOT


def busy(looks: int = 3, apart: float = 0.01) -> bool:
    """Do others use at least half of this machine's cores, at each of `looks` looks, `apart` seconds apart?"""
    for look in range(looks):
        time.sleep(apart if look else 0)
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1  # without this process
        except (OSError, ValueError, IndexError):  # not Linux
            return False
        if running < (os.cpu_count() or 1) / 2:
            return False
    return True


def interruptible() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again, for a script that answers it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_) -> None:
    os._exit(130)  # an exception would print the import's stack, or be swallowed by it


def _is_script() -> bool:
    """Is this process one of the project's scripts, not a notebook or a test that imports it?"""
    main = Path(getattr(sys.modules["__main__"], "__file__", None) or ".").resolve()
    return (main.name == "main.py" and ROOT in main.parents) or (sys.argv[0] == "-m" and not hasattr(sys, "ps1"))


if _is_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

BUSY = _is_script() and busy()  # when this process started: later its own threads would count

if BUSY:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a user's own value wins, and GOMP_SPINCOUNT over both
