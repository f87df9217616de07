"""Hostile input: nothing that a file, a profile or a command line says is executed, reaches out of its folder, fills the memory, or shows who a patient is.

    pytest tests/trust -q
"""
import contextlib, gzip, html.parser, io, json, os, pickle, shutil, struct, subprocess, sys, time, tracemalloc, warnings, zipfile, zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import tiny
from meld_nb.cli import main
from meld_nb.core import InputError, parse_yaml, read_json, sha256
from meld_nb.datasets import read_dataset
from meld_nb.deeplesion import read_lesion_harvester, read_manual_1k, read_revised_1071, safe_unpickle
from meld_nb.tables import read_table
from meld_nb.volume import read_volume

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def trees(tmp_path_factory): return tmp_path_factory.mktemp("trees")

@pytest.fixture(autouse=True)
def sentinel(tmp_path, monkeypatch):
    "A file that appears if anything hostile runs; checked after every test."
    monkeypatch.setenv("MELD_QUIET", "1")
    path = tmp_path/"it_ran"
    yield path
    assert not path.exists(), "hostile code was executed"


# ---- pickles --------------------------------------------------------------------------------------------------------

class Call:
    "Pickles as a call of `f`."
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

def system(path): return Call(os.system, f"touch {path}")
def evaluate(path): return Call(eval, f"open({str(path)!r}, 'w')")

HOSTILE = dict(
    system=system, eval=evaluate,
    exec=lambda p: Call(exec, f"open({str(p)!r}, 'w')"),
    opened=lambda p: Call(open, str(p), "w"),
    nested=lambda p: {"test": {tiny.NAME: [system(p)]}},
    as_key=lambda p: {Call(os.open, str(p), os.O_CREAT): 1},
    two_d=lambda p: {f"{tiny.NAME}.annot": {2: evaluate(p)}},
    object_array=lambda p: {"val": {}, "test": {tiny.NAME: np.array([system(p), evaluate(p)], object)}},
    object_scalar=lambda p: np.array(system(p), object),
    loads_again=lambda p: Call(pickle.loads, pickle.dumps(system(p))),
    subprocess=lambda p: Call(subprocess.call, ["touch", str(p)]),
    numpy_save=lambda p: Call(np.save, str(p), np.zeros(1)),
)

def torch_saved(obj, path):
    import torch
    torch.save(obj, path)

def hostile_readers():
    "Every reader of a pickle, or of a file in whose place one may lie: name -> (suffix, function of a path)."
    from meld_nb.backbone import load_trunk, read_weights, Trunk, TRUNKS
    from meld_nb.lesanet import load_lesanet
    from meld_nb.meld import load_model
    from meld_nb.labels import read_labels, read_ontology
    from meld_nb.train import _read_state
    trunk = Trunk(**TRUNKS["narrow"])
    return dict(safe_unpickle=(".pkl", safe_unpickle), read_revised_1071=(".pkl", read_revised_1071), read_manual_1k=(".pkl", read_manual_1k), read_lesion_harvester=(".pkl", lambda p: read_lesion_harvester(p, split="test")),
                load_model=(".safetensors", load_model), load_lesanet=(".safetensors", load_lesanet), read_weights=(".pth", read_weights), load_trunk=(".pth", lambda p: load_trunk(trunk, p)), state=(".pt", _read_state),
                read_table=(".parquet", lambda p: read_table(p, "lesions")), read_json=(".json", read_json), read_labels=(".json", read_labels), read_ontology=(".xlsx", read_ontology), read_volume=(".nii", read_volume))

@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_pickles(payload, tmp_path, sentinel):
    for name, (suffix, read) in hostile_readers().items():
        for protocol in range(6):
            path = tmp_path/f"{name}{protocol}{suffix}"
            path.write_bytes(pickle.dumps(HOSTILE[payload](sentinel), protocol))
            with pytest.raises(InputError): read(path)
            assert not sentinel.exists(), (name, protocol)

@pytest.mark.parametrize("payload", ["system", "nested", "object_array"])
def test_hostile_torch_files(payload, tmp_path, sentinel):
    for name, (suffix, read) in hostile_readers().items():
        if suffix not in (".pth", ".pt", ".safetensors"): continue
        torch_saved({"features.conv0.weight": HOSTILE[payload](sentinel)}, path := tmp_path/f"{name}{suffix}")
        with pytest.raises(InputError): read(path)

def test_what_the_payloads_would_do(tmp_path):
    "They are live: an ordinary `pickle.loads` runs each of them."
    for name, make in HOSTILE.items():
        data = pickle.dumps(make(path := tmp_path/f"{name}_ran"))
        with contextlib.suppress(Exception): pickle.loads(data)
        assert path.exists() or path.with_name(path.name + ".npy").exists(), name

FLAGS = b"cnumpy\ndtype\n(S'f8'\nI00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI63\ntb."
@pytest.mark.parametrize("data", [FLAGS, b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R}U\x01aK\x01sb.", b"\x80\x02]}U\x06appendNsb.", b"\x80\x02cnumpy\ndtype\n\x81.", b"\x80\x02cos\nsystem\nU\x04true\x81.",
                                  b"(S'true'\nios\nsystem\n.", b"(cos\nsystem\nS'true'\no.", b"\x80\x02\x82\x01.", b"\x80\x02Pname\n."],
                         ids=["flags of a type", "state of a type", "state of a list", "a type made anew", "NEWOBJ", "INST", "OBJ", "EXT1", "PERSID"])
