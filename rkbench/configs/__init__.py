"""Configs: `configs/<workload>.py:<optimizer>[,full][,key=value...]`; see `configs/common.py`."""
