"""Labels added at random, without a teacher: ResNet-18 or ResNet-8 on SVHN.

    python main.py --expt random

Not in Table I: this project added the ResNet pair; common/README.md says how its hyperparameters were chosen.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository root, whatever the working directory

from common import budget, cli, data, evaluation, networks, plan, runs, samplers, training

DEFAULTS = {
    "model": "ResNet",
    "method": "Random",
    "dataset": "svhn",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "initial_budget": 5000,
    "budget": 5000,
    "subset": 10000,
    "sampler": "random",
    "lr_task": 0.1,
    "seed": 2023,
}


def main(args) -> None:
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    for this_round in budget.rounds(args, run, images):
        net = networks.build(args, args.network, this_round.number)
        fitted = training.fit(args, run, this_round, net)
        evaluation.record(args, run, this_round, net, fitted)
        this_round.query(samplers.build(args, this_round, net))


if __name__ == "__main__":
    cli.start(main, __doc__, DEFAULTS)
