"""Broken files through every reader: a declared error or a result that can be right; no other exception, no hang, no memory without bound.

Small files of every format, and the real ones of MELD_REALDATA, get seeded bit flips (anywhere, or many in the header) and cuts. Readers run in
child processes with 2 GB more memory than they start with and 20 s of processor time a file. What comes back must have the shape that the file's
header says; where the format has checksums it must be what the whole file holds, and of a file that was cut nothing else may come back.

    pytest tests/trust/test_fuzz_files.py                       # 12 broken files a reader
    MELD_FUZZ=400 MELD_FUZZ_SEED=1 pytest tests/trust/test_fuzz_files.py
"""
import json, os, resource, shutil, signal, time, traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

CASES, SEED = int(os.environ.get("MELD_FUZZ", 12)), int(os.environ.get("MELD_FUZZ_SEED", 0))
MEMORY, CPU_S, WALL_S = 2 << 30, 20, 900                       # more than this is a failure
REAL = os.environ.get("MELD_REALDATA")
HEADER = 400                                                   # bytes: where formats keep what matters most

# readers: name -> what writes the files into a folder, which of them are broken, what reads the folder (and says what it got, as plain data),
# and what the format promises: "cut" (a part is never taken for the whole), "sum" (nor is anything else: it has checksums)

READERS = {}


def reader(*promises, breaks="*", real=None):
    "Decorator: a function of a folder that reads it; `make` fills the folder, else `real`, a path below MELD_REALDATA, is copied there."
    def add(f):
        READERS[f.__name__] = dict(read=f, promises=promises, breaks=breaks, real=real, make=None)
        return f
    return add


def makes(*names):
    def add(f):
        for n in names: READERS[n]["make"] = f
        return f
    return add


def scan(size=(9, 7, 4)): # a body of soft tissue with a lesion, in air
    from meld_nb.volume import Volume
    x, y, z = np.meshgrid(*map(np.arange, size), indexing="ij")
    hu = np.where((x - 4)**2/16 + (y - 3)**2/9 <= 1, 40, -1000) + np.where((abs(x - 5) <= 1) & (abs(y - 3) <= 1) & (z % 3 > 0), 30, 0)
    return Volume(np.ascontiguousarray((hu + x + 3*y + 5*z).T.astype(np.int16)), (.8, .9, 2.5), (-3., 4., 10.))


def mask(vol): return type(vol)((vol.hu > 60).astype(np.int16)*2, vol.spacing, vol.origin)


def told(v, **reread): # a Volume as plain data, after a look at what must hold
    from meld_nb.volume import Volume
    assert isinstance(v, Volume) and v.hu.dtype == np.int16 and v.hu.ndim == 3 and v.hu.size and all(np.isfinite(v.spacing)) and min(v.spacing) > 0
    g = reread["geometry"]
    assert sorted(g.size) == sorted(v.size), (g.size, v.size)
    corners = v.native.points([[0, 0, 0], [n - 1 for n in v.size]])
    assert corners.min() == 0 and sorted(corners.max(0) + 1) == sorted(g.size)
    return [v.hu.tolist(), list(v.spacing), list(v.origin), v.direction.tolist()]


def image(path, label=False, **kw):
    from meld_nb.volume import read_geometry, read_volume
    return told(read_volume(path, label=label, **kw), geometry=read_geometry(path, **kw))


def tables(*ts): # plain data of data frames; every box has its corners in order
    for t in ts:
        for a, b in (("x1", "x2"), ("y1", "y2"), ("z1", "z2")):
            if b in t and a in t: assert (t[b] >= t[a]).all()
    return [json.loads(t.to_json(orient="values", double_precision=12, default_handler=str)) for t in ts]


@reader("cut")
def nii(at): return image(at/"a.nii")
@reader("cut", "sum")
def nii_gz(at): return image(at/"a.nii.gz")
@reader("cut")
def mha(at): return image(at/"a.mha")
@reader("cut")
def mha_packed(at): return image(at/"a.mha")
@reader("cut", breaks="*.raw")
def mhd_raw(at): return image(at/"a.mhd")
@reader(breaks="*.mhd")
def mhd_header(at): return image(at/"a.mhd")
@reader("cut")
def nrrd(at): return image(at/"a.nrrd")
@reader("cut")
def nrrd_gz(at): return image(at/"a.nrrd")
@reader("cut")
def dicom(at): return image(at)
@reader("cut", "sum")
def png(at): return image(at, spacing=(.8, .8, 2.))


