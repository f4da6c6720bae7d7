from common import entry
from common.export import main

entry.run(main)
