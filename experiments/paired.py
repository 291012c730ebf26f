# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Means, standard deviations and paired differences over seeds.

A measurement is a dict with group, label, seed, metric and value (None: diverged or failed).
"""
import math
from statistics import mean, stdev

# Student's t at .975 for 1, 2, ... degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
         2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
         2.052, 2.048, 2.045, 2.042)


def confidence_interval(values):
    """The 95 % interval of the mean by Student's t; None for fewer than two values."""
    if not 2 <= len(values) <= len(T_975) + 1:
        return None
    half = T_975[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def by_seed(measurements):
    """{(metric, group, label): {seed: value}} in the order of the measurements."""
    table = {}
    for m in measurements:
        table.setdefault((m["metric"], m["group"], m["label"]), {})[m["seed"]] = m["value"]
    return table


def summarize(measurements, baselines):
    """A row for each metric, group and label, and for each baseline that it is compared with."""
    table = by_seed(measurements)
    rows = []
    for (metric, group, label), seeds in table.items():
        values = [v for v in seeds.values() if v is not None]
        row = dict(metric=metric, group=group, label=label, seeds=len(seeds),
                   without_value=len(seeds) - len(values),
                   mean=mean(values) if values else None,
                   sd=stdev(values) if len(values) > 1 else None)
        compared = [dict(baseline=b, **difference(seeds, table[metric, group, b]))
                    for b in baselines if b != label and (metric, group, b) in table]
        rows += [row | c for c in compared] or [row]
    return rows


def difference(seeds, baseline):
    """This less the baseline, over the seeds that have both."""
    pairs = [(seeds[s], baseline[s]) for s in seeds if s in baseline]
    if not pairs or any(None in pair for pair in pairs):
        return dict(difference=None, ci_low=None, ci_high=None)
    differences = [a - b for a, b in pairs]
    low, high = confidence_interval(differences) or (None, None)
    return dict(difference=mean(differences), ci_low=low, ci_high=high)
