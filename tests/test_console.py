"""What a script shows while it works: on a terminal a line that fits it, elsewhere only the log's lines."""

import fcntl
import os
import pty
import select
import struct
import termios

from common import distillation, networks
from common.runs import Run

from .conftest import parse

LABEL = "round 12/20 (100000 labels, 100%)"


def test_the_progress_bar_fits_80_columns(monkeypatch):
    """On a real terminal of 80 columns, with the longest value of every field."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Run.bar(None, 1_000_000, 10, LABEL) as bar:
            bar.start_t -= 3600
            bar.update(100)
            bar.set_postfix(epoch="100/100", loss="1.23e+03", val="100.00")
        text = b""
        while select.select([master], [], [], 1.0)[0]:  # output arrives in parts
            text += os.read(master, 10_000)
    shown = text.decode().replace("\x1b[A", "").split("\r")
    os.close(master)
    assert max(map(len, shown)) <= 80, shown
    last = next(line for line in shown if "val" in line)
    assert last.startswith("round 12/20, epoch=100/100, loss=1.23e+03, val=100.00 |") and last.endswith(" left")


def test_without_a_terminal_there_is_no_bar(capsys, random_images):
    with Run.bar(None, 10, 0, LABEL) as bar:
        bar.update(10)
        bar.refresh()
    distillation.compute(networks.build(parse("KD"), "teacher").eval(), random_images)
    assert capsys.readouterr() == ("", "")
