"""The compiled training step: one step, repeated by a program, fed with examples, over devices."""
