"""Intervals, contrasts, verdicts and nulls for values measured on the same items under several seeds.

Values are [S, N]: S training seeds crossed with N items. An item is what was sampled independently, a test image.
Samples, and the trials of several subjects who saw the same image, are first averaged within the item (a third axis is
averaged here). Results generalise to new images and new trainings, for these subjects. See docs/statistics.md.

anova: analysis of variance and its intervals; shares: intervals near 0 and 1; moderation: variances over seeds from all
rows of a table; families: verdicts on contrasts; design: what is detectable; nulls; order: agreement with the paper.
"""

from bench.statistics.anova import Anova, Interval, Unpaired, crossed_interval, paired_contrast
from bench.statistics.design import MOST_SEEDS, detectable, power, seeds_for
from bench.statistics.families import LEAST_ITEMS, SIZES, Verdict, holm, verdicts, verdicts_over_worlds
from bench.statistics.moderation import Pool, can_pool
from bench.statistics.nulls import Null, mcnemar, permutation_null
from bench.statistics.order import Agreement, agreements, kendall, resolved_signs
from bench.statistics.shares import balanced_interval, share_difference, share_interval

__all__ = [
    "LEAST_ITEMS", "MOST_SEEDS", "SIZES", "Agreement", "Anova", "Interval", "Null", "Pool", "Unpaired", "Verdict",
    "agreements", "balanced_interval", "can_pool", "crossed_interval", "detectable", "holm", "kendall", "mcnemar",
    "paired_contrast", "permutation_null", "power", "resolved_signs", "seeds_for", "share_difference",
    "share_interval", "verdicts", "verdicts_over_worlds",
]
