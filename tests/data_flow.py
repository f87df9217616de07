"""Training, mining and selection never see evaluation patients or their truth: shown by what each chapter of a run opened.

    python tests/data_flow.py data/runs/smoke        # exit code 1 and a line for each breach

Every chapter's record.json lists the files it opened, with checksums. From these records alone: who opened the phantom's truth, who opened the
tables of the test set, what reached a checkpoint or a mined row along any path, whether a file still is what its reader read; and from the
tables themselves: no patient of the test set in what was trained on, proposed, mined or chosen from.
"""
import sys
from pathlib import Path

import pandas as pd

from meld_nb.core import read_json, sha256

MAKES = ("15_lesanet", "18_pretrain", "20_baseline", "25_meld", "30_propose", "35_embed", "40_mam", "50_nrm", "60_finetune")   # training, mining and selection
TRUTH, SCANS, ANSWERS = "truth.json", "10/test_volumes.parquet", "10/test_lesions.parquet"     # of the phantom; of the test set, and their lesions
MAY_OPEN = {TRUTH: {"55_mining_truth", "58_oracle", "76_claims", "78_any_detector", "92_kits"},
            SCANS: {"65_detect", "70_ablation", "71_organs", "72_key_slice", "73_strategies", "74_sweeps", "75_fractions", "76_claims", "80_qualitative", "88_annotated",
                    "79_own_data", "90_completeness", "91_real", "92_kits", "93_cost", "99_report"}}
MAY_OPEN[ANSWERS] = MAY_OPEN[SCANS] - {"65_detect", "88_annotated"}                             # detecting needs the scans and not the answers
JUDGES = MAY_OPEN[SCANS] | MAY_OPEN[TRUTH]                         # what they make goes into no training, mining or selection
SCORED = "15/lesions_scored.parquet"                               # organ scores of every annotated lesion, the test set's too (Table 2 sorts by them): read by split


def records(run):
    "Folder below the run -> its record, for chapters of this run."
    from meld_nb.study import in_plan
    ours = in_plan(run)
    rels = sorted(p.relative_to(run) for p in run.glob("[0-9][0-9]/**/record.json"))
    return {str(r.parent): read_json(run/r) for r in rels if ours(r)}


def makers(rec):
    "File -> the folder that made it."
    return {f"{folder}/{name}": folder for folder, r in rec.items() for name in r["outputs"]}


def opened(rec):
    "folder -> all that it rests on: its own inputs and those of the folders that made them, the whole way up."
    maker, out = makers(rec), {}
    def rests(folder):
        if folder not in out:
            out[folder] = set()                                     # no chapter reads itself
            mine = set(rec[folder]["inputs"])
            out[folder] = mine.union(*[rests(maker[i]) for i in mine if i in maker]) if mine else mine
        return out[folder]
    for folder in rec: rests(folder)
    return out


def oracle(folder): return folder.split("/")[-1].startswith("oracle")   # arms that are meant to know the truth


def breaches(run):
    "What must not be, a line each."
    run = Path(run)
    rec = records(run)
    rests, made = opened(rec), makers(rec)
    for folder, r in rec.items():
        name, mine = r["chapter"], set(r["inputs"])
        for what, who in MAY_OPEN.items():
            if what in mine and name not in who: yield f"{folder}: {name} opened {what}"
        if name in MAKES and not oracle(folder):
            for what in sorted(set(MAY_OPEN) & rests[folder]): yield f"{folder}: {name} rests on {what}"
            for i in sorted(i for i in rests[folder] if i in made and rec[made[i]]["chapter"] in JUDGES): yield f"{folder}: {name} rests on {i}, which {rec[made[i]]['chapter']} made"
        for i, digest in r["inputs"].items():
            path = run/i
            if not path.exists(): yield f"{folder}: its input {i} is gone"
            elif sha256(path) != digest: yield f"{folder}: its input {i} is not what it read"
    yield from strangers(run, rec)


def strangers(run, rec):
    "Rows of evaluation patients in the tables that training, mining and selection read or write."
    volumes = pd.read_parquet(run/"10"/"volumes.parquet")
    split = volumes.set_index("volume_id").split
    patients = volumes.groupby("patient_id").split.agg(set)
    for p in patients.index[patients.str.len() > 1]: yield f"10/volumes.parquet: patient {p} is in {' and '.join(sorted(patients[p]))}"
    tested = pd.read_parquet(run/"10"/"test_volumes.parquet")
    for p in sorted(set(tested.patient_id) & set(volumes.patient_id[volumes.split != "test"])): yield f"10/test_volumes.parquet: patient {p} is trained or chosen on"
    for folder, r in rec.items():
        if r["chapter"] not in MAKES: continue
        for name in r["outputs"]:
            if not name.endswith(".parquet") or f"{folder}/{name}" == SCORED: continue
            t = pd.read_parquet(run/folder/name)
            if "volume_id" not in t: continue
            bad = t.volume_id.map(split).eq("test") | t.volume_id.isin(tested.volume_id)
            if "patient_id" in t: bad |= t.patient_id.isin(tested.patient_id)
            if bad.any(): yield f"{folder}/{name}: {int(bad.sum())} of {len(t)} rows are of evaluation patients, e.g. volume {t.volume_id[bad].iloc[0]}"


def main(run):
    run = Path(run)
    rec = records(run)
    if not rec: return f"{run}: no chapter has a record"
    print(f"{'':<24}{'the truth':<13}{'test scans':<13}{'test lesions':<13}{'files opened':>13}{'rests on':>10}")
    rests = opened(rec)
    for folder, r in rec.items():
        sees = ["opened" if w in r["inputs"] else "indirectly" if w in rests[folder] else "-" for w in (TRUTH, SCANS, ANSWERS)]
        print(f"{folder:<24}" + "".join(f"{w:<13}" for w in sees) + f"{len(r['inputs']):>13}{len(rests[folder]):>10}")
    found = list(breaches(run))
    print(f"\n{len(rec)} records, {sum(len(r['inputs']) for r in rec.values())} files opened, {len(found)} breaches")
    return "\n".join(found)


if __name__ == "__main__": sys.exit(main(*sys.argv[1:]) or 0)
