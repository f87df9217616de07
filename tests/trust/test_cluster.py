"""A run whose jobs are started elsewhere: Snakemake's generic cluster executor with a submit command that runs the job script here, in a clean environment."""
import json, stat
from pathlib import Path

import nbformat, pytest, yaml

from meld_nb.study import run_study

ROOT = Path(__file__).resolve().parents[2]

@pytest.fixture
def study(tmp_path):
    "A world, a chapter, two jobs of another that look what belongs to the run, and one that needs a GPU."
    book = tmp_path/"study"; (book/"params").mkdir(parents=True)
    (book/"Snakefile").write_text(f"""include: {str(ROOT/'nbs'/'study'/'engine.smk')!r}
chapter("10_data", "world", "a.txt")
chapter("60_arm", "10", "d.txt", each=("arm", STUDY["arms"]), gpu=1)
chapter("70_all", "60", "all.txt")
""")
    (book/"params"/"p.yaml").write_text(yaml.safe_dump({"study": {"seed": 1000, "arms": ["meld", "mam"], "world": {"profile": "smoke", "train": 1, "val": 1, "test": 1, "single": 1}}}))
    v = nbformat.v4
    def chapter(name, parameters, *cells):
        cells = [v.new_code_cell(parameters, metadata=dict(tags=["parameters"])), *map(v.new_code_cell, cells), v.new_code_cell("ch.done();")]
        nbformat.write(v.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name="python3", language="python", display_name="Python 3"))), book/f"{name}.ipynb")
    head = "from meld_nb.study import chapter, in_plan\nch = chapter({!r}, globals(){})"
    chapter("10_data", 'run = "x"\nseed = 1000', head.format("10_data", ""), '(ch.out/"a.txt").write_text(str(seed))')
    chapter("60_arm", 'run = "x"\narm = "meld"', head.format("60_arm", ", arm"), 'assert in_plan(ch.run)("70/all.txt") and in_plan(ch.run)(f"60/{arm}/d.txt")\n(ch.out/"d.txt").write_text(ch.path("10/a.txt").read_text() + arm); (ch.out/"at").write_text(str((ch.run/"logs"/"jobs.json").stat().st_mtime_ns))')
    chapter("70_all", 'run = "x"', head.format("70_all", ""), '(ch.out/"all.txt").write_text(" ".join(p.read_text() for p in ch.paths("60/*/d.txt")))')
    return book

def test_jobs_elsewhere(study, tmp_path):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    asked, submit = tmp_path/"asked", tmp_path/"submit"
    submit.write_text(f"#!/bin/sh\necho gpu=$1 >> {asked}\nenv -i PATH=\"$PATH\" HOME=\"$HOME\" PYTHONPATH=\"$PYTHONPATH\" sh \"$2\" > {tmp_path}/said 2>&1 &\necho $!\n")
    submit.chmod(submit.stat().st_mode | stat.S_IXUSR)
    run = tmp_path/"run"
    code = run_study("p", run=run, study=study, snakemake=["--executor", "cluster-generic", "--jobs", "2", "--cluster-generic-submit-cmd", f"{submit} {{resources.gpu}}", "--latency-wait", "20", "--seconds-between-status-checks", "1"])
    assert code == 0, (run/"logs"/"snakemake.log").read_text()[-3000:]
    assert (run/"70"/"all.txt").read_text() == "1000mam 1000meld"
    assert sorted(asked.read_text().split()) == ["gpu=0", "gpu=0", "gpu=0", "gpu=1", "gpu=1"]
    assert {p.read_text() for p in run.glob("60/*/at")} == {str((run/"logs"/"jobs.json").stat().st_mtime_ns)}   # written once, by the run itself: a job that reads the Snakefile again leaves it alone
    assert list(json.loads((run/"logs"/"jobs.json").read_text()).values()) == ["70_all", "60_arm", "60_arm", "10_data"]
