"""The paper's Table 1 and Figures 1 to 18: which runs are behind them, and how they are made.

runs.py     every run, as data           scales.py   how large it is, at each scale
table1.py   the table, from records      figures.py  the figures, as data
train.py    trains what is missing       timing.py   wall-clock runs, interleaved
plan.py     what is missing, and its cost
published.py  draws them, and makes them again from the records to be verified
"""
