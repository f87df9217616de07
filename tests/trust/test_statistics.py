"""Do 95 % intervals hold the truth in 93 to 97 % of studies, and are equal models called different in 4 to 6 %?

Studies are simulated with patients that differ: in how many lesions they have, how well these are found, how many false positives they draw, all
of a patient's together. The truth is the same quantity in a study of 100,000 patients. The measured share has a binomial interval of its own.

    pytest tests/trust/test_statistics.py                 # some studies: a share that the promise excludes fails
    python tests/trust/test_statistics.py                 # 1000 studies of each kind, about 10 minutes; exit code 1 if a promise is broken
    python tests/trust/test_statistics.py 4000 --kinds usual
"""
import argparse, sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from meld_nb.froc import Froc, compare

PATIENTS, COVER, REJECT = 100, (.93, .97), (.04, .06)     # patients a study; the promises: of 95 % intervals, and of 5 % tests
METHODS = ("expanded", "percentile")                      # of `Froc.bootstrap` and `compare`; the first is the promise, the second is for comparison
KINDS = {                                                 # lesions of each patient: [n]
    "usual": lambda g, n: 1 + g.poisson(1.5, n),
    "20 lesions": lambda g, n: (g.random(n) < .2)*1,      # as many on average
    "clustered": lambda g, n: np.where(g.random(n) < .1, g.poisson(12, n), g.random(n) < .3),   # a tenth of the patients has four fifths of the lesions
}


def patients(g, kind, n):
    "Scans, lesions, and how two models fare, of `n` patients: lesions [n]; for each model the scores of hits (-1: missed) and false positives, with their patients."
    lesions, difficulty, noise = KINDS[kind](g, n).astype(int), g.normal(0, 1, n), g.gamma(2, 1, n)
    owner = np.repeat(np.arange(n), lesions)
    own = difficulty[owner] + g.normal(0, .7, len(owner))                    # what makes a lesion hard is the same for both models
    models = []
    for _ in range(2):
        chance = 1/(1 + np.exp(-(.4 - own + g.normal(0, .5, len(owner)))))
        hit = np.where(g.random(len(owner)) < chance, np.clip(g.beta(3, 2, len(owner)) - .08*own, 1e-6, 1), -1.)
        false = np.repeat(np.arange(n), g.poisson(4*noise))
        models.append((hit, false, g.beta(2, 4, len(false))))
    return lesions, owner, models


def curve(n, owner, hit, false_owner, false_score):
    "A `Froc` of `n` patients with a volume each, from scores of hits (-1: missed) and false positives."
    found = np.flatnonzero(hit >= 0)
    score, volume = np.r_[hit[found], false_score], np.r_[owner[found], false_owner].astype(int)
    order = np.argsort(-score, kind="stable")
    place = np.empty(len(order), int); place[order] = np.arange(len(order))
    rank = np.full(len(owner), len(order)); rank[found] = place[:len(found)]
    return Froc(volumes=pd.RangeIndex(n), images=np.ones(n), score=score[order], volume=volume[order], fp=order >= len(found), truth_volume=owner, hit=rank, outcome=None)


@cache
def truth(kind):
    "Average sensitivity and sensitivity at 1 FP per image in a study of 100,000 patients."
    g = np.random.default_rng(99)
    _, owner, ((hit, false, score), _) = patients(g, kind, 100_000)
    f = curve(100_000, owner, hit, false, score)
    return f.average, float(f.at(1))


def covered(kind, draws, seed, methods=METHODS):
    "Do the intervals of a simulated study hold the truth: for each method, of the average, and at 1 FP?"
    _, owner, ((hit, false, score), _) = patients(np.random.default_rng((1, seed)), kind, PATIENTS)
    f = curve(PATIENTS, owner, hit, false, score)
    average, one = truth(kind)
    out = []
    for method in methods:
        t = f.bootstrap({v: v for v in range(PATIENTS)}, draws, seed, fps=[1.], method=method)
        out += [t.low[1] <= average <= t.high[1], t.low[0] <= one <= t.high[0]]
    return out


