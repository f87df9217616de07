"""Provenance that cannot lie: a small study is run, then what its results rest on is changed, and `meld report` refuses, naming the file; so for dirty clones and final seeds."""
import json, os, re, shutil, subprocess, sys
from pathlib import Path

import nbformat, pandas as pd, pytest

from meld_nb.cli import main
from meld_nb.core import read_json, repo_root, sha256, write_json
from meld_nb.study import check_run

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = "from meld_nb.study import chapter\nch = chapter({!r}, globals())"
BOOKS = {"10_data": ('run = "r"\nseed = 0\nn = 3  # rows', 'import pandas as pd\npd.DataFrame(dict(a=range(n), seed=seed)).to_csv(ch.out/"a.csv", index=False)\n(ch.run/"cache"/"v").mkdir(parents=True, exist_ok=True); (ch.run/"cache"/"v"/"hu.npy").write_bytes(b"1")\nch.index([RAW], [ch.run/"cache"/"v"])\nch.done();'),
         "70_table": ('run = "r"\ntimes = 2  # factor', 'import pandas as pd\nfrom meld_nb.plots import save_table\nsave_table(pd.read_csv(ch.path("10/a.csv"))*times + len(list(ch.cache.iterdir()))*0, "tab", ch, "A table.")\nch.done();')}


def book(path, parameters, *cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c, id=f"c{i}") for i, c in enumerate((parameters, *cells))])
    nb.metadata["kernelspec"], nb.cells[0].metadata["tags"] = dict(display_name="python3", language="python", name="python3"), ["parameters"]
    nbformat.write(nb, path)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    "A study of two chapters, run once."
    tmp = tmp_path_factory.mktemp("provenance")
    (tmp/"study"/"params").mkdir(parents=True)
    for name, (parameters, work) in BOOKS.items(): book(tmp/"study"/f"{name}.ipynb", parameters, HEAD.format(name), work.replace("RAW", repr(str(tmp/"raw"))))
    (tmp/"study"/"Snakefile").write_text(f"include: {str(ROOT/'nbs'/'study'/'engine.smk')!r}\nchapter('10_data', '', 'a.csv')\nchapter('70_table', '10', 'tab.csv')\n")
    (tmp/"study"/"params"/"two.yaml").write_text("study: {seed: 1000}\n10_data: {n: 4}\n")
    (tmp/"raw").mkdir(); (tmp/"raw"/"scan.raw").write_text("12"); (tmp/"raw"/"DL_info.csv").write_text("a")
    os.environ["MELD_STUDY"] = str(tmp/"study")
    assert main(["run", "--profile", "two", "--run", str(tmp/"run")]) == 0
    yield tmp
    del os.environ["MELD_STUDY"]


@pytest.fixture
def run(made, tmp_path):
    "A copy of it that may be broken; the profile is put back."
    shutil.copytree(made/"run", tmp_path/"run")
    profile = made/"study"/"params"/"two.yaml"
    text = profile.read_text()
    yield tmp_path/"run"
    profile.write_text(text)


def report(run, capsys):
    "Exit code and what `meld report` said on standard error."
    code = main(["report", str(run), "--out", str(run.parent/"report.html")])
    return code, capsys.readouterr().err


def test_a_table_traces_to_its_run(run, capsys):
    p, record = read_json(run/"70"/"tab.json"), read_json(run/"70"/"record.json")
    assert (p["chapter"], p["run"], p["parameters"]) == ("70_table", "run", dict(times=2)) and re.fullmatch("[0-9a-f]{40}", p["commit"]) and p["dirty"] in (True, False)
    assert record["inputs"] == {f: sha256(run/f) for f in ("10/a.csv", "10/files.json")} and record["outputs"]["tab.csv"] == sha256(run/"70"/"tab.csv")
    assert read_json(run/"run.json")["jobs"]["70"]["inputs"] == record["inputs"]
    assert report(run, capsys) == (0, "") and f"commit {p['commit'][:10]}" in (run.parent/"report.html").read_text()


@pytest.mark.parametrize("file,says", [("10/a.csv", "10/a.csv: changed since 10_data wrote it"), ("70/tab.csv", "70/tab.csv: changed since 70_table wrote it"), ("70/tab.json", "70/tab.json: changed since 70_table wrote it")])
def test_a_file_that_was_changed_by_hand(run, capsys, file, says):
    stat, text = (run/file).stat(), (run/file).read_text()
    (run/file).write_text(text.replace("2", "8").replace("70_table", "71_table"))
    os.utime(run/file, ns=(stat.st_atime_ns, stat.st_mtime_ns))           # its date does not tell
    code, said = report(run, capsys)
    assert code == 2 and said.count("\n") == 1 and says in said and not (run.parent/"report.html").exists()


