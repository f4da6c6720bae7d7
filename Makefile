# `make demo` and `make test` work on a fresh machine: they create .venv unless a virtual environment is active.
ifdef VIRTUAL_ENV
PYTHON := $(VIRTUAL_ENV)/bin/python
else
PYTHON := $(CURDIR)/.venv/bin/python
endif
READY := $(dir $(PYTHON))../.encode-installed

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

.PHONY: help install demo table1 fair test extras test-extras lint mutants benchmark

install: $(READY)  ## creates .venv if there is none, and installs into it
$(READY): requirements.txt
	test -x $(PYTHON) || python3 -m venv .venv
	$(PYTHON) -m pip install -q -r requirements.txt
	touch $(READY)

# All four methods on scikit-learn's digits at four budgets each, and labels counted once at three. AlexNet has no
# normalization layers, hence the small learning rates.
OUT := $(CURDIR)/runs/demo
DIGITS := --dataset digits --num_images 1438 --num_val 238 --seed 1 --save_path $(OUT) --schedule onecycle --train_epochs 5
STUDENT := $(DIGITS) --batch_size 16
BUDGET := --percents 10 20 40 100 --subset 600
DISTIL := --lr_task 0.004 --lr_dec 0.004 --feat_wt 100
DIGITS_FAIR := --recipe fair --train_epochs 20 --batch_size 32 --lr_task 0.01
DIGITS_FAIR += --teacher_epochs 4 --teacher_batch_size 16 --teacher_lr 0.01
demo: install  ## all methods on digits, a table and the curves: minutes
	cd AlexNet/CIFAR10/Single && $(PYTHON) main.py $(DIGITS) --expt teacher --network teacher --recipe quick \
		--batch_size 32 --lr_task 0.03
	cd AlexNet/CIFAR10/Single && $(PYTHON) main.py $(STUDENT) --expt single --lr_task 0.01
	cd AlexNet/CIFAR10/Random && $(PYTHON) main.py $(STUDENT) $(BUDGET) --expt random --lr_task 0.01
	cd AlexNet/CIFAR10/KD && $(PYTHON) main.py $(STUDENT) $(BUDGET) --expt kd $(DISTIL)
	cd AlexNet/CIFAR10/EnCoDe && $(PYTHON) main.py $(STUDENT) $(BUDGET) --expt encode $(DISTIL) --warmup_epochs 1
	cd AlexNet/CIFAR10/KD && $(PYTHON) main.py $(DIGITS) $(DIGITS_FAIR) --percents 10 20 40 --subset 600 --expt fair
	$(PYTHON) -m common.report $(OUT)/*-seed1 --output $(OUT)/report
	@echo
	@echo "$(OUT)/report/curves.png"
	@echo "Test accuracy on digits against the share of the labels, a line a method: the further left a line is high, the"
	@echo "fewer labels its method needs. It is one seed: a point or two between lines says nothing. The teacher of KD and"
	@echo "EnCoDe saw all labels; the line named fair counts them once: its teachers saw the labels of their round alone."

# Table I for AlexNet on CIFAR-10, three seeds, in a tenth to a fifth of the paper's epochs. To continue, run it again:
# finished runs are skipped, interrupted ones resume. At 100% there is nothing to choose: EnCoDe is KD there, byte for
# byte, unless it distils on the pool, and Baseline is the teacher.
TABLE1 := $(CURDIR)/runs/table1
GRID := $(PYTHON) -m common.grid --models AlexNet --datasets CIFAR10 --save_path $(TABLE1)
TEACHER := $(GRID) --networks teacher --recipe quick
STUDENTS := $(GRID) --batch_size 128 --lr_task 0.01 --seeds 3 --logit_loss kl --logit_wt 1
PART := --percents 10 20 30 40 50 60 --train_epochs 12 --step_size 10
FULL := --percents 100 --train_epochs 24 --step_size 20
ENCODE := --methods EnCoDe --warmup_epochs 1
table1: install  ## Table I for AlexNet on CIFAR-10, three seeds: hours
	$(TEACHER) --methods Single
	$(STUDENTS) $(PART) --methods Random KD
	$(STUDENTS) $(PART) $(ENCODE)
	$(STUDENTS) $(PART) $(ENCODE) --samplers teacher_confidence
	$(STUDENTS) $(PART) $(ENCODE) --distill_on pool --tag pool
	$(STUDENTS) $(FULL) --methods Random KD --tag full
	$(STUDENTS) $(FULL) $(ENCODE) --distill_on pool --tag pool-full
	$(TEACHER) --methods Random --percents 10 40 --subset 20000
	$(PYTHON) -m common.report $(TABLE1)/*-seed* --output $(TABLE1)/report

# Labels counted once: AlexNet on CIFAR-10, five seeds. Rows that share their labels share the teacher. To continue, run it
# again; JOBS=2 runs two in parallel. The all-seeing teacher's rows show what the paper's setting is worth.
FAIR := $(CURDIR)/runs/fair
JOBS := 1
COUNTED := $(PYTHON) -m common.grid --models AlexNet --datasets CIFAR10 --save_path $(FAIR) --recipe fair --seeds 5 --jobs $(JOBS)
ROUNDS := --percents 5 10 20 40 60 100 --subset 20000
ALONE := --distill_on labeled --ce_wt 1
SEEING := --methods KD --teacher_labels all
LONG := --train_epochs 60 --weight_decay 0.0005
fair: install  ## labels counted once, five seeds: days on a CPU (JOBS=2: two runs in parallel)
	$(COUNTED) $(ROUNDS) --methods Random
	$(COUNTED) --percents 5 10 --subset 20000 --methods Random --recipe best --tag best
	$(COUNTED) --percents 20 --subset 20000 --methods Random --recipe best --weight_decay 0.002 --tag best-20
	$(COUNTED) --percents 40 --subset 20000 --methods Random --recipe best --weight_decay 0.001 --tag best-40
	$(COUNTED) --percents 60 100 --subset 20000 --methods Random --recipe best $(LONG) --tag best-60
	$(COUNTED) $(ROUNDS) --methods KD
	$(COUNTED) --percents 5 10 20 --subset 20000 --methods KD --recipe best --tag best
	$(COUNTED) $(ROUNDS) --methods KD $(ALONE) --train_epochs 24 --tag labeled
	$(COUNTED) $(ROUNDS) --methods EnCoDe --samplers vae
	$(COUNTED) $(ROUNDS) --methods KD --sampler margin --query_by teacher --tag margin
	$(COUNTED) $(ROUNDS) --methods KD --sampler typiclust --query_by teacher --tag typiclust
	$(COUNTED) $(SEEING) --percents 10 40 --subset 20000 --tag all-seeing
	$(COUNTED) $(SEEING) --percents 10 --ce_wt 1 --tag all-seeing-labels
	$(PYTHON) -m common.report $(FAIR)/*-seed* --against "CM+KD (pool, fair, ce_wt 0)" --output $(FAIR)/report \
		--name "CM (best)" $(FAIR)/*-Random-best*-seed*

test: install  ## the tests
	$(PYTHON) -m pytest

# Export, TensorBoard and Ray need extra packages; their tests are skipped without them.
extras: install  ## the packages that export, TensorBoard and Ray need
	$(PYTHON) -m pip install -q -r requirements-extras.txt

RAY := tests/test_side_by_side.py::test_a_grid_on_ray_survives_a_killed_worker_and_ends_with_the_same_bytes
test-extras: extras  ## the tests of the extras
	$(PYTHON) -m pytest tests/test_export.py tests/test_board.py $(RAY)

lint: install  ## style checks
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Slow; afterwards `mutmut browse` shows the mutants that no test detects. One thread and no GPU:
# a process forked from a multithreaded one hangs, or fails whatever the mutant.
mutants: install  ## mutation tests: hours
	OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(dir $(PYTHON))mutmut run $(MUTANTS)
	$(dir $(PYTHON))mutmut results

benchmark: install  ## speed against a plain loop
	$(PYTHON) benchmarks/speed.py
