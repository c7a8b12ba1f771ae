"""Where stages are built other than by this machine's own workers, one file for each engine."""
