"""Everything in this folder at its full size, and one table: `make trust`. About an hour and a half on two cores; `make test` runs the reduced part.

    python tests/trust/all.py [--only NAME ...] [--jobs N]     # names: the first column of the table
    python tests/trust/all.py --write-docs                     # its rows into docs/trust.md, in place of those of the same names
"""
import argparse, os, re, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT/"docs"/"trust.md"
HEAD = "## Last measured\n"
RUN = ROOT/"data"/"runs"/"smoke"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::UserWarning"]


# What the table says of a part, from the lines it printed.

def last(lines): return re.sub(r" in [\d.]+s( \([\d:]+\))?$", "", lines[-1])

def starting(*starts): return lambda lines: "<br>".join(l for l in lines if l.startswith(starts))

def examples(lines):
    n = sum(int(m[1]) for l in lines if (m := re.search(r"(\d+) passing,", l)))
    return f"{last(lines)}; {n:,} examples"

def broken_files(lines):
    kinds = [dict(re.findall(r"'([a-z ]+)': (\d+)", l)) for l in lines if re.match(r"\w+: \{", l)]
    n = {k: sum(int(c.get(k, 0)) for c in kinds) for k in ("refused", "the same", "read")}
    return f"{last(lines)}; {sum(n.values()):,} broken files of {len(kinds)} kinds: {n['refused']:,} refused, {n['the same']:,} read as the whole file, {n['read']:,} read as another"

def shares(lines):
    cells = {}
    for l in lines:
        if m := re.match(r".{12}(.{42})\s*([\d.]+%)", l): cells.setdefault(m[1].strip(), []).append(m[2].replace("%", " %"))
    return "<br>".join([last(lines), *(f"{name}: {', '.join(c)}" for name, c in cells.items())])


PARTS = {  # name: (commands, environment, what the table says); the longest first
    "mutation": ([[sys.executable, HERE/"mutation.py", "--mutants", "200", "--jobs", "1"]], {}, last),
    "bad input": ([[*PYTEST, HERE/"test_bad_input.py"]], {}, last),
    "security": ([[*PYTEST, HERE/"test_security.py"]], {}, last),
    "properties": ([[*PYTEST, HERE/"test_properties.py", "--hypothesis-profile=trust", "--hypothesis-show-statistics"]], {}, examples),
    "fuzzed files": ([[*PYTEST, "-rP", HERE/"test_fuzz_files.py"]], {"MELD_FUZZ": "150"}, broken_files),
    "disk": ([[*PYTEST, "-rs", HERE/"test_disk.py"]], {}, last),
    "provenance": ([[*PYTEST, HERE/"test_provenance.py"]], {}, last),
    "precision": ([[*PYTEST, "-rs", HERE/"test_precision.py"]], {}, last),
    "kills": ([[sys.executable, HERE/"kills.py", "--kills", "40"]], {}, starting("undisturbed", "kills:", "orphans:", "disk:", "skipped", "40 kills")),
    "determinism": ([[sys.executable, HERE/"determinism.py"]], {}, last),
    "load": ([[sys.executable, HERE/"load.py"]], {}, lambda lines: "<br>".join([*(l for l in lines if l.startswith(("scans:", "long:")) or " costs " in l), lines[-1]])),
    "statistics": ([[sys.executable, HERE/"test_statistics.py", "--workers", "1"]], {}, shares),
    "data flow": ([["meld", "run", "--profile", "smoke", "--quiet"], [sys.executable, HERE.parent/"data_flow.py", RUN]], {}, last),
    "engine, killed and changed": ([["nbdev_test", "--path", ROOT/"nbs"/"lib"/"60_study.ipynb", "--flags", "slow", "--n_workers", "0"]], {}, last),
}


def run(name):
    "A part's row: name, result, minutes, what it says. Its lines are printed as they come."
    commands, env, says = PARTS[name]
    start, lines, code = time.time(), [], 0
    for command in commands:
        if code: break
        done = subprocess.Popen(list(map(str, command)), env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in done.stdout:
            print(f"{name} | {line.rstrip()}", flush=True)
            if line.strip(): lines.append(line.strip())
        code = done.wait()
    said = (says if code == 0 else last)(lines or [""])
    return name, "FAILED" if code else "ok", f"{(time.time()-start)/60:.1f}", said.replace("|", "\\|")


def table(rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [("part", "result", "minutes", "what it says", "commit"), ("---",)*5, *rows]) + "\n"


def write_docs(rows):
    "Put rows into the page, in place of those of the same parts."
    page, _, old = PAGE.read_text(encoding="utf-8").partition(HEAD)
    kept = {r[0]: r for r in (tuple(c.strip() for c in re.split(r"(?<!\\)\|", l)[1:-1]) for l in old.splitlines() if l.startswith("| "))}
    PAGE.write_text(f"{page}{HEAD}\n{table([r for n in PARTS if (r := rows.get(n) or kept.get(n))])}", encoding="utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    ap.add_argument("--jobs", type=int, default=2, help="parts at a time, each on one core")
    ap.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    args = ap.parse_args()
    git = lambda *words: subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()
    of = f"{git('rev-parse', '--short', 'HEAD')}{' and changes'*bool(git('status', '--porcelain', '--untracked-files=no'))}, {time.strftime('%Y-%m-%d')}"
    rows = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        for part in as_completed([pool.submit(run, name) for name in args.only]):
            row = (*part.result(), of)
            rows[row[0]] = row
            if args.write_docs: write_docs({row[0]: row})                # at once: a series that is ended early leaves what it had
    print("\n" + table([rows[n] for n in PARTS if n in rows]))
    return int(any(r[1] != "ok" for r in rows.values()))


if __name__ == "__main__": sys.exit(main())
