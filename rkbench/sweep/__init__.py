"""Tuning that is fair: a search space, equal budgets, and a choice on held-out examples.

    space -> sampling -> plan (trials as configs) -> train -> results (choice, warnings)

Every trial is an ordinary run in a folder of its own, and all that is concluded from them is read
from these folders: `sweep.json` only says in one place what they hold.
"""
