"""Runs a main.py in its own process, without the seconds that importing torch takes each time.

The standard library's fork server imports torch and the project once and forks at each `launch`: a child has its own
folder, arguments, output and exit status, and can be killed. `fresh=True` is `python main.py` itself, with imports.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["common.cli", "common.plan", "common.teachers", "sklearn.datasets"])
SECONDS = 300


def launch(
    method: str, *words: str, code: str = "", folder: Path = ROOT / "AlexNet" / "CIFAR10", fresh: bool = False
) -> CompletedProcess:
    """Runs a main.py from its own folder in `folder`; `code` runs before it, in the same process."""
    command = [sys.executable, "main.py", *words]
    if fresh:
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            command, cwd=folder / method, capture_output=True, text=True, env=environment, timeout=SECONDS
        )
    with tempfile.TemporaryDirectory() as output:
        process = SERVER.Process(target=_be_main, args=(str(folder / method), words, code, output))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, SECONDS)
        printed = (Path(output, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return CompletedProcess(command, process.exitcode, *printed)


def begin(method: str, *words: str, folder: Path = ROOT / "AlexNet" / "CIFAR10") -> multiprocessing.Process:
    """Starts a main.py and discards its output; the caller waits for the process, or kills it."""
    process = SERVER.Process(target=_be_main, args=(str(folder / method), words, "", None))
    process.start()
    return process


def _be_main(folder: str, words: tuple[str, ...], code: str, output: str | None) -> None:
    """In the child: what the interpreter does for `cd folder && python main.py words`."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        path = os.path.join(output, name) if output else os.devnull
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.chdir(folder)
    sys.argv = ["main.py", *words]
    warnings.simplefilter("ignore")
    exec(code, {"__name__": "before_main"})
    runpy.run_path("main.py", run_name="__main__")
