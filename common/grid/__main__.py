from common import cli
from common.grid.runner import main

cli.start(main)
