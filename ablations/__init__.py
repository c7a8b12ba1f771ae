"""The ablations: one file, one question. `variants` is the list, `contrasts` the pairs that differ in one factor."""
