"""The rooms of the trainer: experiment, loop, evaluation, checkpoints, faults."""