@makes("nii", "nii_gz", "mha", "mha_packed", "mhd_raw", "mhd_header", "nrrd", "nrrd_gz", "dicom", "png")
def make_image(at, name):
    import SimpleITK as sitk
    from meld_nb.volume import _image, write_dicom, write_pngs
    suffix = dict(nii="nii", nii_gz="nii.gz", mha="mha", mha_packed="mha", mhd_raw="mhd", mhd_header="mhd", nrrd="nrrd", nrrd_gz="nrrd")
    if name == "dicom": write_dicom(scan(), at, "p")
    elif name == "png": write_pngs(scan().hu, at, 7)
    else: sitk.WriteImage(_image(scan()), str(at/f"a.{suffix[name]}"), useCompression=name in ("nii_gz", "mha_packed", "nrrd_gz"))


# data sets in their own layout; with masks, so that the readers of label maps meet broken files too

def data_set(name, at):
    from meld_nb.datasets import check_dataset, load_instances, load_volume, read_dataset
    volumes, lesions, slices = read_dataset(name, at)
    assert len(slices) == volumes.n_slices.sum() and set(lesions.volume_id) <= set(volumes.volume_id)
    for r in volumes.itertuples():
        vol = load_volume(r)
        if sorted(vol.size) != sorted((r.size_x, r.size_y, r.n_slices)): assert any("voxels, the table volumes says" in str(f) for f in check_dataset(name, at))
        if name in ("lits", "nih_ln"): assert load_instances(r).shape == (r.n_slices, r.size_y, r.size_x)
    return tables(lesions.drop(columns=["source"]), slices)


@reader()
def deeplesion(at): return data_set("deeplesion", at)
@reader()
def luna16(at): return data_set("luna16", at)
@reader("cut", breaks="*.nii.gz")
def lits(at): return data_set("lits", at)
@reader()
def nih_ln(at): return data_set("nih_ln", at)


@makes("deeplesion", "luna16", "lits", "nih_ln")
def make_data_set(at, name):
    from meld_nb.volume import write_dicom, write_pngs, write_volume
    vol = scan()
    if name == "deeplesion":
        from meld_nb.deeplesion import DL_COLUMNS
        write_pngs(vol.hu, at/"Images_png"/"000001_01_01", 5)
        row = ["000001_01_01_006.png", 1, 1, 1, 6, "4, 3, 8, 5, 5, 3, 6, 5", "1, 1, 9, 7", "4.47, 2.24", ".4, .5, .6", 5, 0, "5, 8", ".8, .8, 2.5", "9, 7", "-1024, 3071", "F", 62, 1]
        pd.DataFrame([row], columns=DL_COLUMNS).to_csv(at/"DL_info.csv", index=False)
    elif name == "luna16":
        write_volume(vol, at/"subset0"/"1.2.3.mhd")
        for f in ("annotations.csv", "annotations_excluded.csv"): (at/f).write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,-0.2,6.7,14.9,4.1\n")
    elif name == "lits":
        write_volume(vol, at/"volume-0.nii.gz"); write_volume(mask(vol), at/"segmentation-0.nii.gz", np.uint8)
        (at/"overrides.csv").write_text("case,spacing_x,spacing_y,spacing_z,orientation\nvolume-0,.8,.9,2.5,\n")
    else:
        write_dicom(vol, at/"MED_LYMPH_001", "MED_LYMPH_001")
        write_volume(mask(vol), at/"MED_ABD_LYMPH_MASKS"/"MED_LYMPH_001"/"MED_LYMPH_001_mask.nii.gz", np.uint8)


# tables, labels, checkpoints, profiles

@reader("cut")
def parquet(at):
    from meld_nb.tables import read_table
    return tables(read_table(at/"t.parquet", "proposals"))
@reader()
def table_csv(at):
    from meld_nb.tables import read_table
    return tables(read_table(at/"t.csv", "proposals"))
@reader("cut")
def tensors(at):
    from meld_nb.backbone import read_tensors
    got, meta = read_tensors(at/"m.safetensors")
    return [{k: [list(v.shape), v.tolist()] for k, v in got.items()}, meta]
@reader("cut")
def model(at):
    from meld_nb.meld import load_model
    m = load_model(at/"m.safetensors", "cpu")
    return [list(v.shape) for v in m.state_dict().values()]
@reader("cut")
def lesanet(at):
    from meld_nb.lesanet import load_lesanet
    return [list(v.shape) for v in load_lesanet(at/"m.safetensors", device="cpu").state_dict().values()]
