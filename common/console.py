"""What a script prints, with any terminal or none."""

import os
import sys
from typing import TextIO

from tqdm import tqdm


def prepare() -> None:
    """Makes a character that the terminal's encoding lacks print as a question mark, and output to a closed stream
    (`>&-`) go nowhere, instead of ending in a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(message: str) -> None:
    """Writes a line to stdout, above a progress bar. If stdout is closed, the run goes on in silence."""
    try:
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()
    except (OSError, ValueError):  # a closed pipe, or a closed stream
        sys.stdout = _nowhere()


def note(message: str) -> None:
    """Writes a line to stderr about something that is not an error."""
    print(f"note: {message}", file=sys.stderr)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
