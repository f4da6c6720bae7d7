from common import cli
from common.export import main

cli.start(main)