def test_an_input_that_was_made_anew(run, capsys):
    (run/"10"/"a.csv").write_text("a\n1\n")
    record = read_json(run/"10"/"record.json")
    write_json(record | dict(outputs=record["outputs"] | {"a.csv": sha256(run/"10"/"a.csv")}), run/"10"/"record.json")
    code, said = report(run, capsys)
    assert code == 2 and said.count("\n") == 1 and "10/a.csv: changed since 70_table read it" in said


def test_raw_data_that_were_changed(run, made, capsys):
    scan, table = made/"raw"/"scan.raw", run/"10"/".files.parquet"
    times = scan.stat()
    scan.write_text("12"); assert report(run, capsys) == (0, "")                     # written again, the same
    for text in ("18", "129"):
        scan.write_text(text); os.utime(scan, ns=(times.st_atime_ns, times.st_mtime_ns))   # its date does not tell
        refused = f"meld: {scan}: changed since 10_data read it; remove {run/'10'} and run again\n"
        assert report(run, capsys) == (2, refused)
        code = main(["run", "--profile", "two", "--run", str(run)])
        assert (code, capsys.readouterr().err) == (2, refused)
    scan.unlink(); assert report(run, capsys) == (0, "")                             # moved away to save space
    scan.write_text("12"); assert report(run, capsys) == (0, "")
    known = pd.read_parquet(table)
    known.assign(sha256=known.sha256[::-1].to_numpy()).to_parquet(table)
    assert report(run, capsys) == (2, f"meld: {table}: changed since 10_data wrote it; remove {run/'10'} and run again\n")
    for text in (None, "[]", '{"sha256": 3}'):                                      # the list itself
        table.unlink() if text is None else (run/"10"/"files.json").write_text(text)
        code, said = report(run, capsys)
        assert code == 2 and said.count("\n") == 1 and (f"{table}: cannot be read" if text is None else "10/files.json: changed since 10_data wrote it") in said
    shutil.copytree(made/"run"/"10", run/"10", dirs_exist_ok=True)
    table.write_bytes(b"PAR1"); code, said = report(run, capsys)
    assert code == 2 and said.count("\n") == 1 and f"{table}: cannot be read" in said


def by_hand(run, made, end=True):
    "Chapter 10, opened and run cell by cell."
    book = nbformat.read(made/"study"/"10_data.ipynb", 4)
    code = "\n".join(c.source for c in book.cells).replace('run = "r"', f"run = {str(run)!r}").replace("seed = 0", "seed = 1000").replace("n = 3", "n = 4")
    assert subprocess.run([sys.executable, "-c", code if end else code.replace("ch.done();", "")], capture_output=True, text=True, env=os.environ).returncode == 0


def test_chapter_10_by_hand_over_raw_data_that_were_changed(run, made, capsys):
    scan = made/"raw"/"scan.raw"
    by_hand(run, made, end=False); by_hand(run, made); assert report(run, capsys) == (0, "")     # the same
    try:
        scan.write_text("18")
        by_hand(run, made, end=False); code, said = report(run, capsys)
        assert code == 2 and said == f"meld: {run/'10'/'files.json'}: changed since 10_data wrote it; remove {run/'10'} and run again\n"
        assert (main(["run", "--profile", "two", "--run", str(run)]), capsys.readouterr().err) == (code, said)
        by_hand(run, made); code, said = report(run, capsys)                                      # its record holds again; the table is of before
        assert code == 2 and said == f"meld: {run/'10'/'files.json'}: changed since 70_table read it for {run/'70'}; run again\n"
        assert main(["run", "--profile", "two", "--run", str(run)]) == 0
        capsys.readouterr(); assert report(run, capsys) == (0, "")
    finally: scan.write_text("12")


