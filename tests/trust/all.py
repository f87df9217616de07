"""Everything in this folder at its full size, and one table: `make trust`. Two to three hours on two quiet cores; `make test` runs the reduced part.

    python tests/trust/all.py [--only NAME ...]     # names: the first column of the table
"""
import argparse, os, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::UserWarning"]
RUN = HERE.parent.parent/"data"/"runs"/"smoke"

PARTS = {  # name: (command, environment)
    "bad input": ([*PYTEST, HERE/"test_bad_input.py"], {}),
    "security": ([*PYTEST, HERE/"test_security.py"], {}),
    "properties": ([*PYTEST, HERE/"test_properties.py", "--hypothesis-profile=trust"], {}),
    "fuzzed files": ([*PYTEST, HERE/"test_fuzz_files.py"], {"MELD_FUZZ": "150"}),
    "disk": ([*PYTEST, "-rs", HERE/"test_disk.py"], {}),
    "provenance": ([*PYTEST, HERE/"test_provenance.py"], {}),
    "precision": ([*PYTEST, "-rs", HERE/"test_precision.py"], {}),
    "statistics": ([sys.executable, HERE/"test_statistics.py"], {}),
    "data flow": ([sys.executable, HERE/"data_flow.py", RUN], {}),
    "kills": ([sys.executable, HERE/"kills.py", "--kills", "40"], {}),
    "determinism": ([sys.executable, HERE/"determinism.py"], {}),
    "load": ([sys.executable, HERE/"load.py"], {}),
    "mutation": ([sys.executable, HERE/"mutation.py", "--mutants", "200", "--jobs", "2"], {}),
    "engine, killed and changed": (["nbdev_test", "--path", HERE.parent.parent/"nbs"/"lib"/"60_study.ipynb", "--flags", "slow", "--n_workers", "0"], {}),
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    only, rows = ap.parse_args().only, []
    if "data flow" in only and not (RUN/"run.json").is_file(): subprocess.run(["meld", "run", "--profile", "smoke"], check=True)
    for name in only:
        command, env = PARTS[name]
        print(f"\n== {name}", flush=True)
        start = time.time()
        done = subprocess.Popen(list(map(str, command)), env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        last = ""
        for line in done.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        rows.append((name, "ok" if done.wait() == 0 else "FAILED", f"{(time.time()-start)/60:.1f}", last[:110]))
    print("\n| part | result | minutes | what it says |\n|---|---|---|---|")
    for r in rows: print("| " + " | ".join(r) + " |")
    return int(any(r[1] != "ok" for r in rows))


if __name__ == "__main__": sys.exit(main())
