"""A study that is killed at random moments ends with the same files as one that is left alone.

    python tests/trust/kills.py                 # 40 kills of a micro-study (100 s undisturbed), and what else can happen to a run folder; about 25 minutes on two free cores
    python tests/trust/kills.py --kills 5       # fewer

Tried, each on purpose:
- SIGKILL to the whole process tree at seeded random moments; after each, every file that has a finished name can be read;
- SIGKILL to `meld run` alone: its orphans keep the folder locked, a second run is refused while they live, and the folder is not corrupted;
- a disk that is full, and a folder that cannot be written: one line that says so, exit code 1, earlier results as they were (both need root for a small tmpfs; skipped visibly without).
"""
import argparse, hashlib, json, os, random, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd, psutil
from safetensors import safe_open

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from blind_and_killed import kill_tree

PROFILE = HERE/"micro.yaml"
KINDS = {".safetensors", ".parquet", ".npy", ".csv"}
CLOCK = {"log.csv"}                      # the training log holds seconds of each step
PLACES = {"volumes.parquet", "test_volumes.parquet"}


def start(run, *options, **popen): return subprocess.Popen(["meld", "run", "--profile", str(PROFILE), "--run", str(run), *options], **popen)


def finished(run, *options):
    done = subprocess.run(["meld", "run", "--profile", str(PROFILE), "--run", str(run), *options], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def results(run):
    "path -> digest of every table, array and checkpoint of the chapters; left out are the clock's column of a training log, and where the raw files of the run's own world lie."
    out = {}
    for p in sorted(run.glob("[0-9][0-9]/**/*")):
        if p.suffix not in KINDS or p.name.startswith("."): continue
        data = pd.read_csv(p).drop(columns="seconds", errors="ignore").to_csv().encode() if p.name in CLOCK else p.read_bytes()
        if p.name in PLACES: data = pd.read_parquet(p).replace({c: "^.*(?=/world/)" for c in ("path", "mask_path")}, "", regex=True).to_csv().encode()
        out[str(p.relative_to(run))] = hashlib.sha256(data).hexdigest()
    return out


def unreadable(run):
    "Files under a finished name that cannot be read: there must be none, at any moment."
    for p in sorted(run.glob("[0-9][0-9]/**/*")) + sorted(run.glob("*.json")):
        if not p.is_file() or any(part.startswith(".tmp-") for part in p.parts): continue
        try:
            if p.suffix == ".json": json.loads(p.read_text())
            elif p.suffix == ".parquet": pd.read_parquet(p)
            elif p.suffix == ".csv": pd.read_csv(p)
            elif p.suffix == ".npy" and not p.name.startswith("."): np.load(p)
            elif p.suffix == ".safetensors":
                with safe_open(p, "np") as f:
                    for k in f.keys(): f.get_tensor(k)
        except FileNotFoundError: continue              # removed meanwhile
        except Exception as e: yield f"{p.relative_to(run)}: {type(e).__name__}: {e}"


def killed_again_and_again(whole, run, kills, seed, seconds):
    "Problems; `seconds`: what the run takes undisturbed."
    dice, done = random.Random(seed), 0
    while done < kills:
        with open(run.with_name("said.txt"), "w") as said: process = start(run, stdout=said, stderr=subprocess.STDOUT)
        wait = dice.uniform(.03, .35)*seconds            # from before the first job to a few jobs further on
        until = time.time() + wait
        while time.time() < until and process.poll() is None: time.sleep(.05)
        if process.poll() is not None:
            if process.returncode: yield f"after {done} kills the run failed by itself (exit {process.returncode}):\n{_why(run)}"; return
            shutil.rmtree(run/dice.choice(["25", "40", "60", "65"]), ignore_errors=True)   # it had come to its end: a piece is lost, and it goes on from there
            continue
        kill_tree(process)
        done += 1
        yield from unreadable(run)
        print(f"kill {done} of {kills} after {wait:.1f} s; {len(results(run))} results so far", flush=True)
    code, said = finished(run)
    if code: yield f"the run did not finish after {kills} kills: {said.strip().splitlines()[-1:]}"
    yield from compare(whole, run)


def _why(run):
    "What a run said last, and the errors in the logs of its chapters."
    said = run.with_name("said.txt").read_text(errors="replace").splitlines()[-15:]
    for p in sorted((run/"logs").glob("*.ipynb"), key=lambda p: p.stat().st_mtime)[-4:]:
        try: outputs = [o for c in json.loads(p.read_text())["cells"] for o in c.get("outputs", [])]
        except ValueError: said.append(f"{p.name}: no notebook"); continue
        said += [f"{p.name}: {o['ename']}: {o['evalue']}\n" + "\n".join(o["traceback"][-3:]) for o in outputs if o["output_type"] == "error"]
    return "\n".join(said)


def compare(whole, run):
    a, b = results(whole), results(run)
    for f in sorted(a.keys() | b.keys()):
        if a.get(f) != b.get(f): yield f"{f}: {'missing' if f not in b else 'only here' if f not in a else 'differs'} in {run.name}"


def _is_chapter(process):
    try: return process.status() != psutil.STATUS_ZOMBIE and any("meld_nb.study" in a for a in process.cmdline())
    except psutil.NoSuchProcess: return False


def orphans(whole, run):
    "`meld run` dies alone; its jobs live on."
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(".snakemake"))
    for c in ("25", "60", "65", "70"): shutil.rmtree(run/c)
    process = start(run, stdout=subprocess.DEVNULL)
    tree = psutil.Process(process.pid)
    while not any(map(_is_chapter, tree.children(recursive=True))):
        if process.poll() is not None: yield "orphans: the run ended before a chapter began"; return
        time.sleep(.1)
    children = tree.children(recursive=True)
    tree.kill(); process.wait()
    code, said = finished(run)
    if code != 2 or "in use by process" not in said: yield f"orphans: a second run was not refused (exit {code}): {said.strip()[-200:]}"
    psutil.wait_procs(children, timeout=600)
    for _ in range(60):
        code, said = finished(run)
        if code != 2: break
        time.sleep(5)
    if code: yield f"orphans: the run did not finish afterwards: {said.strip()[-200:]}"
    yield from compare(whole, run)


