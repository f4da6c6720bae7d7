"""EnCoDe on SVHN: VGG11's features distilled into its compressed student, labels chosen by the sampler.

    python main.py --expt encode

Table I: row EnCoDe. If there is no teacher yet, it is trained first; `Single --network teacher` trains only the
teacher.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository root, whatever the working directory

from common import budget, cli, data, evaluation, networks, plan, runs, samplers, teachers, training

DEFAULTS = {
    "model": "VGG",
    "method": "EnCoDe",
    "dataset": "svhn",
    "train_epochs": 100,
    "batch_size": 64,
    "num_images": 50000,
    "num_val": 5000,
    "initial_budget": 5000,
    "budget": 5000,
    "subset": 10000,
    "sampler": "vae",
    "lr_task": 0.01,
    "lr_dec": 0.01,
    "lr_disc": 0.001,
    "lr_vae": 0.0005,
    "feat_wt": 500,
    "logit_wt": 0.00005,
    "logit_loss": "mse",
    "distill_on": "labeled",
    "adv_wt": 0.01,
    "warmup_epochs": 10,
    "latent_dim": 32,
    "beta": 1.0,
    "seed": 2023,
}


def main(args) -> None:
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    teacher = teachers.Teacher(args, run, images)
    for this_round in budget.rounds(args, run, images):
        targets = teacher.targets(this_round)
        student = networks.build(args, "student", this_round.number)
        decoder = networks.build(args, "decoder", this_round.number)
        sampler = samplers.build(args, this_round, student, targets)
        # the student minimizes objective.task_loss; the sampler takes its own step between the student's updates
        fitted = training.fit(args, run, this_round, student, decoder, targets, sampler)
        evaluation.record(args, run, this_round, student, fitted, targets)
        this_round.query(sampler)


if __name__ == "__main__":
    cli.start(main, __doc__, DEFAULTS)