def test_odd_opcodes(data, tmp_path):
    (path := tmp_path/"x.pkl").write_bytes(data)
    with pytest.raises(InputError): safe_unpickle(path)


# ---- YAML and parameters ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch {}']", "!!python/object/new:os.system ['touch {}']", "!!python/name:os.system", "!!python/module:os", "!!python/object:os.system {{}}",
                                 "!!python/object/apply:builtins.eval ['open(\"{}\", \"w\")']"])
def test_python_tags_in_profiles(tag, tmp_path, sentinel, capsys):
    (profile := tmp_path/"p.yaml").write_text("study:\n  seed: 1000\n  world: " + tag.format(sentinel) + "\n")
    assert main(["run", "--profile", str(profile), "--dry-run", "--run", str(tmp_path/"run")]) == 2 and "not YAML" in capsys.readouterr().err
    assert main(["phantom", str(tmp_path/"world"), "--profile", str(profile)]) == 2 and "not YAML" in capsys.readouterr().err
    with pytest.raises(InputError): parse_yaml(tag.format(sentinel))

def test_aliases_that_unfold():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i-1}']*9)}]\n" for i in range(1, 12))
    with pytest.raises(InputError, match="its aliases unfold to more than a million values"): parse_yaml(bomb)
    with pytest.raises(InputError): parse_yaml("&a [*a]")
    assert parse_yaml("_t: &t {lr: 1, n: 2}\na: {<<: *t, n: 3}") == dict(_t=dict(lr=1, n=2), a=dict(lr=1, n=3))

NASTY = ['"', "'", "\"\"\"", "'''", "\\", "\\n", "a\nb\n", "\t", "{", "}", "{run}", "{{7*7}}", "${HOME}", "$(touch it_ran)", "`touch it_ran`", "; touch it_ran #", "'; touch it_ran; '", "!touch it_ran", "%sx touch it_ran",
         "\"\nimport os; os.system('touch it_ran')\n\"", "__import__('os').system('touch it_ran')", "a # b", " a ", "yes", "1e3", "null", "[1, 2]", "{a: 1}", "&a", "*a", "é☃𝄞", "<script>", "\x00", "\x1b[2J", "%(x)s", "{0.__class__}", ""]

@pytest.fixture(scope="session")
def echo(tmp_path_factory):
    "A study of one chapter, which writes down its parameters."
    import nbformat
    study = tmp_path_factory.mktemp("study")
    shutil.copy(ROOT/"nbs"/"study"/"engine.smk", study)
    (study/"Snakefile").write_text('include: "engine.smk"\nchapter("10_echo", "", "said.json")\n')
    (study/"params").mkdir(); (study/"params"/"p.yaml").write_text(yaml.safe_dump({"study": {"seed": 1000}, "10_echo": {"table": {"values": NASTY, **{k: k for k in NASTY}}}}))
    v = nbformat.v4
    cell = lambda source, *tags: v.new_code_cell(source, metadata=dict(tags=list(tags)))
    book = v.new_notebook(cells=[cell('run = "x"\nseed = 1000\ntext = ""\nlist_ = [""]\ntable = {}', "parameters"),
                                 cell('from meld_nb.study import chapter\nfrom meld_nb.core import write_json\nch = chapter("10_echo", globals())'),
                                 cell('write_json(dict(seed=seed, text=text, list=list_, table=table), ch.out/"said.json")'), cell("ch.done();")],
                          metadata=dict(kernelspec=dict(name="python3", language="python", display_name="Python 3")))
    nbformat.write(book, study/"10_echo.ipynb")
    return study

def test_parameters_are_data(echo, tmp_path, monkeypatch, sentinel):
    "Through the command line, the profile, Snakemake's shell and papermill into the notebook, as the same values."
    from meld_nb.study import plan, run_study
    for text in NASTY: assert plan("p", set={"10_echo.text": text}, study=echo)["parameters"]["10_echo"]["text"] == text
    monkeypatch.chdir(tmp_path)
    text = "".join(NASTY[:-1])
    assert run_study("p", set={"10_echo.text": text, "10_echo.list_": NASTY}, run=tmp_path/"a run of it's own", study=echo, cores=1) == 0
    said = read_json(tmp_path/"a run of it's own"/"10"/"said.json")
    assert said == dict(seed=1000, text=text, list=NASTY, table={"values": NASTY, **{k: k for k in NASTY}})
    for where in (tmp_path, tmp_path/"a run of it's own", echo): assert not (where/"it_ran").exists()


# ---- checkpoints --------------------------------------------------------------------------------------------------------

