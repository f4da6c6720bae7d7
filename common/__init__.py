"""What the experiments share. Imports point one way:

cli -> plan, budget -> teachers -> training -> distillation, samplers, networks -> augment, data
-> datasets -> files, errors
"""
