from common import entry
from common.grid.runner import main

entry.run(main, "stopped; the same command goes on")
