"""Before torch is imported: Ctrl-C during the seconds that takes ends a script without a traceback."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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
