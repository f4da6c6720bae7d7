"""Labels added at random, ResNet-18's features and logits distilled into ResNet-8: CIFAR-10.

    python main.py --expt kd

Not in Table I: the pair is this project's own; README says how its values below were chosen. A teacher is trained
first when there is none; `Single --network teacher` trains it alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository's root, from wherever this is run

from common import budget, cli, data, networks, plan, runs, samplers, teachers, training

DEFAULTS = {
    "model": "ResNet",
    "method": "KD",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "initial_budget": 5000,
    "budget": 5000,
    "subset": 10000,
    "sampler": "random",
    "lr_task": 0.1,
    "lr_dec": 0.01,
    "feat_wt": 10,
    "logit_wt": 0.00005,
    "seed": 2024,
}


def main(argv: list[str] | None = None) -> None:
    args = cli.parse(__doc__, DEFAULTS, argv)
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    teacher = teachers.Teacher(args, run, images)
    for round in budget.rounds(args, run, images):
        targets = teacher.targets(round)
        student = networks.build(args, "student", round.number)
        decoder = networks.build(args, "decoder", round.number)
        training.fit(args, round, student, decoder, targets)
        round.record(student)
        round.query(samplers.build(args, round, student, targets))


if __name__ == "__main__":
    cli.start(main)