def bad_disk(whole, folder):
    "A full disk, then one that is read only."
    if os.geteuid(): print("skipped: a full and a read-only disk (they need root for a tmpfs)"); return
    size = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(size*1.02) + 2_000_000}", "tmpfs", str(folder)], capture_output=True, text=True)
    if mount.returncode: print(f"skipped: a full and a read-only disk ({mount.stderr.strip()})"); return
    try:
        run = folder/"run"
        shutil.copytree(whole, run, ignore=shutil.ignore_patterns(".snakemake"))
        for c in ("60", "65", "70"): shutil.rmtree(run/c)
        before = results(run)
        with open(folder/"ballast", "wb") as f: f.write(b"\0"*(shutil.disk_usage(folder).free - 300_000))
        code, said = finished(run)
        logs = "".join(p.read_text(errors="replace") for p in (run/"logs").glob("*") if p.is_file())
        if not code or "No space left" not in said + logs: yield f"full disk: exit {code}, and no word of it: {said.strip()[-300:]}"
        after = results(run)
        yield from (f"full disk: {f} changed" for f in before if after.get(f) != before[f])
        yield from unreadable(run)
        (folder/"ballast").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        code, said = finished(run)
        if not code or "Traceback" in said or "Read-only" not in said: yield f"read-only folder: exit {code}: {said.strip()[-300:]}"
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        code, said = finished(run)
        if code: yield f"full disk: with room again the run did not finish: {said.strip()[-300:]}"
        yield from compare(whole, run)
    finally: subprocess.run(["umount", str(folder)], check=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kills", type=int, default=40)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--parts", nargs="+", choices=["kills", "orphans", "disk"], default=["kills", "orphans", "disk"])
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        tmp, began = Path(tmp), time.time()
        code, said = finished(tmp/"whole")
        if code: print(said); return 1
        took = time.time()-began
        print(f"undisturbed: {len(results(tmp/'whole'))} results in {took:.0f} s", flush=True)
        problems = []
        parts = dict(kills=lambda: killed_again_and_again(tmp/"whole", tmp/"killed", args.kills, args.seed, took), orphans=lambda: orphans(tmp/"whole", tmp/"orphans"), disk=lambda: bad_disk(tmp/"whole", tmp/"disk"))
        for name in args.parts:
            own = list(parts[name]())
            print(f"{name}: {'as it should be' if not own else f'{len(own)} problems'}", *own, sep="\n", flush=True)
            problems += own
    print(f"{args.kills*('kills' in args.parts)} kills, {' and '.join(args.parts)}: {len(problems)} problems, {time.time()-began:.0f} s")
    return int(bool(problems))


if __name__ == "__main__": sys.exit(main())
