"""Long work and much work: does memory stay flat, does time grow with the size?

    python tests/trust/load.py                           # all of it, about 25 minutes on two quiet cores
    python tests/trust/load.py --parts growth --base .1  # on a tenth of the volumes

scans    `meld detect` on many scans in one process: memory after each; what a further scan adds at the end is at most SLOPE_MB. It finds some ten
         boxes a scan, of which pages and overlays are drawn; the rows of all are kept until they are written together.
long     `meld detect` on scans of 1,000 and 2,000 slices of 512 x 512 pixels: peak memory; of 1,000 slices at most PEAK_GB[1000].
growth   phantom, cache, propose, mine and evaluate on 1, 3 and 10 times the volumes of profile demo, each in a process of its own: processor time
         (also of a busy machine what the work costs) follows a power of the size that is at most POWER, and peak memory is at most GROWTH_GB.

The detector is the narrow one with random weights, which finds something everywhere. All scans are made here; nothing is kept.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd, psutil

SLOPE_MB, PEAK_GB, POWER, GROWTH_GB = .25, {1000: 2.5, 2000: 4.5}, 1.1, 4.
STEPS = ("phantom", "cache", "propose", "mine", "evaluate")
SEED = 5000
ENV = os.environ | dict(OMP_NUM_THREADS="1", MELD_QUIET="1", PYTHONUNBUFFERED="1")


def checkpoint(path):
    import torch
    from meld_nb.meld import save_model
    from meld_nb.variants import make_model
    torch.manual_seed(0)
    save_model(make_model("meld", "narrow"), path, data="random weights")
    return path


# many scans in one process

def scans(work, n, px, depth):
    "Problems of `n` scans of about `depth` slices of `px` pixels."
    from meld_nb.core import rng
    from meld_nb.volume import Volume, write_volume
    model, folder = checkpoint(work/"model.safetensors"), work/"scans"
    folder.mkdir()
    for i in range(n):
        g = rng(SEED, "scan", i)
        side, deep = int(px*g.uniform(.75, 1)), int(depth*g.uniform(.5, 1))
        y, x = np.mgrid[:side,:side] - side/2
        hu = np.where(x**2 + y**2 < (.45*side)**2, 40, -1000) + g.integers(-30, 30, (deep, side, side))
        write_volume(Volume(hu.astype(np.int16), (.8, .8, float(g.choice([1, 2, 5])))), folder/f"ct{i:04d}.mha")
    process = subprocess.Popen(["meld", "detect", str(folder), "--checkpoint", str(model), "--out", str(work/"found"), "--score", "0.53"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV | dict(MELD_QUIET="0"))
    seen, memory = psutil.Process(process.pid), []
    for line in process.stdout:
        if line.strip().endswith("detections"): memory.append(seen.memory_info().rss/1e6)
    if process.wait() or len(memory) != n: yield f"scans: exit {process.returncode} after {len(memory)} of {n} scans"; return
    late = np.arange(n//2, n)                                            # the first half fills caches
    slope = np.polyfit(late, np.array(memory)[late], 1)[0]
    print(f"scans: {n} in one process; {memory[0]:.0f} MB after the first, {memory[n//2]:.0f} MB after half of them, {memory[-1]:.0f} MB after the last: {slope:+.3f} MB a scan in the second half (at most {SLOPE_MB})", flush=True)
    if slope > SLOPE_MB: yield f"scans: memory grows by {slope:.2f} MB a scan, expected at most {SLOPE_MB}"


# long scans

def long_scan(path, n, px):
    "An uncompressed MetaImage of `n` slices, written a slice at a time."
    y, x = np.mgrid[:px,:px] - px/2
    body = np.where(x**2 + (1.3*y)**2 < (.42*px)**2, 40, -1000).astype(np.int16)
    path.write_text(f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.75 0.75 {2000/n:g}\nDimSize = {px} {px} {n}\nElementType = MET_SHORT\nElementDataFile = {path.stem}.raw\n")
    with open(path.with_suffix(".raw"), "wb") as f:
        for z in range(n): f.write((body + np.random.default_rng(z).integers(-30, 30, body.shape)).astype("<i2").tobytes())
    return path


def long(work, slices, px):
    "Problems of `meld detect` on a scan of two metres, for each number of slices."
    model = checkpoint(work/"model.safetensors")
    for n in slices:
        scan, start = long_scan(work/f"long{n}.mhd", n, px), time.time()
        process = subprocess.Popen(["meld", "detect", str(scan), "--checkpoint", str(model), "--out", str(work/f"long{n}")], env=ENV, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        scan.with_suffix(".raw").unlink()
        if code := os.waitstatus_to_exitcode(status): yield f"long: {n} slices: exit {code}"; continue
        peak, most = used.ru_maxrss*1024/1e9, PEAK_GB.get(n, np.inf)
        print(f"long: {n} slices of {px} px: peak {peak:.2f} GB{f' (at most {most})' if n in PEAK_GB else ''}, of it {n*px*px*2/1e9:.2f} GB the scan; {used.ru_utime + used.ru_stime:.0f} s of processor time, {time.time()-start:.0f} s", flush=True)
        if peak > most: yield f"long: {n} slices need {peak:.2f} GB, expected at most {most}"


# growth

def world(base, factor):
    from meld_nb.phantom import PROFILES
    return {k: max(1, round(n*base*factor)) for k, n in PROFILES["demo"].items()}


def phantom(work, size):
    from meld_nb.core import write_json
    from meld_nb.phantom import write_world
    write_json(write_world(work/"world", dict(profile="demo", **size), SEED), work/"paths.json")


def cache(work, size):
    from meld_nb.core import DATASET_NAMES, read_json
    from meld_nb.datasets import read_dataset
    from meld_nb.deeplesion import read_revised_1071
    from meld_nb.slices import build_cache
    paths = {k: Path(v) for k, v in read_json(work/"paths.json").items()}
    volumes, lesions, slices = (pd.concat(t, ignore_index=True) for t in zip(*(read_dataset(n, paths[n]) for n in DATASET_NAMES)))
    named, truth = read_revised_1071(next(paths["testset"].glob("Revised-Test1071*")), dl_info=paths["deeplesion"]/"DL_info.csv")
    every, _, _ = read_dataset("deeplesion", paths["deeplesion"], drop_noisy=False)
    test = every[every.volume_id.isin(named.volume_id)]
    volumes = pd.concat([volumes, test[~test.volume_id.isin(volumes.volume_id)]], ignore_index=True)
    build_cache(volumes, work/"cache", workers=2)
    for n, t in dict(volumes=volumes, lesions=lesions, slices=slices, test=test, truth=truth).items(): t.to_parquet(work/f"{n}.parquet")


def tables(work, *names): return [pd.read_parquet(work/f"{n}.parquet") for n in names]


def propose(work, size):
    from meld_nb.core import DATASET_NAMES
    from meld_nb.meld import load_model
    from meld_nb import predict
    volumes, slices = tables(work, "volumes", "slices")
    train = volumes.query("dataset == 'deeplesion' and split == 'train'")
    found = predict.propose(load_model(checkpoint(work/"model.safetensors")), work/"cache", slices[slices.volume_id.isin(train.volume_id)], DATASET_NAMES, every_mm=10., top=6)   # six a slice, as in the paper
    found.to_parquet(work/"proposals.parquet")


def mine(work, size):
    import torch
    from meld_nb.lesanet import LesaNet
    from meld_nb.mam import match_missing
    from meld_nb.nrm import suspicious
    from meld_nb.predict import embed_boxes
    torch.manual_seed(0)
    net = LesaNet(3, "narrow", patch=48, emb=64, mm=.8, terms=["lung", "liver", "lymph node"]).eval()
    proposals, lesions, volumes = tables(work, "proposals", "lesions", "volumes")
    train = volumes.query("dataset == 'deeplesion' and split == 'train'")
    lesions = lesions[lesions.volume_id.isin(train.volume_id)].reset_index(drop=True)
    universal, single = ((proposals[proposals.expert.eq("deeplesion") == u]).reset_index(drop=True) for u in (True, False))
    emb = [embed_boxes(net, work/"cache", t, work/f"{n}.npy")[0] for n, t in (("lesions", lesions), ("universal", universal))]
    mined = match_missing(lesions, universal, *emb, theta=.3)
    print(f"{len(mined)} mined, {len(suspicious(single, lesions, .5))} suspicious of {len(proposals)} proposals", file=sys.stderr)


def evaluate(work, size):
    from meld_nb.froc import PAPER_VOLUMETRIC, froc
    from meld_nb.meld import load_model
    from meld_nb.predict import detect_cached
    test, truth = tables(work, "test", "truth")
    found, members = detect_cached(work/"cache", test.volume_id.tolist(), load_model(checkpoint(work/"model.safetensors")), top=6)
    froc(found, truth, test.volume_id.tolist(), members=members, **PAPER_VOLUMETRIC).bootstrap(dict(zip(test.volume_id, test.patient_id)), 200)


def alone(step, work, size):
    "A step in this process, which ends with it: prints processor seconds (of its children too) and peak memory."
    import torch
    torch.set_num_threads(1)
    globals()[step](work, size)
    if "joblib" in sys.modules:                                          # its workers count when they have ended
        from joblib.externals.loky import get_reusable_executor
        get_reusable_executor().shutdown(wait=True)
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print("\n" + json.dumps(dict(cpu=sum(u.ru_utime + u.ru_stime for u in used), peak_gb=max(u.ru_maxrss for u in used)*1024/1e9)))


def growth(work, base, factors):
    "Problems of the steps at each size."
    from meld_nb.bench import growth as power
    rows = []
    for factor in factors:
        size, folder = world(base, factor), work/f"x{factor:g}"
        folder.mkdir()
        for step in STEPS:
            start = time.time()
            done = subprocess.run([sys.executable, __file__, "--step", step, "--work", str(folder), "--size", json.dumps(size)], capture_output=True, text=True, env=ENV)
            if done.returncode: yield f"growth: {step} at {factor:g}x: {done.stderr.strip()[-500:]}"; return
            rows.append(dict(step=step, factor=factor, seconds=time.time()-start, **json.loads(done.stdout.strip().splitlines()[-1])))
            if step == "cache": volumes = len(pd.read_parquet(folder/"volumes.parquet"))
            print("growth: {factor:g}x {step:9}{cpu:8.1f} s of processor time, {seconds:.0f} s, peak {peak_gb:.2f} GB".format(**rows[-1]) + (f"; {volumes} volumes" if step == "cache" else ""), flush=True)
    t = pd.DataFrame(rows)
    for step, g in t.groupby("step", sort=False):
        p = power(g.factor, g.cpu)
        late = power(g.factor.iloc[-2:], g.cpu.iloc[-2:])                # between the two largest, where starting Python no longer counts
        print(f"growth: {step:9} costs size^{p:.2f} ({late:.2f} between {g.factor.iloc[-2]:g}x and {g.factor.iloc[-1]:g}x), peak {' '.join(f'{m:.2f}' for m in g.peak_gb)} GB", flush=True)
        if max(p, late) > POWER: yield f"growth: {step} costs size^{max(p, late):.2f}, expected at most {POWER}"
        if g.peak_gb.max() > GROWTH_GB: yield f"growth: {step} needs {g.peak_gb.max():.2f} GB, expected at most {GROWTH_GB}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--parts", nargs="+", choices=["scans", "long", "growth"], default=["scans", "long", "growth"])
    ap.add_argument("--scans", type=int, default=200)
    ap.add_argument("--px", type=int, nargs=2, default=(64, 512), help="sides of the many scans' and of the long ones' slices")
    ap.add_argument("--depth", type=int, default=24, help="slices of the many scans, at most")
    ap.add_argument("--slices", type=int, nargs="+", default=[1000, 2000])
    ap.add_argument("--base", type=float, default=1., help="share of demo's patients that is 1x")
    ap.add_argument("--factors", type=float, nargs="+", default=[1, 3, 10])
    for name in ("--step", "--work", "--size"): ap.add_argument(name, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.step: return alone(a.step, Path(a.work), json.loads(a.size))
    began, problems = time.time(), []
    for part in a.parts:
        with tempfile.TemporaryDirectory() as tmp:
            args = dict(scans=(a.scans, a.px[0], a.depth), long=(a.slices, a.px[1]), growth=(a.base, a.factors))[part]
            problems += globals()[part](Path(tmp), *args)
    for p in problems: print(p)
    print(f"{len(a.parts)} parts, {len(problems)} problems, {time.time()-began:.0f} s")
    return int(bool(problems))


if __name__ == "__main__": sys.exit(main())