def test_raw_data_that_were_added_or_are_elsewhere(run, made, capsys):
    raw, far = made/"raw", made/"far"
    far.mkdir(); (far/"1.png").write_text("1")
    try:
        (raw/"notes.txt").write_text("mine"); assert report(run, capsys) == (0, "")
        (raw/"images").symlink_to(far); code, said = report(run, capsys)
        told = f"{raw/'images'/'1.png'}: added since 10_data read the raw data, and in no result; remove {run/'10'} and run again to take it in\n"
        assert (code, said) == (0, told) and main(["run", "--profile", "two", "--run", str(run)]) == 0 and capsys.readouterr().err == told
        shutil.rmtree(run/"10"); assert main(["run", "--profile", "two", "--run", str(run)]) == 0
        capsys.readouterr(); assert report(run, capsys) == (0, "")
        (far/"1.png").write_text("2"); code, said = report(run, capsys)
        assert code == 2 and f"{raw/'images'/'1.png'}: changed since 10_data read it" in said
    finally: (raw/"notes.txt").unlink(); (raw/"images").unlink(missing_ok=True); shutil.rmtree(far)


def test_a_cache_that_was_changed(run, capsys):
    (run/"cache"/"more").mkdir(); (run/"cache"/"more"/"hu.npy").write_bytes(b"2"); assert report(run, capsys) == (0, "")       # of a later chapter
    (run/"cache"/"v"/"hu.npy").write_bytes(b"2")
    assert report(run, capsys) == (2, f"meld: {run/'cache'/'v'/'hu.npy'}: changed since 10_data read it; remove {run/'cache'}, {run/'10'} and run again\n")


def test_a_cache_that_was_made_anew_elsewhere_is_the_same(run, made, capsys):
    for d in ("cache", "10"): shutil.rmtree(run/d)
    assert main(["run", "--profile", "two", "--run", str(run)]) == 0
    capsys.readouterr(); assert report(run, capsys) == (0, "") and (run/"10"/"files.json").read_bytes() == (made/"run"/"10"/"files.json").read_bytes()


def test_a_record_of_an_earlier_version(run, capsys):
    write_json(read_json(run/"10"/"record.json") | dict(files="0"), run/"10"/"record.json")
    assert report(run, capsys) == (2, f"meld: {run/'10'/'record.json'}: of an earlier version, which noted raw data in another way; remove {run/'10'} and run again\n")


def test_a_result_that_is_gone_is_made_again(run, capsys):
    was = (run/"70"/"tab.csv").read_bytes()
    (run/"70"/"tab.json").unlink()
    assert report(run, capsys) == (0, "") and "since their files are gone: 70/tab.csv" in (run.parent/"report.html").read_text()
    assert main(["run", "--profile", "two", "--run", str(run)]) == 0
    assert (run/"70"/"tab.json").is_file() and (run/"70"/"tab.csv").read_bytes() == was and report(run, capsys) == (0, "")


def test_values_that_were_changed(run, made, capsys):
    record = read_json(run/"run.json")
    write_json(record | dict(parameters={"10_data": {"seed": 1000, "n": 5}}), run/"run.json")
    code, said = report(run, capsys)
    assert code == 2 and said.count("\n") == 1 and "10_data.n is now 4" in said and "was made with 5" in said
    write_json(record, run/"run.json")
    for text, says in (("study: {seed: 1000}\n10_data: {n: 6}\n", "profile two: 10_data.n is now 6"), ("study: {seed: 1000}\n10_data: {n: 4}\n70_table: {times: 3}\n", "profile two: 70_table.times is now 3"),
                       ("study: {seed: 1000}\n", "profile two: 10_data.n is now 'its default'")):
        (made/"study"/"params"/"two.yaml").write_text(text)
        code, said = report(run, capsys)
        assert code == 2 and said.count("\n") == 1 and says in said


def test_the_page_replaces_a_page_alone(run, made, capsys, tmp_path):
    own, released = tmp_path/"own.html", tmp_path/"released"
    own.write_text("<p>mine</p>")
    assert main(["report", str(run), "--out", str(own)]) == 2 and capsys.readouterr().err == f"meld: {own}: is there, and no report; choose another name\n" and own.read_text() == "<p>mine</p>"
    assert main(["report", str(run), "--release", "--out", str(own)]) == 2 and "no report; choose another name" in capsys.readouterr().err     # before it is released
    (run.parent/"run.json").write_text("[]")                                # of another program, beside the page
    assert report(run, capsys) == report(run, capsys) == (0, "")           # over its own of before
    shutil.copytree(RELEASES[0], released)
    assert main(["report", str(released), "--out", str(released/"report.html")]) == 2 and capsys.readouterr().err == f"meld: {released/'report.html'}: {released} holds what was released; choose another folder\n"
    check_run(released)


def test_what_does_not_contradict_a_record(run, capsys):
    (run/"10"/"a.csv").unlink()                                            # deleted to save space
    assert report(run, capsys) == (0, "")
    (run/"70"/"record.json").unlink()                                      # a chapter that did not end: nobody knows what its table was made from
    assert report(run, capsys) == (0, "") and "A table." not in (run.parent/"report.html").read_text()


