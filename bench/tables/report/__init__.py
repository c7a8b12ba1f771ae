"""Reports: a self-contained HTML page for each ablation, from its results and, where it is stored, from the store."""
