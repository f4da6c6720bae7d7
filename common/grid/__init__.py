"""Many runs with one command (`python -m common.grid`), on one machine or many."""
