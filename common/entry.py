"""How a script ends: any error as one line and an exit status."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from common import console, startup
from common.errors import InputError, LabelsNeeded, reason


def run(
    main: Callable[[], None], stopped: str = "stopped", smaller: str = "fewer images at a time, or smaller ones"
) -> None:
    """Runs a script's `main`. Bad input ends with one line and status 2, Ctrl-C with 130, and a run that waits for
    labels with a line that says which, and status 3.

    Args:
        stopped: the answer to Ctrl-C: how to go on, if possible.
        smaller: what would need less memory, suggested if it runs out.
    """
    startup.interruptible()
    console.prepare()
    try:
        main()
    except LabelsNeeded as error:
        console.say(str(error))
        sys.exit(3)
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:  # a full disk, say; files already written are whole
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except torch.OutOfMemoryError:
        _fail(f"the GPU's memory is full; use {smaller}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        _fail(f"memory does not suffice ({reason(error)}); use {smaller}")
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    script = Path(sys.argv[0])
    module = script.stem in ("__main__", "__init__")  # python -m common.export
    print(f"{script.parent.name if module else script.name}: error: {message}", file=sys.stderr)
    sys.exit(2)