@reader("cut")
def weights_pth(at):
    from meld_nb.backbone import read_weights
    return [[k, list(v.shape)] for k, v in read_weights(at/"m.pth").items()]
@reader()
def profile(at):
    from meld_nb.core import repo_root
    from meld_nb.study import plan
    return json.loads(json.dumps(plan(at/"p.yaml", study=repo_root()/"nbs"/"study"), default=str))
@makes("parquet", "table_csv", "tensors", "model", "lesanet", "weights_pth", "profile")
def make_file(at, name):
    import torch
    from meld_nb.backbone import save_tensors
    if name in ("parquet", "table_csv"):
        t = pd.DataFrame(dict(volume_id=["lits/volume-1"]*9, patient_id="lits/volume-1", z=range(9), x1=np.arange(9.), y1=2., x2=np.arange(9.) + 7.5, y2=9., score=np.linspace(0, 1, 9), expert="lits"))
        from meld_nb.tables import write_table
        if name == "parquet": write_table(t, at/"t.parquet", "proposals")
        else: t.to_csv(at/"t.csv", index=False)
    elif name == "tensors": save_tensors(torch.nn.Linear(3, 4), at/"m.safetensors", names=["a", "b"], size=3)
    elif name == "weights_pth": torch.save(torch.nn.Linear(3, 4).state_dict(), at/"m.pth")
    elif name == "model":
        from meld_nb.meld import MELD, meld_config, save_model
        save_model(MELD(**meld_config("narrow", datasets=["deeplesion", "lits"])), at/"m.safetensors", data="phantoms")
    elif name == "lesanet":
        from meld_nb.lesanet import LesaNet, save_lesanet
        save_lesanet(LesaNet(2, "narrow", 24, 8, terms=["lung", "liver"]), at/"m.safetensors")
    else: (at/"p.yaml").write_text("study:\n  seed: 1000\n  world: smoke\n  chapters: [10_data, 25_meld]\n25_meld:\n  epochs: 2\n  lr: 0.001\n  composition: {deeplesion: 2, lits: 1}\n")


# real files

@reader("cut", "sum", real="ct_totalsegmentator/chest_heart_mask_othergrid.nii.gz")
def real_nii_gz(at): return image(at/"chest_heart_mask_othergrid.nii.gz", label=True)
@reader("cut", "sum", real="deeplesion_slices_derived/Images_png/000376_02_01")
def real_png(at): return image(at/"000376_02_01", spacing=(.8, .8, 5.))
@reader(real="dl_info/DL_info_excerpt_rows693-850.csv")
def real_dl_info(at):
    from meld_nb.deeplesion import deeplesion_tables, read_dl_info
    return tables(*deeplesion_tables(read_dl_info(at/"DL_info_excerpt_rows693-850.csv", first_row=693))[:2])
@reader(real="luna16/annotations.csv")
def real_nodules(at):
    from meld_nb.luna16 import read_nodules
    t = read_nodules(at/"annotations.csv")
    assert (t.diameter_mm > 0).all() and np.isfinite(t[["coordX", "coordY", "coordZ"]]).all(axis=None)
    return tables(t)
@reader("cut", real="deeplesion_manual_1k/DeepLesion_manual_1K_test_release.pkl")
def real_manual_1k(at):
    from meld_nb.deeplesion import read_manual_1k
    return tables(*read_manual_1k(at/"DeepLesion_manual_1K_test_release.pkl"))
@reader("cut", real="deeplesion_recist_boxes/Revised-Train100.pkl")
def real_revised(at):
    from meld_nb.deeplesion import read_lesion_harvester
    return tables(*read_lesion_harvester(next(at.glob("*.pkl"))))
@reader(real="deeplesion_recist_boxes/RECIST-Box-Valid.csv")
def real_boxes_csv(at):
    from meld_nb.deeplesion import read_lesion_harvester
    return tables(*read_lesion_harvester(at/"RECIST-Box-Valid.csv"))
@reader("cut", real="lesanet/text_mined_labels_171_and_split.json")
def real_labels(at):
    from meld_nb.labels import read_labels
    t = read_labels(next(at.glob("*.json")))
    return [len(t), t.lesion.tolist()]
@reader(real="lesanet/lesion_ontology_181022.csv")
def real_ontology(at):
    from meld_nb.labels import read_ontology
    return tables(read_ontology(next(at.iterdir())))
@reader("cut", real="lesanet/lesion_ontology_181022.xlsx")
def real_ontology_xlsx(at):
    from meld_nb.labels import read_ontology
    return tables(read_ontology(next(at.iterdir())))
