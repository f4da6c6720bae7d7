"""EnCoDe: ResNet-8, ResNet-18's features distilled into it, labels chosen by the sampler: CIFAR-10.

    python main.py --expt encode

Not in Table I: the pair is this project's own; README says how its values below were chosen. A teacher is trained
first when there is none; `Single --network teacher` trains it alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository's root, from wherever this is run

from common import budget, cli, data, networks, plan, runs, samplers, teachers, training

DEFAULTS = {
    "model": "ResNet",
    "method": "EnCoDe",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "initial_budget": 5000,
    "budget": 5000,
    "subset": 10000,
    "sampler": "vae",
    "lr_task": 0.1,
    "lr_dec": 0.01,
    "lr_disc": 0.001,
    "feat_wt": 10,
    "logit_wt": 0.00005,
    "warmup_epochs": 10,
    "seed": 2023,
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
        sampler = samplers.build(args, round, student, targets)
        training.fit(args, round, student, decoder, targets, sampler)
        round.record(student)
        round.query(sampler)


if __name__ == "__main__":
    cli.start(main)
