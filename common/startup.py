"""Before torch is imported: how its threads wait, and Ctrl-C during the seconds that the import takes.

torch's wheels bring GNU's OpenMP, which reads OMP_WAIT_POLICY when it is loaded. Unset, a thread that waits for others
spins, here at each of thousands of operations a second. Where another process wants the core, it spins through the time
that those it waits for need: two trainings of two threads each on two cores took 6 times the CPU and 10 to 20 times the
wall time that they take with PASSIVE, where a thread sleeps; alone PASSIVE cost nothing that could be measured.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a user's own value counts, GOMP_SPINCOUNT before either


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