def swapped(kind, seed):
    "Two curves of a study in which two models' outputs were swapped at random by patient: neither can be the better one."
    g = np.random.default_rng((2, seed))
    _, owner, models = patients(g, kind, PATIENTS)
    swap = g.random(PATIENTS) < .5
    out = []
    for side in (swap, ~swap):
        (hit_a, false_a, score_a), (hit_b, false_b, score_b) = models
        keep_a, keep_b = ~side[false_a], side[false_b]
        out.append(curve(PATIENTS, owner, np.where(side[owner], hit_b, hit_a), np.r_[false_a[keep_a], false_b[keep_b]], np.r_[score_a[keep_a], score_b[keep_b]]))
    return out


def rejected(kind, draws, seed, methods=METHODS):
    "Are two models called different that are not: for each method?"
    return [compare(*swapped(kind, seed), {v: v for v in range(PATIENTS)}, draws, seed, method=m).p < .05 for m in methods]


def measure(what, kind, studies, draws, workers=1):
    "Share of studies for each of the outcomes of `what`: [(share, low, high)], with exact binomial intervals (99 %)."
    job = partial(what, kind, draws)
    if workers == 1: got = list(map(job, range(studies)))
    else:
        with ProcessPoolExecutor(workers) as pool: got = list(pool.map(job, range(studies), chunksize=10))
    return [(k/studies, beta.ppf(.005, k, studies-k+1) if k else 0., beta.ppf(.995, k+1, studies-k) if k < studies else 1.) for k in np.sum(got, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover(kind):
    for share, low, high in measure(partial(covered, methods=METHODS[:1]), kind, 150, 200): assert low <= COVER[1] and high >= COVER[0], (share, low, high)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_models_are_called_equal(kind):
    (share, low, high), = measure(partial(rejected, methods=METHODS[:1]), kind, 150, 200)
    assert low <= REJECT[1] and high >= REJECT[0], (share, low, high)


def test_the_simulation_has_the_lesions_it_says():
    for kind, most in (("usual", 3), ("20 lesions", 1)):
        n = KINDS[kind](np.random.default_rng(0), 10_000)
        assert abs(n.mean() - (2.5 if kind == "usual" else .2)) < .05
    n = np.sort(KINDS["clustered"](np.random.default_rng(0), 10_000))[::-1]
    assert .75 < n[:1000].sum()/n.sum() < .9
    for kind in KINDS: assert .3 < truth(kind)[0] < .8


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("studies", type=int, nargs="?", default=1000)
    ap.add_argument("--draws", type=int, default=1000, help="bootstrap draws a study")
    ap.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    ap.add_argument("--workers", type=int, default=2)
    args = ap.parse_args()
    print(f"{args.studies} studies of {PATIENTS} patients, {args.draws} draws each; share, its exact 99 % interval, promise\n")
    bad = 0
    rows = [(f"{q} covered, {m}", m) for m in METHODS for q in ("average sensitivity", "sensitivity at 1 FP")]
    for what, rows, (lo, hi) in ((covered, rows, COVER), (rejected, [(f"equal models called different, {m}", m) for m in METHODS], REJECT)):
        for kind in args.kinds:
            for (name, method), (share, low, high) in zip(rows, measure(what, kind, args.studies, args.draws, args.workers)):
                kept = lo <= share <= hi
                bad += not kept and method != METHODS[1]
                print(f"{kind:<12}{name:<42}{share:>7.1%}  [{low:.1%}, {high:.1%}]  {lo:.0%} to {hi:.0%}  {'kept' if kept else 'not kept, nor promised' if method == METHODS[1] else 'BROKEN'}", flush=True)
    print(f"{args.studies} studies of each of {len(args.kinds)} kinds, {bad} promises broken")
    return int(bad > 0)


if __name__ == "__main__": sys.exit(main())