def test_safetensors_that_lie(trees, tmp_path):
    from meld_nb.meld import load_model
    good = (tiny.make("checkpoint", trees)/"model.safetensors").read_bytes()
    n = struct.unpack("<Q", good[:8])[0]
    head = json.loads(good[8:8+n])
    name = next(k for k in head if k != "__metadata__")
    def file(header, length=None):
        b = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(b) if length is None else length) + b + good[8+n:]
    lies = dict(header_beyond_the_file=file(head, 1 << 40), header_of_zero=file(b"", 0), header_cut=file(head, n//2), not_json=file(b"{" + b"["*999), deep=file(b"["*100_000),
                offsets=file(head | {name: head[name] | dict(data_offsets=[0, 1 << 40])}), overlap=file(head | {name: head[name] | dict(data_offsets=[4, 8])}), shape=file(head | {name: head[name] | dict(shape=[1 << 30, 1 << 30])}),
                dtype=file(head | {name: head[name] | dict(dtype="O8")}), metadata=file(head | dict(__metadata__=dict(meta="[1]"))), metadata_text=file(head | dict(__metadata__=dict(meta="{"))),
                deep_metadata=file(head | dict(__metadata__=dict(meta="["*100_000))))
    for what, data in lies.items():
        (path := tmp_path/f"{what}.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=f"{what}.safetensors"): load_model(path, "cpu")


# ---- paths ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "000001_01_01_../../x.png", "../000003_01_01_003.png", "000003_01_01_003.png/../../x", "000003_01_01_003.png\x00", "file:///etc/passwd", "C:\\x.png", "~/x.png", "٣_٣_٣_٣.png"])
def test_file_names_that_leave_their_folder(name, trees, tmp_path):
    shutil.copytree(tiny.make("deeplesion", trees), tmp_path/"d")
    info = tmp_path/"d"/"DL_info.csv"
    info.write_text(info.read_text().replace("000003_01_01_003.png", name), encoding="utf-8")
    with pytest.raises(InputError, match="DL_info.csv"): read_dataset("deeplesion", tmp_path/"d")

@pytest.mark.parametrize("name", ["../{}", "{}", "sub/../../{}"])
@pytest.mark.parametrize("file", ["ct.mhd", "ct.nhdr"])
def test_voxels_of_another_folder(name, file, trees, tmp_path):
    shutil.copytree(tiny.make("scan", trees), tmp_path/"d")
    shutil.move(tmp_path/"d"/"ct.raw", tmp_path/"secret.raw")
    head = tmp_path/"d"/file
    for field in ("ElementDataFile = ct.raw", "data file: ct.nraw"): head.write_text(head.read_text().replace(field, field.rsplit(" ", 1)[0] + " " + name.format(tmp_path/"secret.raw" if name == "{}" else "secret.raw")))
    with pytest.raises(InputError, match="expected a file in its own folder or below it"): read_volume(head)

def test_a_list_of_voxels_of_another_folder(trees, tmp_path):
    shutil.copytree(tiny.make("scan", trees), tmp_path/"d")
    head = tmp_path/"d"/"ct.mhd"
    head.write_text(head.read_text().replace("ElementDataFile = ct.raw", "ElementDataFile = LIST 2\n" + "../secret.raw\n"*6))
    with pytest.raises(InputError, match="expected a file in its own folder or below it"): read_volume(head)

META, NRRD = ("ct.mhd", "ElementDataFile = ct.raw"), ("ct.nhdr", "data file: ct.nraw")
@pytest.mark.parametrize("file,old,new", [
    (*META, "elementdatafile = ct.mha\nElementDataFile = {}"), (*META, "\nElementDataFile = {}"), (*META, " \nElementDataFile = {}"), (*META, "ElementMin =\nElementDataFile = ct.mha\nElementDataFile = {}"),
    (*META, "ElementDataFile\0 = {}\nElementDataFile = ct.mha"), (*META, "ElementDataFile = list/../{}"), (*META, "ElementDataFile = LIST\n" + " "*(1 << 20) + "\n{}"*6), (*META, "ElementDataFile = %d{} 1 1 1"),
    (*NRRD, "data file: {}\ndata file:=ct.mha"), (*NRRD, "elementdatafile:=ct.mha\ndata file: {}"), (*NRRD, "datafile: {}\ndata file:=ct.mha"), (*NRRD, "DATAFILE: {}\nData File:=ct.mha"),
    (*NRRD, "# a remark\ndata file: {}\nelementdatafile:=ct.mha"), (*NRRD, "data file: LIST/../{}"), (*NRRD, "# a remark\rdata file: {}"), (*NRRD, "content: x\rdata file: {}\ndata file:=ct.mha"), (*NRRD, "data file: -")])
@pytest.mark.parametrize("name", ["../secret.raw", "/secret.raw"])
def test_headers_with_two_readings(file, old, new, name, trees, tmp_path):
    "A decoy that only one of the parsers takes for the name of the voxels' file."
    shutil.copytree(tiny.make("scan", trees), tmp_path/"d")
    shutil.move(tmp_path/"d"/"ct.raw", tmp_path/"secret.raw"); (tmp_path/"d"/"list").mkdir(); (tmp_path/"d"/"-").write_bytes((tmp_path/"secret.raw").read_bytes())
    head = tmp_path/"d"/file
    assert old in head.read_text()
    head.write_text(head.read_text().replace(old, new.replace("{}", name if name[0] == "." else str(tmp_path/"secret.raw"))) + "\n" + "x"*9999)   # as long as the voxels
    with pytest.raises(InputError, match=file): read_volume(head)

READ_EACH = """
import sys
from meld_nb.core import InputError
from meld_nb.volume import find_scans, read_volume, sitk, write_image
for path in sys.argv[1:]:
    try: print({})
    except InputError as e: print(e)
"""
def in_a_child(paths, call="read_volume(path)"):
    "What a process says that reads these, a line each: it may crash, or wait for ever."
    done = subprocess.run([sys.executable, "-c", READ_EACH.format(call), *paths], capture_output=True, text=True, errors="replace", timeout=60, env=os.environ | dict(OMP_NUM_THREADS="1"))
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    return zip(map(str, paths), done.stdout.splitlines(), strict=True)

FORMATS = ["s%s%s%s%s%s%s.raw 0 5 1", "s%n.raw 0 5 1", "s%d%n.raw 0 5 1", "s%5000d.raw 0 5 1", "s%d.raw 0 5 0", "s%d.raw 5 0 1", "s%d.raw 0 99999999 1", "s%*d.raw 0 5 1", "s%hhn%d.raw 0 5 1", "s%d", "%"]
@pytest.mark.parametrize("file,field,own", [("ct.mhd", "ElementDataFile = ", "ct.raw"), ("ct.nhdr", "data file: ", "ct.nraw")])
def test_names_that_printf_would_run(file, field, own, trees, tmp_path):
    text, heads = (tiny.make("scan", trees)/file).read_text(), [tmp_path/f"{k}{file}" for k in range(len(FORMATS))]
    for head, name in zip(heads, FORMATS): head.write_text(text.replace(field + own, field + name))
    for head, said in in_a_child(heads): assert said.startswith(head) and "expected a name with one %d or %03d" in said

LATIN = os.fsdecode(b"M\xfcller")
def test_names_that_are_not_utf8(trees, tmp_path):
    "The image library ends the process at them."
    scan, files = tiny.make("scan", trees), ["ct.nii", "ct_packed.nii.gz", "ct.mhd", "ct.mha", "ct.nrrd", "ct.nhdr"]
    for d in (tmp_path/LATIN, tmp_path/"named"): shutil.copytree(scan, d)
    for f in files: (tmp_path/"named"/f).rename(tmp_path/"named"/f"{LATIN}{f}")
    for p in (tmp_path/"named"/"dicom").iterdir(): p.rename(p.with_name(f"{LATIN}{p.name}"))
    shutil.copy(scan/"ct.mhd", head := tmp_path/"head.mhd"); head.write_bytes(head.read_bytes().replace(b"ct.raw", os.fsencode(LATIN)))
    for path, said in in_a_child([*(tmp_path/LATIN/f for f in files), *(tmp_path/"named"/f"{LATIN}{f}" for f in files), tmp_path/LATIN/"dicom", tmp_path/LATIN/"pngs", tmp_path/"named"/"dicom", head]):
        assert "M\\udcfcller" in said and "its name is not UTF-8" in said, path
    for path, said in in_a_child([tmp_path/LATIN/"new.nii", tmp_path/f"{LATIN}.mha"], "write_image(sitk.Image(2, 2, 2, 1), path)"): assert "its name is not UTF-8" in said, path

def test_only_regular_files_are_read(trees, tmp_path):
    "A pipe is waited for, and /dev/zero has no end."
    suffixes = (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr")
    for s in suffixes: os.mkfifo(tmp_path/f"pipe{s}"); (tmp_path/f"zero{s}").symlink_to("/dev/zero")
    for path, said in in_a_child([tmp_path/f"{n}{s}" for n in ("pipe", "zero") for s in suffixes]): assert said == f"{path}: neither a regular file nor a folder"
    shutil.copytree(tiny.make("scan", trees), tmp_path/"d"); pipes = {"ct.mhd": "ct.raw", "ct.nhdr": "ct.nraw"}
    for f in pipes.values(): (tmp_path/"d"/f).unlink(); os.mkfifo(tmp_path/"d"/f)
    for path, said in in_a_child([tmp_path/"d"/f for f in pipes]): assert said == f"{path}: its voxels are said to lie in {pipes[Path(path).name]!r}, which is no regular file"
    (tmp_path/"e").mkdir(); os.mkfifo(tmp_path/"e"/"pipe"); (tmp_path/"e"/"zero").symlink_to("/dev/zero")
    for path, said in in_a_child([tmp_path/"e"], "*find_scans(path)"): assert said == path

def test_one_bad_name_does_not_stop_the_others(trees, tmp_path, capfd):
    model = tiny.make("checkpoint", trees)
    (tmp_path/"d").mkdir(); shutil.copy(model/"ct.nii", tmp_path/"d"); shutil.copy(model/"ct.nii", tmp_path/"d"/"zzz.nii")
    shutil.copy(model/"ct.nii", tmp_path/"d"/f"{LATIN}.nii")
    for n in ("gone", "gone.nii"): (tmp_path/"d"/n).symlink_to(f"nowhere {n}")
    os.mkfifo(tmp_path/"d"/"pipe.nii")
    assert main(["detect", str(tmp_path/"d"), "--checkpoint", str(model/"model.safetensors"), "--out", str(tmp_path/"out"), "--format", "csv,json", "--device", "cpu"]) == 1
    said = capfd.readouterr().err
    got = read_json(tmp_path/"out"/"detections.json")
    assert sorted(Path(f["scan"]).name for f in got["failed"]) == sorted(bad := [f"{LATIN}.nii", "gone", "gone.nii", "pipe.nii"]) and all(f"{n}: ".replace("\udcfc", "\\udcfc") in said for n in bad)
    assert [Path(s).name for s in got["scans"] if Path(s).name in ("ct.nii", "zzz.nii")] == ["ct.nii", "zzz.nii"] and (tmp_path/"out"/"detections.csv").is_file()

def test_a_header_of_blanks_is_refused_at_once(tmp_path):
    for text in (" "*60_000 + "x\n", "x" + " "*60_000 + "x\n", "Comment = x" + " "*60_000 + "x\n", "a: "*20_000):
        for s in ("mha", "nrrd"):
            (path := tmp_path/f"a.{s}").write_text(text)
            begun = time.process_time()
            with pytest.raises(InputError, match=f"a.{s}: header cannot be read"): read_volume(path)
            assert time.process_time() - begun < 2

def test_a_label_of_fifty_million_takes_no_memory():
    from meld_nb.volume import instance_rows
    a = np.zeros((3, 9, 9), np.int64); a[1,2:4,3:5] = 50_000_000; a[2,7,7] = 2_000_000_000
    tracemalloc.start()
    rows = instance_rows(a).values.tolist()
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert rows == [[50_000_000, 1, 2.5, 1.5, 4.5, 3.5], [2_000_000_000, 2, 6.5, 6.5, 7.5, 7.5]] and peak < 1 << 24

def test_names_in_pickles(tmp_path):
    for name in ("../../etc/passwd", "000001_01_01_1-2/../x", "/etc/passwd"):
        (path := tmp_path/"x.pkl").write_bytes(pickle.dumps({name: {}}, 2))
        with pytest.raises(InputError, match="is not the name of a sub-volume"): read_revised_1071(path)


# ---- pages -----------------------------------------------------------------------------------------------------------------

TAG = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&'

class _Tags(html.parser.HTMLParser):
    def __init__(self, page): super().__init__(); self.found = []; self.feed(page)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))

def test_reports_escape_what_files_say(tmp_path):
    from meld_nb.report import write_report
    run = tmp_path/TAG.replace("/", "")
    (run/"70").mkdir(parents=True)
    (run/"run.json").write_text(json.dumps(dict(profile=TAG, commit=TAG, dirty=TAG, finished=True, study=dict(seed=TAG, data={}), jobs={"70": dict(chapter=TAG, seconds=1, peak_memory_gb=1, inputs={})})))
    (run/"70"/"tab1.csv").write_text('"a ' + TAG.replace('"', '""') + '",b\n"' + TAG.replace('"', '""') + '",1\n')
    (run/"70"/"fig.svg").write_text(f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(3)'>{TAG}</svg>")
    for stem in ("tab1", "fig"): (run/"70"/f"{stem}.json").write_text(json.dumps(dict(chapter=TAG, run=TAG, data=TAG, commit=TAG, caption=TAG, parameters={})))
    (run/"70"/"record.json").write_text(json.dumps(dict(chapter="70" + TAG, parameters={}, inputs={}, seconds=1, peak_memory_gb=1, outputs={p.name: sha256(p) for p in (run/"70").iterdir()} | {"gone.csv": TAG, "gone.json": TAG})))
    page = write_report([run], tmp_path/"report.html").read_text()
    tags = _Tags(page).found
    assert "alert(1)" in page and {t for t, _ in tags} <= {"html", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "img", "details", "summary"}
    assert not [a for _, a in tags if any(k.startswith("on") for k in a)]
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for t, a in tags if t == "img")      # a picture runs no script


# ---- patients -------------------------------------------------------------------------------------------------------------

WHO = dict(PatientName="Zebulon^Quartermain<script>alert(1)</script>", PatientID="ID-7351-XYZZY", PatientBirthDate="19520229", OtherPatientIDs="OTHER-9942", PatientAddress="12 Nowhere Lane",
           ReferringPhysicianName="Dr^Wormwood", AccessionNumber="ACC-55501", InstitutionName="Saint Elsewhere", RequestingPhysician="Dr^Hemlock", OperatorsName="Op^Nightshade")
SECRETS = [s for v in WHO.values() for s in (v, v.split("<")[0], v.split("^")[-1].split("<")[0])]

def name_patient(folder):
    for p in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(p)
        for k, v in WHO.items(): setattr(ds, k, v)
        ds.save_as(p)

def tell(texts):
    for where, text in texts.items(): assert not [s for s in SECRETS if s in text], f"{where} shows a patient"

def test_no_patient_is_named(trees, tmp_path, capfd):
    from meld_nb.slices import build_cache
    shutil.copytree(tiny.make("nih_ln", trees), tmp_path/"nih_ln")
    name_patient(tmp_path/"nih_ln")
    series = next((tmp_path/"nih_ln").rglob("*.dcm")).parent
    assert main(["check", "nih_ln", str(tmp_path/"nih_ln"), "--voxels"]) == 0
    tables = read_dataset("nih_ln", tmp_path/"nih_ln")
    build_cache(tables[0], tmp_path/"out"/"cache", workers=1)
    model = str(tiny.make("checkpoint", trees)/"model.safetensors")
    assert main(["detect", str(series), "--checkpoint", model, "--out", str(tmp_path/"out"/"good"), "--overlays", "1", "--score", "0", "--device", "cpu"]) == 0
    files = sorted(series.iterdir())
    for k, change in enumerate((lambda ds: ds.__delattr__("RescaleSlope"), lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"), lambda ds: setattr(ds, "Rows", 7), lambda ds: setattr(ds, "ImagePositionPatient", [0, 0, 0]))):
        before = files[k].read_bytes()
        change(ds := pydicom.dcmread(files[k])); ds.save_as(files[k])
        assert main(["detect", str(series), "--checkpoint", model, "--out", str(tmp_path/"out"/f"bad{k}"), "--device", "cpu"]) == 1
        assert main(["check", "nih_ln", str(tmp_path/"nih_ln"), "--voxels"]) == 1
        files[k].write_bytes(before)
    files[0].write_bytes(files[0].read_bytes()[:700])
    assert main(["check", "nih_ln", str(tmp_path/"nih_ln")]) == 1
    said = capfd.readouterr()
    made = {str(p): p.read_bytes().decode("latin1") for p in (tmp_path/"out").rglob("*") if p.is_file()}
    assert any(p.endswith(".png") for p in made) and any(p.endswith("detections.json") for p in made) and any(p.endswith("meta.json") for p in made)
    tell({"the output": said.out, "the errors": said.err, "a table": "".join(t.to_csv() for t in tables)} | made)

def set_raw(folder, **values):
    "Values in the headers that pydicom would not write."
    for p in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(p)
        for k, v in values.items():
            if v is None: del ds[k]; continue
            tag = pydicom.tag.Tag(k)
            ds[tag] = pydicom.dataelem.RawDataElement(tag, pydicom.datadict.dictionary_VR(tag), len(v), v.encode(), 0, False, True)
        ds.save_as(p)

SPOILT = dict(PatientBirthDate="1952-02-29", PatientSex="QUITE-SECRET", StudyDate="2011-07-SECRET", StudyTime="SECRET:15", StudyInstanceUID="SECRET..1", SOPInstanceUID="SECRET..1", PatientID="SECRET"*20 + "ID", PatientName="SECRET"*20, ReferringPhysicianName="SECRET"*20, StudyDescription="SECRET"*20)

@pytest.mark.parametrize("tag", [*SPOILT, *("no " + t for t in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"))])
def test_no_report_shows_a_value_of_the_header(tag, trees, tmp_path, capfd):
    "A value that a report cannot take over is refused by its tag; no warning shows one that it can."
    pytest.importorskip("highdicom")
    shutil.copytree(tiny.make("nih_ln", trees), tmp_path/"nih_ln")
    set_raw(tmp_path/"nih_ln", **{tag.removeprefix("no "): SPOILT.get(tag)})
    series = next((tmp_path/"nih_ln").rglob("*.dcm")).parent
    model = str(tiny.make("checkpoint", trees)/"model.safetensors")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        code = main(["detect", str(series), "--checkpoint", model, "--out", str(tmp_path/"out"), "--format", "sr,json,csv", "--device", "cpu"])
    said = capfd.readouterr()
    made = {str(p): p.read_bytes().decode("latin1") for p in (tmp_path/"out").rglob("*") if p.is_file() and p.suffix != ".dcm"}
    for where, text in dict(out=said.out, err=said.err, warnings="\n".join(str(w.message) for w in warned), **made).items(): assert SPOILT.get(tag, "SECRET") not in text, f"{where}: {text}"
    assert not [w for w in warned if "pydicom" in w.filename]
    lines = [l for l in said.err.splitlines() if "phantoms" not in l and "operating points" not in l]
    if tag.startswith("no ") or tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        assert code == 1 and len(lines) == 1 and f".dcm: DICOM tag {tag.removeprefix('no ')} " in lines[0], said.err
    else: assert code == 0 and not lines and any((tmp_path/"out"/"sr").iterdir()), said.err


def test_what_a_header_says_is_shown_without_control_characters(trees, tmp_path):
    shutil.copytree(tiny.make("scan", trees), tmp_path/"d")
    for k, p in enumerate(sorted((tmp_path/"d"/"dicom").iterdir())):
        ds = pydicom.dcmread(p); ds.SeriesInstanceUID, ds.SeriesDescription, ds.PatientID = f"1.2.{k % 2}", "\x1b[31mEVIL\nSEG" + "x"*999, f"ID-7351-{k}"; ds.save_as(p)
    for series, says in ((None, "holds 2 series"), ("1.2.0", "not of one patient")):
        with pytest.raises(InputError, match=says) as e: read_volume(tmp_path/"d"/"dicom", series=series)
        assert str(e.value).isprintable() and "7351" not in str(e.value) and "x"*99 not in str(e.value)

def test_no_error_shows_a_text_of_the_header(trees, tmp_path, capfd):
    "Every tag of free text says who it is; two series in a folder, and slices of which one cannot be read in another way each."
    model, texts = str(tiny.make("checkpoint", trees)/"model.safetensors"), [v[4] for t, v in pydicom.datadict.DicomDictionary.items() if t >> 16 > 2 and v[0] in ("PN", "LO", "LT", "SH", "ST", "UT") and v[1] in ("1", "1-n") and v[4]]
    shutil.copytree(tiny.make("scan", trees)/"dicom", tmp_path/"d"/"dicom"); shutil.copy(tiny.make("checkpoint", trees)/"ct.nii", tmp_path/"d")
    for p in (tmp_path/"d"/"dicom").iterdir():
        ds = pydicom.dcmread(p)
        for k in texts: setattr(ds, k, "SECRET^DOE")
        ds.save_as(p)
    files = sorted((tmp_path/"d"/"dicom").iterdir())
    def cut(p): p.write_bytes(p.read_bytes()[:-90])
    def put(**values):
        def _put(p):
            ds = pydicom.dcmread(p)
            for k, v in values.items(): setattr(ds, k, v)
            ds.save_as(p)
        return _put
    for k, change in enumerate((put(SeriesInstanceUID="1.2.3"), put(RescaleSlope=None), put(Rows=7), put(ImagePositionPatient=[0, 0, 0]), put(PhotometricInterpretation="MONOCHROME1"), put(NumberOfFrames=2), put(PatientID="SECRET^ROE"), put(SpecificCharacterSet="ISO_IR 192"), cut,
                                lambda p: p.write_bytes(p.read_bytes().replace(b"SECRET^DOE", b"SECRET^\xff\xfeE")), lambda p: p.write_bytes(p.read_bytes().replace(b"SECRET^DOE", b"SECRET\0\0\0\0", 3)), lambda p: p.write_bytes(p.read_bytes()[:p.stat().st_size//2]))):
        before = files[k % len(files)].read_bytes()
        change(files[k % len(files)])
        main(["detect", str(tmp_path/"d"), "--checkpoint", model, "--out", str(out := tmp_path/f"out{k}"), "--format", "csv,json", "--device", "cpu"])
        said = capfd.readouterr()
        for where, text in dict(out=said.out, err=said.err, **{p.name: p.read_bytes().decode("latin1") for p in out.rglob("*.json")}).items(): assert "SECRET" not in text, f"{k}: {where}: {text[:500]}"
        if k < 7: assert [Path(f["scan"]).name for f in read_json(out/"detections.json")["failed"]] == ["dicom"], said.err
        files[k % len(files)].write_bytes(before)


# ---- sizes -------------------------------------------------------------------------------------------------------------------

READ_ALL = """
import json, resource, sys
sys.path.insert(0, {here!r})
import tiny
from meld_nb.core import InputError
from meld_nb.deeplesion import safe_unpickle
from meld_nb.labels import read_ontology
from meld_nb.meld import load_model
from meld_nb.volume import read_geometry, read_volume
from pathlib import Path
root = Path({root!r})
readers = dict(volume=read_volume, geometry=lambda p: read_geometry(p, complete=True), pngs=lambda p: read_volume(p, spacing=(1, 1, 1)), pickle=safe_unpickle, sheet=read_ontology, model=lambda p: load_model(p, "cpu"))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
for kind, good in (("volume", "good.nii"), ("volume", "good.mhd"), ("volume", "dicom"), ("pngs", "pngs"), ("model", "model.safetensors")): readers[kind](root/"good"/good)
size = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1])*1024 if sys.platform == "linux" else None
if size: resource.setrlimit(resource.RLIMIT_AS, (size + 2**31,)*2)            # so that a huge request fails, touched or not
for name, kinds in json.loads({bombs!r}).items():
    for kind in kinds:
        before = peak()
        try: readers[kind](root/name); said = None
        except InputError as e: said = str(e)
        print(json.dumps([name, kind, said, peak() - before]), flush=True)
"""

def zeros(n): return b"".join(c for c in _packed(zlib.compressobj(9), n))
def _packed(z, n):
    for _ in range(n >> 20): yield z.compress(bytes(1 << 20))
    yield z.flush()

def png(w, h):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, 0, 0, 0, 0)) + chunk(b"IDAT", zeros(1 << 20)) + chunk(b"IEND", b"")

def bombs(root, trees):
    "Small files that ask for much, below `root`: name -> what reads them. `None` after the reader: it may be read, if it takes no memory."
    scan, out = tiny.make("scan", trees), {}
    good = root/"good"; good.mkdir()
    for a, b in (("ct.nii", "good.nii"), ("ct.mhd", "good.mhd"), ("ct.raw", "ct.raw")): shutil.copy(scan/a, good/b)
    for n in ("dicom", "pngs"): shutil.copytree(scan/n, good/n)
    shutil.copy(tiny.make("checkpoint", trees)/"model.safetensors", good)
    def add(name, data, *kinds):
        (root/name).parent.mkdir(exist_ok=True); (root/name).write_bytes(data)
        out[name.removesuffix("/001.png")] = kinds
    nii = bytearray((scan/"ct.nii").read_bytes())
    def dims(*n): b = nii[:]; struct.pack_into("<4h", b, 40, 3, *n); return bytes(b)
    for name, n in (("vast.nii", (32767,)*3), ("large.nii", (1000, 1000, 1500)), ("flat.nii", (32767, 32767, 1))):
        add(name, dims(*n), "volume", "geometry"); add(name.replace(".nii", "_packed.nii.gz"), gzip.compress(dims(*n)), "volume")
    b = nii[:]; struct.pack_into("<f", b, 108, 2.**30); add("offset.nii", bytes(b), "volume", "geometry")
    mhd, nrrd = (scan/"ct.mha").read_bytes(), (scan/"ct.nrrd").read_bytes()
    for name, n in (("vast", "2000000000 2000000000 2000000000"), ("large", "1000 1000 1500"), ("over", "65536 65536 65536")):
        add(f"{name}.mha", mhd.replace(b"DimSize = 20 20 6", b"DimSize = " + n.encode()), "volume", "geometry")
        add(f"{name}.nrrd", nrrd.replace(b"sizes: 20 20 6", b"sizes: " + n.encode()), "volume", "geometry")
        for how in (b"gzip", b"ascii", b"hex", b"bzip2"): add(f"{name}_{how.decode()}.nrrd", nrrd.replace(b"sizes: 20 20 6", b"sizes: " + n.encode()).replace(b"encoding: raw", b"encoding: " + how), "volume")
        add(f"{name}_packed.mha", (scan/"packed.mha").read_bytes().replace(b"DimSize = 20 20 6", b"DimSize = " + n.encode()), "volume")
    add("dims.mha", mhd.replace(b"NDims = 3", b"NDims = 1000000000"), "volume")
    head, z = (scan/"packed.mha").read_bytes(), zeros(1 << 27)
    add("bomb.mha", head[:head.index(b"ElementDataFile")].replace(b"DimSize = 20 20 6", b"DimSize = 4000 4000 6") + b"ElementDataFile = LOCAL\n" + z, "volume")
    add("bomb.nii.gz", gzip.compress(dims(4000, 4000, 6)) + gzip.compress(bytes(1 << 27)), "volume")
    add("pngs_vast/001.png", png(60_000, 60_000), "pngs"); add("pngs_large/001.png", png(20_000, 20_000), "pngs"); add("pngs_lie/001.png", png(5_000, 5_000), "pngs")
    for name, values in (("dicom_vast", dict(Rows=65535, Columns=65535)), ("dicom_lie", dict(Rows=8000, Columns=8000))):
        shutil.copytree(scan/"dicom", root/name); out[name] = ("volume",)
        for p in (root/name).iterdir():
            ds = pydicom.dcmread(p)
            for k, v in values.items(): setattr(ds, k, v)
            ds.save_as(p)
    ds = pydicom.dcmread(next((scan/"dicom").iterdir())); ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    ds.PixelData = bytes(1 << 27); (root/"dicom_deflated").mkdir(); ds.save_as(root/"dicom_deflated"/"1.dcm", enforce_file_format=True); out["dicom_deflated"] = ("volume",)
    add("memo.pkl", b"\x80\x02}r\xff\xff\xff\x7f(U\x01ar\xff\xff\xff\x3fK\x01u.", "pickle"); out["memo.pkl"] = ("pickle", None)
    add("long.pkl", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", "pickle"); add("long4.pkl", b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x", "pickle")
    with zipfile.ZipFile(root/"bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as f:
        with f.open("xl/worksheets/sheet1.xml", "w") as g: [g.write(bytes(1 << 20)) for _ in range(128)]
    out["bomb.xlsx"] = ("sheet",)
    from meld_nb.backbone import read_tensors
    from safetensors.torch import save_file
    for name, change in (("wide", dict(head_width=10**9)), ("deep", dict(trunk=dict(growth_rate=4, block_config=[10**8, 1, 1], num_init_features=4, width=8))), ("experts", dict(datasets=[f"d{i}" for i in range(200_000)]))):
        tensors, meta = read_tensors(good/"model.safetensors"); meta["config"].update(change)
        save_file(tensors, root/f"{name}.safetensors", {"meta": json.dumps(meta)}); out[f"{name}.safetensors"] = ("model",)
    return out

def test_sizes_are_bounded_before_memory_is_taken(trees, tmp_path):
    made = bombs(tmp_path, trees)
    code = READ_ALL.format(here=str(Path(__file__).parent), root=str(tmp_path), bombs=json.dumps({k: [r for r in v if r] for k, v in made.items()}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | dict(MELD_QUIET="1", OMP_NUM_THREADS="1"), timeout=300)
    rows = [json.loads(l) for l in done.stdout.splitlines() if l.startswith("[")]
    assert done.returncode == 0 and len(rows) == sum(len([r for r in v if r]) for v in made.values()), done.stderr[-3000:]
    bad = [f"{name} ({kind}): {'read' if said is None else said}, {mb:.0f} MB" for name, kind, said, mb in rows if mb > 256 or said is None and None not in made[name] or said is not None and name.split("/")[0] not in said]
    assert not bad, "\n".join(bad)
