"""Runs plans: workers on this machine, jobs of Slurm, tasks of Ray."""
