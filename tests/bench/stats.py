# SPDX-License-Identifier: LGPL-2.1-or-later
"""Medians, bootstrap intervals and the table of the benchmarks (method: paired, interleaved, gate on the interval)."""

import random
import statistics

FAILED = []


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def bootstrap(values, statistic=statistics.median, rounds=2000, level=95):
    """The statistic and its interval from resampling; the seed is fixed so that a table can be made again."""
    rng = random.Random(1)
    samples = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(rounds))
    cut = (100 - level) / 200
    return statistic(values), samples[int(rounds * cut)], samples[int(rounds * (1 - cut)) - 1]


def ratios(ours, baseline):
    return [a / b for a, b in zip(ours, baseline)]


def header():
    print(f"{'figure':46} {'ours':>14} {'baseline':>14} {'ratio [95 %]':>24} {'bound':>10}  verdict")


def row(name, ours, baseline, unit, bound, scale=1.0):
    """Paired samples: the median of the pairs' ratios against the bound; misses only when the whole interval is beyond it."""
    middle, low, high = bootstrap(ratios(ours, baseline))
    verdict = "ok" if high <= bound else "near" if low <= bound else "MISSED"
    if verdict == "MISSED":
        FAILED.append(name)
    print(f"{name:46} {statistics.median(ours) * scale:11.2f} {unit:2} {statistics.median(baseline) * scale:11.2f} {unit:2} "
          f"{middle:8.3f} [{low:.3f}, {high:.3f}] {'<= ' + format(bound, 'g'):>10}  {verdict}  n={len(ours)}")


def absolute(name, value, unit, bound, note=""):
    verdict = "ok" if value <= bound else "MISSED"
    if verdict == "MISSED":
        FAILED.append(name)
    print(f"{name:46} {value:11.3f} {unit:3} {'':14} {'':24} {'<= ' + format(bound, 'g'):>10}  {verdict}  {note}")
