"""Subjects: Full on each subject alone, and on all together.

    bench run --ablation subjects

The paper uses subject 4 alone (Sec. 4.1). --subjects all does the same for any other ablation.
"""

from ablations.table2 import full
from bench import On

variants = [*(On(full, f"subject {who}", subjects=(who,)) for who in range(1, 7)),
            On(full, "all subjects", subjects=(1, 2, 3, 4, 5, 6))]
contrasts = [(f"subject {who}", "subject 4") for who in (1, 2, 3, 5, 6)]
