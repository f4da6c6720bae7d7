"""Runs one job in this process. As a script it is a process of `--jobs`: the job comes through stdin, which stays open
for as long as the grid lives; an error goes to the file descriptor given on the command line.
"""

import os
import pickle
import signal
import sys
import threading
import time
import traceback

from common import machine, teachers
from common.errors import InputError, LabelsNeeded
from common.experiments import script
from common.grid.jobs import Job

GRACE = 10  # seconds a run has to end by itself; if killed, its files are intact but temporary ones stay
WAITS = "waits for labels: "


def execute(job: Job) -> str:
    """Runs the job's main.py, or trains its teacher, here; returns its error in one line, or an empty string.

    The line of a run that waits for labels begins with WAITS.
    """
    try:
        args = job.args()
        machine.prepare(args)
        if job.teacher:
            teachers.provide(args)
        else:
            script(job.model, job.dataset, job.method).main(args)
    except LabelsNeeded as error:
        return f"{WAITS}{error}"
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    except Exception as error:  # an error in one run must not end the others
        traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def main() -> None:
    job, outcome = pickle.load(sys.stdin.buffer), int(sys.argv[1])
    os.set_inheritable(outcome, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the grid was started with & in a script
    threading.Thread(target=_end_with_the_grid, daemon=True).start()
    try:
        os.write(outcome, execute(job).encode())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end_with_the_grid() -> None:
    """Interrupts the run when stdin closes: the grid was stopped, or its process died."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin's own reader, whose lock would be held when the process ends
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
