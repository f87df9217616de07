"""data_flow.py finds what it is for: a small run without a breach, and one for each way to cheat."""
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import data_flow
from meld_nb.core import sha256, write_json

CHAPTERS = {"10": ("10_data", ["world.json"]), "15": ("15_lesanet", ["10/volumes.parquet"]), "25": ("25_meld", ["10/volumes.parquet"]), "40": ("40_mam", ["10/volumes.parquet", "25/model.safetensors"]),
            "58": ("58_oracle", ["truth.json", "10/volumes.parquet"]), "60/mam": ("60_finetune", ["25/model.safetensors", "40/mined.parquet"]), "60/oracle": ("60_finetune", ["58/oracle.parquet"]),
            "65/mam": ("65_detect", ["60/mam/model.safetensors", "10/test_volumes.parquet"]), "70": ("70_ablation", ["65/mam/detections.parquet", "10/test_lesions.parquet"])}


@pytest.fixture
def run(tmp_path):
    v = pd.DataFrame(dict(volume_id=["a", "b", "t"], patient_id=["a", "b", "t"], split=["train", "val", "test"]))
    files = {"10/volumes.parquet": v, "10/test_volumes.parquet": v[2:], "10/test_lesions.parquet": v[2:], "15/lesions_scored.parquet": v, "40/mined.parquet": v[:1],
             "58/oracle.parquet": v[:1], "65/mam/detections.parquet": v[2:], "25/model.safetensors": 1, "60/mam/model.safetensors": 2, "60/oracle/model.safetensors": 3, "70/tab.csv": 4, "world.json": 5, "truth.json": 6}
    for name, what in files.items():
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        what.to_parquet(tmp_path/name) if hasattr(what, "to_parquet") else (tmp_path/name).write_text(str(what))
    for folder in CHAPTERS: record(tmp_path, folder)
    return tmp_path


def record(run, folder, extra=()):
    chapter, inputs = CHAPTERS[folder]
    write_json(dict(chapter=chapter, inputs={i: sha256(run/i) for i in [*inputs, *extra]},
                    outputs={p.name: sha256(p) for p in (run/folder).iterdir() if p.is_file() and p.name != "record.json"}), run/folder/"record.json")


def test_an_honest_run(run, capsys):
    assert list(data_flow.breaches(run)) == []
    assert data_flow.main(run) == "" and "65/mam" in capsys.readouterr().out and "no chapter" in data_flow.main(run/"world")


@pytest.mark.parametrize("folder,reads,says", [
    ("25", "truth.json", "25: 25_meld opened truth.json"), ("40", "10/test_lesions.parquet", "40: 40_mam opened 10/test_lesions.parquet"),
    ("15", "10/test_volumes.parquet", "15: 15_lesanet opened 10/test_volumes.parquet"), ("65/mam", "10/test_lesions.parquet", "65/mam: 65_detect opened 10/test_lesions.parquet"),
    ("70", "truth.json", "70: 70_ablation opened truth.json"), ("60/mam", "58/oracle.parquet", "60/mam: 60_finetune rests on truth.json"),
    ("40", "58/oracle.parquet", "60/mam: 60_finetune rests on 58/oracle.parquet, which 58_oracle made"), ("40", "65/mam/detections.parquet", "40: 40_mam rests on 65/mam/detections.parquet, which 65_detect made"),
])
def test_a_chapter_that_opens_too_much(run, folder, reads, says):
    record(run, folder, [reads])
    assert says in list(data_flow.breaches(run))


def test_strangers_and_changed_files(run):
    pd.read_parquet(run/"10"/"volumes.parquet").iloc[[0, 2]].to_parquet(run/"40"/"mined.parquet")
    found = "\n".join(data_flow.breaches(run))
    assert "40/mined.parquet: 1 of 2 rows are of evaluation patients, e.g. volume t" in found and "60/mam: its input 40/mined.parquet is not what it read" in found
    (run/"25"/"model.safetensors").unlink()
    assert "40: its input 25/model.safetensors is gone" in list(data_flow.breaches(run))


def test_a_patient_in_two_splits(run):
    v = pd.read_parquet(run/"10"/"volumes.parquet").assign(patient_id=["a", "t", "t"])
    v.to_parquet(run/"10"/"volumes.parquet")
    found = "\n".join(data_flow.breaches(run))
    assert "patient t is in test and val" in found and "10/test_volumes.parquet: patient t is trained or chosen on" in found
