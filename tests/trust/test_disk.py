"""Commands on a disk that is full, and in a folder that cannot be written: one line that says so, no traceback, and what was there before is as it was."""
import os, shutil, subprocess, sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny


@pytest.fixture
def disk(tmp_path):
    "A file system of 1 MB; needs root."
    folder = tmp_path/"disk"
    folder.mkdir()
    if os.geteuid(): pytest.skip("a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode: pytest.skip(f"no small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, leave=8192):
    "Nothing but `leave` bytes are free."
    with open(disk/"ballast", "wb") as f: f.write(b"\0"*(shutil.disk_usage(disk).free - leave))


@pytest.fixture(scope="module")
def given(tmp_path_factory): return tmp_path_factory.mktemp("given")


def commands(given, out):
    "name -> arguments of `meld`, each of which writes into `out`."
    froc, model = tiny.make("froc", given), tiny.make("checkpoint", given)
    return {"detect": ["detect", model/"ct.nii", "--checkpoint", model/"model.safetensors", "--out", out/"found", "--score", "0"],
            "phantom": ["phantom", out/"world", "--workers", "1"],
            "run": ["run", "--profile", "smoke", "--run", out/"run"],
            "embed": ["embed", given/"marks.csv", given/"scans", "--out", out/"e.safetensors", "--steps", "1", "--patch", "32", "--device", "cpu", "--width", "narrow", "--emb", "4096"]}


def meld(args):
    done = subprocess.run([sys.executable, "-m", "meld_nb.cli", *map(str, args)], capture_output=True, text=True, env=os.environ | dict(MELD_QUIET="1"))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def scans(given):
    "A folder with one scan, and a mark on it."
    model = tiny.make("checkpoint", given)
    if not (given/"scans").exists():
        (given/"scans").mkdir()
        shutil.copy(model/"ct.nii", given/"scans"/"ct.nii")
        (given/"marks.csv").write_text("volume_id,z,x1,y1,x2,y2\nct,2,20,20,30,30\nct,3,24,24,36,36\n")


@pytest.mark.parametrize("name", ["detect", "phantom", "run", "embed"])
def test_a_full_disk(disk, given, name):
    (disk/"earlier.txt").write_text("as it was")
    fill(disk)
    code, said = meld(commands(given, disk)[name])
    assert code and "No space left" in said and "Traceback" not in said, said
    assert (disk/"earlier.txt").read_text() == "as it was"
    assert not [p for p in disk.rglob(".tmp-*")]                           # nothing half written is left


@pytest.mark.parametrize("name", ["detect", "phantom", "run", "embed"])
def test_a_folder_that_cannot_be_written(disk, given, name):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, said = meld(commands(given, disk)[name])
    assert code and "Read-only file system" in said and "Traceback" not in said and 1 <= sum(l.startswith("meld: ") for l in said.splitlines()) <= 2, said   # detect: of the scan, and of its tables


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr"])
def test_a_scan_is_whole_or_absent(disk, suffix):
    import numpy as np
    from meld_nb.volume import Volume, read_volume, write_volume
    vol = Volume(np.random.default_rng(0).integers(-1000, 1000, (20, 32, 32)).astype(np.int16), (.8, .8, 2.))
    write_volume(vol, disk/f"a{suffix}")
    fill(disk)
    with pytest.raises(OSError, match="No space left"): write_volume(vol, disk/f"b{suffix}")
    assert not [p for p in disk.iterdir() if p.name.startswith(("b", ".")) and p.name != "ballast"]
    assert (read_volume(disk/f"a{suffix}").hu == vol.hu).all()


def test_arrays_checkpoints_and_states_are_whole_or_absent(disk):
    import numpy as np, torch
    from meld_nb.backbone import save_tensors
    from meld_nb.core import atomic_path, new_array, sha256
    from meld_nb.train import _save
    net = torch.nn.Linear(100, 100)
    def array(path):
        with atomic_path(path) as tmp: new_array(tmp, (100, 100)).flush()
    writers = {"a.safetensors": lambda p: save_tensors(net, p), "a.pt": lambda p: _save(net.state_dict(), p), "a.npy": array}
    for name, write in writers.items(): write(disk/name)
    before = {name: sha256(disk/name) for name in writers}
    fill(disk)
    for name, write in writers.items():
        for there in (name, f"new_{name}"):                                # in place of an old one, and beside it
            with pytest.raises(OSError, match="No space left") as e: write(disk/there)
            assert e.value.filename == str(disk/there)
    assert {p.name: sha256(p) for p in disk.iterdir() if p.name != "ballast"} == before


def test_a_cache_that_cannot_be_written_blames_no_volume(disk, given):
    from meld_nb.datasets import read_dataset
    from meld_nb.slices import build_cache
    volumes, _, _ = read_dataset("lits", tiny.make("lits", given))
    fill(disk)
    with pytest.raises(OSError, match="No space left"): build_cache(volumes, disk/"cache", workers=0)
