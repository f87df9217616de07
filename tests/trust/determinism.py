"""The same seed on the same machine makes the same bytes of every table, array and checkpoint: again, and with 0, 1 or 2 loading processes. With other numbers of threads, the same within a tolerance.

    python tests/trust/determinism.py                 # the micro-study five times, about 8 minutes on two cores
    python tests/trust/determinism.py --ways again    # one comparison only

What threads may change: they add in another order, which moves a number by a few of its last bits. Training has one thread whatever the environment
says, so checkpoints stay the same bytes; tables of what a detector finds may differ by TOLERANCE of their largest number, and in no row.
"""
import argparse, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from kills import PROFILE, compare, results
from meld_nb.core import read_json

TOLERANCE = 1e-4
LOADERS = ("25_meld", "60_finetune")     # chapters of the micro-study that take `workers`
WAYS = {                                 # name: (options of `meld run`, environment)
    "again": ([], {}),
    "1 loading process": ([o for c in LOADERS for o in ("--set", f"{c}.workers=1")], {}),
    "2 loading processes": ([o for c in LOADERS for o in ("--set", f"{c}.workers=2")], {}),
    "2 threads": ([], dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")),
}


def study(run, options=(), env={}):
    "Run the micro-study: what it said if it failed."
    done = subprocess.run(["meld", "run", "--profile", str(PROFILE), "--run", str(run), *options], capture_output=True, text=True, env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1") | env)
    return done.stdout + done.stderr if done.returncode else ""


def apart(a, b):
    "Largest difference of the numbers of two files over their largest number; inf if they differ in anything else."
    if a.suffix == ".npy": x, y = np.load(a), np.load(b)
    else:
        x, y = (pd.read_parquet(p) if p.suffix == ".parquet" else pd.read_csv(p).drop(columns="seconds", errors="ignore") for p in (a, b))
        text = [c for c in x if not pd.api.types.is_numeric_dtype(x[c])]
        if list(x) != list(y) or len(x) != len(y) or not x[text].astype(str).equals(y[text].astype(str)): return np.inf
        x, y = (t.drop(columns=text) for t in (x, y))
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or (np.isnan(x) != np.isnan(y)).any(): return np.inf
    return float(np.nanmax(np.abs(x - y)/np.maximum(np.nanmax(np.abs(x), axis=0), 1e-12))) if x.size and not np.isnan(x).all() else 0.


def near(whole, run):
    "Problems; and prints how far apart the two are."
    a, b = results(whole), results(run)
    differ = [f for f in sorted(a.keys() | b.keys()) if a.get(f) != b.get(f)]
    off = {f: np.inf if f not in a or f not in b or f.endswith(".safetensors") else apart(whole/f, run/f) for f in differ}
    print(f"{len(a) - len(off)} of {len(a)} files are the same bytes; the others differ by at most {max(off.values(), default=0):.1e} of their largest number (allowed: {TOLERANCE:g})")
    yield from (f"{f}: differs by {d:.1e} in {run.name}" for f, d in off.items() if d > TOLERANCE)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    began, problems = time.time(), []
    with tempfile.TemporaryDirectory() as tmp:
        ways = ap.parse_args().ways
        whole = Path(tmp)/"whole"
        if said := study(whole): print(said); return 1
        n = len(results(whole))
        for name in ways:
            run = Path(tmp)/name.replace(" ", "_")
            if "loading" in name:                               # data, LesaNet and trunk are there; MELD and what follows runs anew
                shutil.copytree(whole, run, ignore=shutil.ignore_patterns(".snakemake"))
                for p in run.glob("[0-9][0-9]"):
                    if p.name not in ("10", "15", "18"): shutil.rmtree(p)
            if said := study(run, *WAYS[name]): print(said); return 1
            workers = {read_json(p)["parameters"]["workers"] for c in LOADERS for p in run.glob(f"{c[:2]}/**/record.json")}
            if workers != {int(name[0]) if "loading" in name else 0}: print(f"{name}: ran with {workers} loading processes"); return 1
            own = list((near if "threads" in name else compare)(whole, run))
            print(f"{name}: {n} tables, arrays and checkpoints, {'as they should be' if not own else f'{len(own)} are not'}", flush=True)
            problems += own
    for p in problems: print(p)
    print(f"{n} files compared in {len(ways)} ways, {len(problems)} problems, {time.time()-began:.0f} s")
    return int(bool(problems))


if __name__ == "__main__": sys.exit(main())
