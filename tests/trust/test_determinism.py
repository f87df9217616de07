"""The number of processes that load or prepare data changes no byte; the whole study is compared by determinism.py."""
import sys
from pathlib import Path

import pandas as pd, pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny
from meld_nb.core import sha256


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "A folder; volumes, lesions and slices of two small data sets."
    from meld_nb.datasets import read_dataset
    root = tmp_path_factory.mktemp("determinism")
    return root, *(pd.concat(t, ignore_index=True) for t in zip(*(read_dataset(n, tiny.make(n, root)) for n in ("deeplesion", "lits"))))


def digests(folder): return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.suffix in (".npy", ".safetensors")}


def test_processes_that_build_the_cache(data):
    from meld_nb.slices import build_cache
    root, volumes, *_ = data
    for n in (1, 2): build_cache(volumes, root/f"cache{n}", workers=n)
    assert digests(root/"cache1") == digests(root/"cache2") and digests(root/"cache1")


def test_processes_that_load_samples(data):
    from meld_nb.core import set_seed
    from meld_nb.meld import MELD, meld_config
    from meld_nb.slices import LesionDataset, build_cache
    from meld_nb.train import fit
    root, volumes, lesions, slices = data
    build_cache(volumes, root/"cache", workers=1)
    train = volumes.volume_id[volumes.split == "train"]
    slices = slices[slices.volume_id.isin(train) & (slices.kind != "unlabelled")]
    small = dict(trunk=dict(growth_rate=4, block_config=[1, 1, 1], num_init_features=4, width=8), anchors_px=[8], anchor_ratios=[1.], rpn_width=8, head_width=8, gate_width=8, mask_width=8)
    made = []
    for workers in (0, 1, 2, 0):
        set_seed(0, "determinism")
        samples = LesionDataset(slices, lesions[lesions.volume_id.isin(slices.volume_id)], root/"cache", seed=3)
        out = root/f"out{len(made)}"
        fit(MELD(**meld_config("narrow", **small)), samples, out, epochs=2, lr=1e-3, order=samples.order(2, {"deeplesion": 1, "lits": 1}, 3), seed=3, workers=workers, device="cpu", threads=1)
        made.append(digests(out))
    assert len(made[0]) == 2 and made[1:] == made[:1]*3
