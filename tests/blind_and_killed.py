"""Two promises of the study, tried on a second smoke study and compared with the first byte for byte.

Without the truth: its folder is deleted as soon as the world is written, so nothing but the oracle can rest on it.
Killed: the whole process tree gets SIGKILL in the middle of LesaNet's, MELD's and an arm's training, and the run is started again.

    meld run --profile smoke && python tests/blind_and_killed.py data/runs/smoke    # then options of `meld run`, such as --cores 1
"""
import shutil, subprocess, sys, tempfile, time
from pathlib import Path

import psutil, yaml

PROFILE = Path(__file__).resolve().parent.parent/"nbs"/"study"/"params"/"smoke.yaml"
TRUTH = ("55", "58", "76", "78", "92", "oracle")                             # chapters and arms that may open the truth
KILLS = ("15/train", "25/train", "60/both/train")                  # each when its first state is on disk
ALONE = ("93", "95")                                                   # chapters that measure time: nothing to compare
COMPARED = ("15", "18", "20", "25", "30", "35", "40", "50", "60", "65", "88")
KINDS = {".safetensors", ".parquet", ".npy"}                     


def blind_profile(folder):
    "smoke without what opens the truth."
    from meld_nb.study import plan
    p = yaml.safe_load(PROFILE.read_text())
    p["study"]["chapters"] = [c for c in plan("smoke")["chapters"] if c[:2] not in TRUTH + ALONE]
    p["study"]["arms"] = [a for a in p["study"]["arms"] if a not in TRUTH]
    (folder/"blind.yaml").write_text(yaml.safe_dump(p))
    return folder/"blind.yaml"


def kill_tree(process):
    "SIGKILL to the process and all its descendants, those in sessions of their own too."
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for p in tree:
        try: p.kill()
        except psutil.NoSuchProcess: continue                      # ended by itself meanwhile
    psutil.wait_procs(tree, timeout=30)
    process.wait()


def start(profile, run, *options): return subprocess.Popen(["meld", "run", "--profile", str(profile), "--run", str(run), *options])


def killed_in(folder, process):
    "Kill when a training has saved a state; False if the run ended before."
    while process.poll() is None:
        if (folder/"log.csv").exists():
            kill_tree(process)
            return True
        time.sleep(.02)
    return False


def main(whole, *options):
    whole = Path(whole)
    with tempfile.TemporaryDirectory() as tmp:
        profile, run = blind_profile(Path(tmp)), Path(tmp)/"blind"
        if start(profile, run, "--until", "10_data", *options).wait(): return "the world and its tables were not made"
        shutil.rmtree(run/"world"/"truth")
        for where in KILLS:
            if not killed_in(run/where, start(profile, run, *options)): return f"{where}: the run ended before it could be killed there"
            print(f"killed in {where}", flush=True)
        if start(profile, run, *options).wait(): return "the run did not finish after it was killed"
        files = [p.relative_to(run) for n in COMPARED for p in (run/n).rglob("*") if p.suffix in KINDS or p.name in ("theta.csv", "sigma.csv")]
        if not files: return "nothing to compare"
        differ = [str(f) for f in sorted(files) if not (whole/f).exists() or (run/f).read_bytes() != (whole/f).read_bytes()]
        print(f"{len(files)} checkpoints, tables and choices compared with {whole}: {len(differ)} differ")
        return "; ".join(differ)


if __name__ == "__main__": sys.exit(main(*sys.argv[1:]) or 0)
