"""Before torch is imported: how its threads wait, and Ctrl-C during the seconds that the import takes.

torch's wheels bring GNU's OpenMP, which reads OMP_WAIT_POLICY when it is loaded. Unset, a thread that waits for others
spins. Where another process wants the core, it spins through the time that those it waits for need: two EnCoDe runs
with two threads each on two cores did 378 images a second each, 1,066 with PASSIVE, where a waiting thread sleeps. A run
that is alone is a tenth faster spinning (2,011 and 1,645 to 2,093). So a run that starts on a busy machine sleeps.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load() -> float:
    """How many threads want a core now, this process left out: over the last minute or at this moment, the larger."""
    try:
        now = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1
        return max(os.getloadavg()[0], now)
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        return 0.0


def busy() -> bool:
    """Do others use more than half of this machine's cores?"""
    return load() > (os.cpu_count() or 1) / 2


def interruptible() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again, for a script that answers it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_) -> None:
    os._exit(130)  # an exception would print the import's stack, or be swallowed by it


def _is_script() -> bool:
    """Is this process one of the project's scripts, and not a notebook or a test that imports it?"""
    main = Path(getattr(sys.modules["__main__"], "__file__", None) or ".").resolve()
    return (main.name == "main.py" and ROOT in main.parents) or (sys.argv[0] == "-m" and not hasattr(sys, "ps1"))


if _is_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

BUSY = busy()  # when this process started: later its own threads count

if BUSY:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a user's own value counts, GOMP_SPINCOUNT before either
