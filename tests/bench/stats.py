# SPDX-License-Identifier: LGPL-2.1-or-later
"""Medians, bootstrap intervals and the table of the benchmarks (method: paired, interleaved, gate on the interval)."""

import random
import statistics

RESULTS = []


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
    print(f"# {'figure':50} {'ours':>14} {'baseline':>14} {'ratio [95 %]':>22} {'bound':>9}", flush=True)


def _tell(good, text):
    RESULTS.append(good)
    print(f"{'ok' if good else 'not ok'} {len(RESULTS)} - {text}", flush=True)


def failed():
    return not all(RESULTS)


def row(name, ours, baseline, unit, bound, scale=1.0):
    """Paired samples: the median of the pairs' ratios against the bound; missed only when the whole interval is beyond it."""
    middle, low, high = bootstrap(ratios(ours, baseline))
    _tell(low <= bound,
          f"{name:46} {statistics.median(ours) * scale:11.2f} {unit:2} {statistics.median(baseline) * scale:11.2f} {unit:2} "
          f"{middle:7.3f} [{low:.3f}, {high:.3f}] {'<= ' + format(bound, 'g'):>9} n={len(ours)}{' (near)' if low <= bound < high else ''}")


def absolute(name, value, unit, bound, note="", low=None):
    """One figure with a bound of its own; low: the lower end of its interval, which decides where there is one."""
    _tell((value if low is None else low) <= bound,
          f"{name:46} {value:11.3f} {unit:3} {'':14} {'':22} {'<= ' + format(bound, 'g'):>9} {note}")
