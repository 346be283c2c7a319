"""Search spaces for `rkbench sweep`: see `distributions.py` for how one is written."""
