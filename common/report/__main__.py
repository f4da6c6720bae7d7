from common import cli
from common.report import main

cli.start(main)
