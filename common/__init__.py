"""What the experiments share. Imports point from left to right:

    cli -> checks, flags, teachers -> budget, training, distillation -> evaluation, samplers -> objective -> losses -> fast
    grid -> cli, report, teachers    report, analysis -> runs, data, networks    training -> folding -> networks -> fast
    export -> predict, report, runs, data     predict -> runs, networks, datasets
    runs -> provenance, console, files, schema -> errors, experiments                 data -> datasets, memory

`augment`, `streams` and `seeds` are what batches are drawn with; `machine` and `startup` set a process up. In
`recipes` are values of flags. `annotation`, `proposal` and `survey` are for a user's own images.
"""

from common import startup  # noqa: F401 - before torch
