"""What a script prints: on any terminal, and on none."""

import os
import sys
from typing import TextIO

from tqdm import tqdm


def prepare() -> None:
    """A character that the terminal's encoding lacks is printed as a question mark, and what is printed on a stream
    that is closed (`>&-`) goes nowhere: neither is a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(message: str) -> None:
    """A line on stdout, above a progress bar. When nobody reads stdout any more, the run goes on in silence."""
    try:
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()
    except (OSError, ValueError):  # a closed pipe, or a closed stream
        sys.stdout = _nowhere()


def note(message: str) -> None:
    """A line on stderr about what is no error."""
    print(f"note: {message}", file=sys.stderr)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