@reader("cut", real="lesion_pairs/dls_valid.json")
def real_pairs(at):
    from meld_nb.real import read_pairs
    marks, pairs = read_pairs(at/"dls_valid.json")
    assert pairs.shape == (len(pairs), 2) and (not len(pairs) or pairs.max() < len(marks))
    return [len(pairs)]


# breaking

def damage(data, g): # bytes, and what was done
    if not data: return data, "nothing"
    kind = g.integers(4)
    if kind == 3:
        n = int(g.integers(len(data)))
        return data[:n], f"cut to {n} of {len(data)} bytes"
    many, end = (1, len(data)) if kind == 0 else (int(g.integers(1, 17)), len(data) if kind == 1 else min(HEADER, len(data)))
    bits = np.unique(g.integers(8*end, size=many))
    a = np.frombuffer(data, np.uint8).copy()
    np.bitwise_xor.at(a, bits//8, (1 << bits % 8).astype(np.uint8))
    return a.tobytes(), f"bits {bits[:4].tolist()}{' ...' if len(bits) > 4 else ''} flipped"


def one(name, at, files, k, whole):
    "Read the folder with one file broken: what came of it. Any breach raises."
    from meld_nb.core import InputError
    r, g = READERS[name], np.random.default_rng((SEED, k, sum(name.encode())))
    path = files[g.integers(len(files))]
    data = path.read_bytes()
    broken, did = damage(data, g)
    path.write_bytes(broken)
    where = f"{path.relative_to(at)}, {did}"
    try:
        try: got = r["read"](at)
        except InputError as e:
            assert "\n" not in str(e) and len(str(e)) < 3000, f"{where}: the message is no line: {str(e)[:300]}"
            return "refused"
        except Exception as e: raise AssertionError(f"{where}: {type(e).__name__}: {e}") from e
        same = json.dumps(got) == json.dumps(whole)
        if "sum" in r["promises"] or "cut" in r["promises"] and did.startswith("cut"): assert same, f"{where}: read as if it were whole"
        return "the same" if same else "read"
    finally: path.write_bytes(data)


def child(name, at, say):
    "All broken files of a reader; a line before each, and one after it."
    r = READERS[name]
    if r["make"]: r["make"](at, name)
    else:
        source = Path(REAL)/r["real"]
        shutil.copytree(source, at/source.name) if source.is_dir() else shutil.copy(source, at)
    files = sorted(p for p in at.rglob(r["breaks"]) if p.is_file())
    whole = r["read"](at)
    used = int(Path("/proc/self/statm").read_text().split()[0])*resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,)*2)
    for k in range(CASES):
        say(f"begin {k}")
        try: say("end " + one(name, at, files, k, whole))
        except Exception as e: say("bad " + "".join(traceback.format_exception(e)).replace("\n", "\x1f"))


def watch(pid, log):
    "Wait for a child; ends it, and says so, if a file takes too long."
    begun, seen = (time.time(), 0.), -1
    cpu = lambda: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))/os.sysconf("SC_CLK_TCK")
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return "" if status == 0 else f"ended by signal {os.waitstatus_to_exitcode(status)}" if status else ""
        n = log.stat().st_size if log.exists() else 0
        if n != seen: begun, seen = (time.time(), cpu()), n
        elif n and (cpu() - begun[1] > CPU_S or time.time() - begun[0] > WALL_S):
            os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
            return f"took more than {CPU_S} s of processor time"
        time.sleep(.05)


@pytest.mark.parametrize("name", READERS)
def test_broken_files(name, tmp_path):
    real = READERS[name]["real"]
    if real and not REAL: pytest.skip("MELD_REALDATA is not set")
    log, at = tmp_path/"log", tmp_path/"files"
    at.mkdir()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with open(log, "a", buffering=1) as f: child(name, at, lambda line: f.write(line + "\n"))
            code = 0
        except BaseException: log.open("a").write("bad " + traceback.format_exc().replace("\n", "\x1f"))
        finally: os._exit(code)
    ended = watch(pid, log)
    lines = log.read_text().splitlines()
    count = Counter(l.partition(" ")[2] for l in lines if l.startswith("end"))
    print(f"{name}: {dict(count)}")
    bad = [l[4:].replace("\x1f", "\n") for l in lines if l.startswith("bad")]
    assert not bad, f"{len(bad)} of {CASES} broken files:\n\n" + "\n".join(bad[:3])
    assert not ended, f"broken file {lines[-1]}: {ended}"
    assert sum(count.values()) == CASES and (count["refused"] or CASES < 12), count