# releases

RELEASES = sorted(p.parent for p in (ROOT/"figures").rglob("run.json"))

@pytest.mark.parametrize("release", RELEASES, ids=lambda r: str(r.relative_to(ROOT/"figures")))
def test_what_is_released_is_what_was_released(release):
    check_run(release)
    assert read_json(release/"run.json")["files"].keys() == {p.name for p in release.iterdir()} - {"run.json"}


def test_a_release_that_was_changed(tmp_path, capsys):
    to, record = tmp_path/"r", read_json(RELEASES[0]/"run.json")
    shutil.copytree(RELEASES[0], to)
    write_json({k: v for k, v in record.items() if k != "files"}, to/"run.json")
    assert report(to, capsys) == (2, f"meld: {to}: neither a run folder, with chapters, nor a released run, with checksums of its files in run.json\n")
    for change in (dict(commit="0"*40), dict(files=record["files"] | {"more.csv": "0"})):
        write_json(record | change, to/"run.json")
        assert report(to, capsys) == (2, f"meld: {to/'run.json'}: changed since it was released\n")
    write_json(record, to/"run.json"); (to/"more.csv").touch()
    assert report(to, capsys) == (2, f"meld: {to/'more.csv'}: is there, but was not released; move it away\n"); (to/"more.csv").unlink()
    write_json(record, to/"run.json")
    table = sorted(to.glob("*.csv"))[0]
    table.write_text(table.read_text() + " ")
    assert report(to, capsys) == (2, f"meld: {table}: changed since it was released\n")


# clones

@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    "A clean clone whose one commit is the working tree."
    to = tmp_path_factory.mktemp("clone")/"meld"
    files = subprocess.run(["git", "ls-files", "-z", "meld_nb", "nbs/study", "settings.ini", "setup.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    for f in filter(lambda f: (ROOT/f).is_file(), files):
        (to/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT/f, to/f)
    for args in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "all"]): subprocess.run(["git", *args], cwd=to, check=True)
    return to


def python(clone, code, package=None):
    "What a fresh Python says in the clone, with the clone's package or another."
    env = {k: v for k, v in os.environ.items() if k != "MELD_STUDY"} | dict(PYTHONPATH=str(package or clone))
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=clone, env=env, capture_output=True, text=True)


DIRTY = "from meld_nb.study import provenance; print(provenance()['dirty'])"


def test_a_dirty_clone_says_so(clone):
    assert python(clone, DIRTY).stdout == "False\n"
    for file in ("meld_nb/froc.py", "nbs/study/40_mam.ipynb"):
        text = (clone/file).read_bytes()
        (clone/file).write_bytes(text + b"\n")
        assert python(clone, DIRTY).stdout == "True\n", file
        (clone/file).write_bytes(text)
    for file in ("meld_nb/froc2.py", "nbs/study/41_mine.ipynb", "nbs/study/params/own.yaml"):       # new files count
        (clone/file).write_text("{}")
        assert python(clone, DIRTY).stdout == "True\n", file
        (clone/file).unlink()
    (clone/"notes.txt").write_text("of no result")
    assert python(clone, DIRTY).stdout == "False\n"
    assert python(clone, DIRTY, package=ROOT).stdout == "True\n"          # the code is not this commit's


def test_final_seeds_need_the_protocol(clone, tmp_path):
    start = lambda profile, seed: python(clone, f"import sys; from meld_nb.cli import main; sys.exit(main(['run', '--profile', {str(profile)!r}, '--seed', '{seed}', '--run', {str(tmp_path/'run')!r}, '--dry-run', '--until', '10_data']))")
    own, protocol = tmp_path/"own.yaml", clone/"nbs"/"study"/"PROTOCOL.md"
    own.write_text("study: {world: smoke, arms: [meld], chapters: [10_data]}\n")
    text = protocol.read_text()
    protocol.write_text(text + "\nAnother arm.\n")
    for profile, seed in (("study", 0), ("study_full", 9), ("smoke", 3), (own, 5)):
        done = start(profile, seed)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "seeds 0-9 are kept for the final runs" in done.stderr, (profile, done.stderr)
    assert not (tmp_path/"run").exists()
    assert start(own, 1000).returncode == 0                               # a development world
    protocol.write_text(text)
    done = start(own, 5)
    assert done.returncode == 0, done.stderr
