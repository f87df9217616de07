"""Everything `make test` checks: clean notebooks, export in sync, README in sync, library tests, smoke study, and the same without truth and killed.

The last line counts notebooks: those of nbs/lib run as tests, those of nbs/study run as the smoke study; tests/trust as one; and the tests of tests/, which go on from the smoke study.
"""
import argparse, hashlib, json, os, shutil, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB, STUDY = ROOT/"nbs"/"lib", ROOT/"nbs"/"study"
SLOW_S = 60  # a library notebook should not take longer


def sources():
    "Digest of every notebook and exported module."
    files = [*ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("meld_nb/**/*.py")]
    return {p.relative_to(ROOT): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if ".ipynb_checkpoints" not in p.parts}


def in_step():
    "Problems: notebooks that are not clean, modules that are not what the notebooks export."
    before = sources()
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([command], cwd=ROOT, check=True)
    after = sources()
    return [f"{p}: changed by nbdev_clean or nbdev_export; it is mended now, commit it" for p in sorted(after.keys() | before.keys())
            if before.get(p) != after.get(p)]


def study_notebooks():
    "Problems: chapters with outputs, or without exactly one cell tagged `parameters`."
    for p in sorted([*STUDY.glob("*.ipynb"), *(ROOT/"nbs"/"explore").glob("*.ipynb")]):
        cells = json.loads(p.read_text(encoding="utf-8"))["cells"]
        tagged = sum("parameters" in c["metadata"].get("tags", []) for c in cells)
        if tagged != 1: yield f"{p.relative_to(ROOT)}: {tagged} cells tagged `parameters`, expected 1"
        if any(c.get("outputs") for c in cells): yield f"{p.relative_to(ROOT)}: carries outputs; executed copies belong in the run folder"


def readme():
    "nbs/index.ipynb, executed, as Markdown; links are relative to the clone's top."
    import nbconvert, nbformat
    from nbconvert.preprocessors import ExecutePreprocessor, TagRemovePreprocessor
    nb = nbformat.read(ROOT/"nbs"/"index.ipynb", 4)
    ExecutePreprocessor(timeout=900, kernel_name="python3").preprocess(nb, {"metadata": {"path": str(ROOT/"nbs")}})
    for cell in nb.cells:
        if cell.cell_type == "code": cell.metadata["tags"] = ["remove_input"]
    exporter = nbconvert.MarkdownExporter()
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"remove_input"}), enabled=True)
    text, _ = exporter.from_notebook_node(nb)
    return "\n".join(line.rstrip() for line in text.strip().splitlines()).replace("\n\n\n\n", "\n\n").replace("\n\n\n", "\n\n") + "\n"


def test_one(path):
    "Run one library notebook as a test: (path, passed, seconds)."
    start = time.time()
    done = subprocess.run(["nbdev_test", "--path", str(path), "--n_workers", "0"], cwd=ROOT, capture_output=True, text=True)
    return path, done.returncode == 0, time.time() - start, done.stdout + done.stderr


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--write-readme", action="store_true", help="write README.md from nbs/index.ipynb and stop")
    ap.add_argument("--no-smoke", action="store_true", help="leave out the smoke study")
    args = ap.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if args.write_readme:
        (ROOT/"README.md").write_text(readme(), encoding="utf-8")
        return 0

    problems = in_step() + list(study_notebooks())
    if (ROOT/"README.md").read_text(encoding="utf-8") != readme(): problems.append("README.md: not what nbs/index.ipynb makes; run `make readme`")
    for p in problems: print(p, flush=True)
    if "MELD_REALDATA" not in os.environ: print("MELD_REALDATA is not set: tests on real files are skipped", flush=True)

    passed = failed = skipped = 0
    with ProcessPoolExecutor(2) as pool:
        for path, ok, seconds, text in pool.map(test_one, sorted(LIB.glob("*.ipynb"))):
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'passed' if ok else 'FAILED'} {path.name} in {seconds:.0f} s" + (f" (over {SLOW_S} s)" if seconds > SLOW_S else ""), flush=True)
            if not ok: print(text, flush=True)

    ok = subprocess.run([sys.executable, "-m", "pytest", "tests/trust", "-q", "-p", "no:cacheprovider", "-W", "ignore::UserWarning"], cwd=ROOT).returncode == 0
    passed, failed = passed + ok, failed + (not ok)
    print(f"{'passed' if ok else 'FAILED'} tests/trust", flush=True)

    chapters, scripts = sorted(STUDY.glob("*.ipynb")), sorted((ROOT/"tests").glob("*.py"))
    if args.no_smoke: skipped += len(chapters) + len(scripts)
    else:
        run = ROOT/"data"/"runs"/"smoke"
        shutil.rmtree(run, ignore_errors=True)
        code = subprocess.run(["meld", "run", "--profile", "smoke"], cwd=ROOT).returncode
        done = [p for p in chapters if list(run.glob(f"{p.stem[:2]}/**/record.json"))]
        passed, failed = passed + len(done), failed + (len(chapters) - len(done) if code == 0 else max(1, len(chapters) - len(done)))
        for script in scripts:
            ok = code == 0 and subprocess.run([sys.executable, str(script), str(run)], cwd=ROOT).returncode == 0
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'passed' if ok else 'FAILED'} {script.name}", flush=True)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return int(bool(failed or problems))


if __name__ == "__main__": sys.exit(main())
