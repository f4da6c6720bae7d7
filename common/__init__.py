"""What the experiments share. Imports point from the left to the right:

cli -> flags -> teachers -> training -> evaluation, samplers, distillation -> objective -> losses
grid -> cli, report, teachers.  budget -> samplers.  All -> networks -> fast.  All -> runs -> files, schema -> errors.
Everything reads data -> datasets, and draws through augment and seeds.
"""

from common import startup  # noqa: F401 - before torch
