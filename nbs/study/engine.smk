"""The engine: `chapter(...)` makes one Snakemake rule that runs one notebook. Started by `meld run`, which writes the config."""
import json, re, sys
from snakemake.exceptions import WorkflowError
from meld_nb.core import read_json, write_json

STUDY, RUN = config["study"], config["run"]  # values of the whole run; its folder, which is also the working folder
JOBS = config["jobs"]                        # folder -> chapter, of this run: a folder of an earlier profile may lie beside
MADE = {}                                    # chapter number -> {value of `each` ("" without): its files}


def files(need, made=MADE):
    """Files behind a need: "world", "truth", "10" (a chapter, all its values), "60/mam" (one value), "18?" (if it is listed), "*" (all)."""
    number, _, value = need.rstrip("?").partition("/")
    if need == "*": return [f for n in made for f in files(n, made)]
    if need == "world": return ["world.json"] if "world" in STUDY else []
    if need == "truth": return ["truth.json"]
    if number not in made and need.endswith("?"): return []
    if number not in made: raise WorkflowError(f"chapter {number} is needed, but the profile does not list it before the one that needs it")
    if value and value not in made[number]: raise WorkflowError(f"{need} is needed, but chapter {number} has only {', '.join(made[number])}")
    return made[number][value] if value else [f for fs in made[number].values() for f in fs]


def chapter(name, needs="", makes="", each=None, threads=1, gpu=0):
    """Run <name>.ipynb if the profile lists it.

    needs: what it reads, as in `files`, separated by spaces, or a function of the value of `each` that returns this
    makes: the files it writes into its folder, separated by spaces (record.json and the executed notebook come by themselves)
    each:  ("arm", values): one job a value, each in a folder of its own; the notebook takes it as parameter `arm`
    """
    if name not in config["chapters"]: return
    key, values = each or ("", [""])
    values = {str(v): v for v in values}
    if each and (bad := [v for v in values if not re.fullmatch(r"[\w.+-]+", v)]): raise WorkflowError(f"{name}: {key} {bad[0]!r} cannot name a folder")
    if each and key not in config["declared"][name]: raise WorkflowError(f"{name}: runs once for each {key}, but its notebook has no parameter {key!r}")
    folder = f"{name[:2]}/{{{key}}}" if each else name[:2]
    makes = [f"{folder}/{m}" for m in ("record.json", f"{name}.ipynb", *makes.split())]
    before = dict(MADE)
    def need(wc):
        "The needs, a chapter that runs once for each value spelled out: what other values an earlier run had is none of this one's."
        listed = (needs(values[wc[key]]) if callable(needs) else needs).split()
        return [f"{n}/{v}" if v else n for n in listed for v in (before.get(n.rstrip("?"), {"": 0}) if "/" not in n else {"": 0})]
    MADE[name[:2]] = {v: [m.replace(f"{{{key}}}", v) for m in makes] for v in values}
    if workflow.is_main_process: write_json({folder.replace(f"{{{key}}}", v): name for v in values} | (read_json(JOBS) if before else {}), JOBS)   # a job on a cluster reads this file again
    rule:
        name: name
        input:
            nb=f"{config['notebooks']}/{name}.ipynb",
            needs=lambda wc: [f for n in need(wc) for f in files(n, before)],
        output: makes
        log: f"logs/{name}" + (f"_{{{key}}}" if each else "") + ".ipynb"
        # of the wildcards only: Snakemake does not watch parameters that are made from input or output
        params:
            job=lambda wc: json.dumps(dict(parameters=config["parameters"][name] | ({key: values[wc[key]]} if each else {}), needs=need(wc)), sort_keys=True),
        threads: threads
        resources: gpu=gpu
        shell: "{sys.executable:q} -m meld_nb.study {input.nb:q} {log:q} {RUN:q} {params.job:q} && cp {log:q} {output[1]:q}"


rule all:
    input: lambda wc: files("*")


if "world" in STUDY:
    rule world:
        output: "world.json", "truth.json"
        params: world=json.dumps(dict(profile=STUDY["world"], seed=STUDY["seed"]), sort_keys=True)
        threads: config["cores"]
        resources: gpu=0
        priority: 1  # most chapters wait for it
        shell: "{sys.executable:q} -m meld_nb.study {params.world:q} {threads}"
