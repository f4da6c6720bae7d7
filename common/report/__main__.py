from common import entry
from common.report import main

entry.run(main)
