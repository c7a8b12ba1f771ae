"""The ablations: one file per question. `variants` lists the rows, `contrasts` the pairs that differ in one factor."""
