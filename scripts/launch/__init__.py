"""Starts runs on machines elsewhere: TPU VMs, GKE or SLURM. `python -m scripts.launch --help`.

Needs Python 3.11 and the tool of the place (`gcloud`, `kubectl` or `sbatch`), neither JAX nor an
installed rkbench.

    jobs.py      what is to run: the manifest's entries
    source.py    which rkbench the machines install
    kit.py       the files that a machine starts from
    bucket.py    where results and reports of a run lie
    tpu.py       TPU VMs, by queued resources       } each knows the commands of its place
    gke.py       GKE, by JobSets                    }
    watch.py     a machine a run: start, look, start again, delete, for these two
    slurm.py     SLURM, by a job array, which needs no watching
    agent.py     what runs on a TPU VM or in a GKE container: it knows nothing of the rest
"""
