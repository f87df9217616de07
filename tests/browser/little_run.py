"""A run folder in small, in ten seconds: a phantom's patients, and boxes in place of what detector and mining would find.

    python tests/browser/little_run.py DIR
"""
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from meld_nb.core import rng
from meld_nb.datasets import read_dataset
from meld_nb.deeplesion import read_revised_1071
from meld_nb.mam import match_missing
from meld_nb.phantom import write_world
from meld_nb.slices import build_cache
from meld_nb.tables import write_table

BOX = ["x1", "y1", "x2", "y2"]


def moved(g, boxes, px=1.):
    "Boxes as a detector would give them: a pixel off."
    a = boxes[BOX].to_numpy() + g.normal(0, px, (len(boxes), 4))
    return boxes.assign(**dict(zip(BOX, np.concatenate([np.minimum(a[:, :2], a[:, 2:]), np.maximum(a[:, :2], a[:, 2:])], 1).T)))


def write_run(root, seed=5):
    "Tables of chapters 10, 40, 50 and 65, and the cache."
    root, g = Path(root), rng(seed, "little run")
    paths = write_world(root/"world", dict(train=2, val=1, test=2), seed, workers=1, sets=("deeplesion",))
    volumes, lesions, _ = read_dataset("deeplesion", paths["deeplesion"])
    named, complete = read_revised_1071(next(Path(paths["testset"]).glob("Revised-Test1071*")), dl_info=Path(paths["deeplesion"])/"DL_info.csv")
    test = volumes[volumes.volume_id.isin(named.volume_id)].reset_index(drop=True)
    complete = complete[complete.volume_id.isin(test.volume_id)].reset_index(drop=True)
    for name, table, what in (("volumes", volumes, "volumes"), ("lesions", lesions, "lesions"), ("test_volumes", test, "volumes"), ("test_lesions", complete, "lesions")):
        write_table(table, root/"10"/f"{name}.parquet", what)
    build_cache(volumes, root/"cache", workers=1)

    truth = pd.read_parquet(root/"world"/"truth"/"truth2d.parquet").merge(volumes[["volume_id", "patient_id", "split"]], on="volume_id")
    seen = moved(g, truth[truth.split == "train"].reset_index(drop=True)).assign(score=lambda d: g.uniform(.1, 1, len(d)).round(3), expert="deeplesion")
    mined = match_missing(lesions, seen, np.ones((len(lesions), 1)), np.ones((len(seen), 1)), theta=.1)     # every proposal of a patient with an annotation
    write_table(mined, root/"40"/"mined.parquet", "lesions")
    write_table(mined[::5].assign(role="suspicious", expert="lits"), root/"50"/"suspicious.parquet", "lesions")

    # stacks: three slices around each lesion of the test set, and as many boxes elsewhere
    dx, dy = g.uniform(-30, 30, (2, len(complete)))
    beside = complete.assign(x1=complete.x1 + dx, x2=complete.x2 + dx, y1=complete.y1 + dy, y2=complete.y2 + dy)
    found = pd.concat([moved(g, complete, .5).assign(score=g.uniform(.3, 1, len(complete))), beside.assign(score=g.uniform(0, .7, len(complete)))],
                      ignore_index=True).assign(stack_id=lambda d: d.index)
    last = found.volume_id.map(volumes.set_index("volume_id").n_slices) - 1
    members = pd.concat([found.assign(z=(found.z + k).clip(0, last)) for k in (-1, 0, 1)]).drop_duplicates(["stack_id", "z"])
    ends = members.groupby("stack_id").z.agg(["min", "max"])
    write_table(found.assign(z1=ends["min"], z2=ends["max"])[["volume_id", "stack_id", "x1", "y1", "z1", "x2", "y2", "z2", "score"]], root/"65"/"both"/"detections.parquet", "detections3d")
    write_table(members.assign(score=members.score*.5)[["volume_id", "stack_id", "z", *BOX, "score"]], root/"65"/"both"/"members.parquet", "members")
    return root


if __name__ == "__main__": write_run(sys.argv[1])
