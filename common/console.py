"""What a script prints: on any terminal, and on none."""

import os
import sys

from tqdm import tqdm


def prepare() -> None:
    """A character that the terminal's encoding lacks is printed as a question mark, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(message: str) -> None:
    """A line on stdout, above a progress bar. When nobody reads stdout any more, the run goes on in silence."""
    try:
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()
    except (OSError, ValueError):  # a closed pipe, or a closed stream
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
