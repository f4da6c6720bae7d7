"""What the experiments share. Imports point from left to right:

    cli -> checks, flags, teachers -> budget, training, distillation -> evaluation, samplers -> objective -> losses
    grid -> cli, report, teachers      report, analysis -> reading, runs, data, networks       losses, networks -> fast
    export -> predict, report, runs, data     predict -> reading, runs, networks, datasets     training -> folding
    runs -> provenance, console, files, schema -> errors, experiments                 data -> datasets, memory

`augment`, `streams` and `seeds` draw batches; `machine` and `startup` set a process up, which ends in `entry`.
`recipes` holds values of flags. `annotation`, `proposal` and `survey` are for a user's own images.
"""

from common import startup  # noqa: F401 - before torch
