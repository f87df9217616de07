"""Input that is broken on purpose: every case is either handled right or refused in one line that names the file, the place in it, what was found and what was expected.

    pytest tests/trust -q
    python tests/trust/test_bad_input.py --write-docs      # docs/bad_input.md, from the cases below
"""
import contextlib, functools, gzip, io, json, os, pickle, re, shutil, struct, sys, tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import tiny
from meld_nb.backbone import read_tensors
from meld_nb.cli import main
from meld_nb.core import InputError
from meld_nb.datasets import load_volume, read_dataset
from meld_nb.deeplesion import read_manual_1k, read_revised_1071
from meld_nb.labels import organ_shares, read_labels, read_ontology
from meld_nb.mam import match_missing
from meld_nb.nrm import suspicious
from meld_nb.stack import stack
from meld_nb.study import RANGES, parameters
from meld_nb.tables import read_table
from meld_nb.volume import Volume, read_volume, write_dicom, write_pngs, write_volume
from meld_nb import froc as F

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT/"docs"/"bad_input.md"


# ---- the table -------------------------------------------------------------------------------------------------

class Case(NamedTuple):
    "One way to break a tree of `tiny`."
    kind: str     # of input
    broken: str   # what is wrong with it
    tree: str     # which of `tiny.MAKERS`
    make: object  # folder -> None: breaks the copy that lies there
    by: str       # what reads it, for the page
    read: object  # folder -> result
    says: str     # the refusal, … for any text; or, if `check` is given, what is done with it, for the page
    check: object=None # (result, result of the whole tree) -> None, with asserts

CASES = []

class Kind:
    "Cases of one kind: a tree, and who reads it unless a case says otherwise."
    def __init__(self, kind, tree, by, read): self.kind, self.tree, self.by, self.read = kind, tree, by, read
    def reading(self, by, read): return Kind(self.kind, self.tree, by, read)
    def refused(self, broken, make, says): CASES.append(Case(self.kind, broken, self.tree, make, self.by, self.read, says))
    def handled(self, broken, make, check, result): CASES.append(Case(self.kind, broken, self.tree, make, self.by, self.read, result, check))


# ---- ways to break things, and to look ---------------------------------------------------------------------------

def edit(name, change): return lambda d: (d/name).write_bytes(change((d/name).read_bytes()))

def sub(name, old, new):
    "Bytes of a file, replaced; they have to be there."
    def _sub(data):
        assert old.encode() in data, (name, old)
        return data.replace(old.encode(), new.encode())
    return edit(name, _sub)

def cut(name, share=.6): return edit(name, lambda data: data[:int(len(data)*share)])
def write(name, data): return lambda d: (d/name).write_bytes(data if isinstance(data, bytes) else data.encode())
def nothing(d): pass
def drop(name): return lambda d: (d/name).unlink()
def both(*makes):
    def _both(d):
        for m in makes: m(d)
    return _both

def linked(name):
    "A folder that lies elsewhere, with a link in its place."
    def _linked(d):
        (d.parent/"elsewhere").mkdir(exist_ok=True)
        (d/name).symlink_to((d/name).rename(d.parent/"elsewhere"/Path(name).name))
    return _linked

def apple(*names):
    "What macOS puts beside files on other disks."
    def _apple(d):
        for n in names: (d/n).with_name("._" + Path(n).name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    return _apple

def table(name, change):
    "A CSV as a table of text, changed and written back."
    def _table(d): change(pd.read_csv(d/name, dtype=str, keep_default_na=False)).to_csv(d/name, index=False)
    return _table

def cell(name, row, **values):
    def _set(t):
        for c, v in values.items(): assert c in t; t.loc[row, c] = v
        return t
    return table(name, _set)

def meld(*args):
    "Run the command; {d} is the folder. Its output, or a Refusal with what it said."
    def _meld(d):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main([str(a).replace("{d}", str(d)) for a in args])
        assert "Traceback" not in err.getvalue(), err.getvalue()
        if code: raise Refusal(err.getvalue() + "".join(l + "\n" for l in out.getvalue().splitlines() if l.startswith("error:")))
        return out.getvalue() + err.getvalue()
    return _meld

class Refusal(Exception): "The command ended with an exit code that is not 0."

def same(got, whole):
    "The same tables, volumes or text as of the unbroken tree, but for where it lies."
    if isinstance(got, pd.DataFrame): pd.testing.assert_frame_equal(got.drop(columns=["path","mask_path"], errors="ignore"), whole.drop(columns=["path","mask_path"], errors="ignore"))
    elif isinstance(got, Volume):
        assert np.array_equal(got.hu, whole.hu) and np.allclose(got.world.matrix, whole.world.matrix, atol=1e-4) and np.allclose(got.native.matrix, whole.native.matrix)
    elif isinstance(got, tuple): assert len(got) == len(whole); [same(a, b) for a, b in zip(got, whole)]
    else: assert got == whole

def has(*texts):
    "The command says this, and ends well."
    def _has(got, whole):
        for t in texts: assert re.search(_pattern(t), got), f"{t!r} is not in:\n{got}"
    return _has

def that(holds):
    "A check of the result alone."
    def _that(got, whole): assert holds(got), got
    return _that

def _pattern(says): return re.escape(says).replace("…", ".*")


# ---- the cases -----------------------------------------------------------------------------------------------------

read_dl = lambda d: read_dataset("deeplesion", d)
dl = Kind("DL_info.csv", "deeplesion", "`read_dataset`", read_dl)
INFO = "DL_info.csv"
at = lambda row, column: f"{INFO}: row {row} (line {row+2}), column '{column}': found …, expected "
dl.refused("the file is missing", drop(INFO), f"{INFO}: no such file")
dl.refused("a column is missing", table(INFO, lambda t: t.drop(columns="Bounding_boxes")), f"{INFO}: column 'Bounding_boxes' is missing; found File_name, …")
dl.handled("columns in another order", table(INFO, lambda t: t[sorted(t)]), same, "the same tables")
dl.handled("extra columns", table(INFO, lambda t: t.assign(comment="x, y", x1="7")), same, "the same tables")
dl.handled("a byte order mark", edit(INFO, lambda b: b"\xef\xbb\xbf" + b), same, "the same tables")
dl.handled("line ends of Windows", edit(INFO, lambda b: b.replace(b"\n", b"\r\n")), same, "the same tables")
dl.handled("blank lines", edit(INFO, lambda b: b.replace(b"\n", b"\n\n")), same, "the same tables")
dl.reading("`meld check`", meld("check", "deeplesion", "{d}")).handled("a row twice", edit(INFO, lambda b: b + b.splitlines()[-1] + b"\n"),
    has("warning: …DL_info.csv: 1 rows repeat another row's box, e.g. row 4"), "read as two marks; `meld check` warns")
dl.refused("a column twice", edit(INFO, lambda b: b"\n".join(l + (b",Key_slice_index" if i == 0 else b",6" if l else b"") for i, l in enumerate(b.split(b"\n")))), f"{INFO}: column 'Key_slice_index' occurs 2 times in the header, expected once")
dl.refused("x2 < x1", cell(INFO, 1, Bounding_boxes="26, 9, 10, 23"), at(1, "Bounding_boxes") + "x1, y1, x2, y2 with x1 < x2 and y1 < y2")
dl.refused("NaN in a box", cell(INFO, 1, Bounding_boxes="10, nan, 26, 23"), at(1, "Bounding_boxes") + "4 numbers")
dl.refused("a box of three numbers", cell(INFO, 2, Bounding_boxes="10, 9, 26"), at(2, "Bounding_boxes") + "4 numbers")
dl.refused("an infinite diameter", cell(INFO, 0, Lesion_diameters_Pixel_="1e999, 4"), at(0, "Lesion_diameters_Pixel_") + "2 numbers")
dl.refused("a box outside of the image", cell(INFO, 0, Bounding_boxes="20, 7, 60, 21"), at(0, "Bounding_boxes") + "a box inside the image, give or take the padding of 5 px")

def interval(value): return cell(INFO, 2, Spacing_mm_px_=f"0.8, 0.8, {value}")
def unknown_interval(got, whole):
    v = got[0].set_index("patient_id")
    assert v.interval_known.tolist() == [True, False, True] and v.spacing_z["deeplesion/000002"] == 5
for value in (-2, 0, "nan"): dl.handled(f"a slice interval of {value}", interval(value), unknown_interval, "5 mm stand in, `interval_known` is False, nothing is resampled along z")
dl.reading("`meld check`", meld("check", "deeplesion", "{d}")).handled("a slice interval of NaN, asked for what is doubtful", interval("nan"), has("warning: 1 sub-volumes have no slice interval in DL_info.csv, e.g. deeplesion/000002_01_01_001-003"), "a warning that counts and names them")
dl.refused("a pixel spacing of 0", cell(INFO, 3, Spacing_mm_px_="0, 0.8, 2"), at(3, "Spacing_mm_px_") + "positive pixel spacings (mm) and a slice interval")
dl.refused("a patient in two splits", cell(INFO, 1, Train_Val_Test="3"), f"{INFO}: row 1 (line 3): patient deeplesion/000001 is in split test, but row 0 has it in train; a patient may be in one split only")
dl.refused("a split that does not exist", cell(INFO, 1, Train_Val_Test="4"), at(1, "Train_Val_Test") + "one of 1, 2, 3")
dl.refused("a file name without _", cell(INFO, 3, File_name="000003010103.png"), at(3, "File_name") + "patient_study_series_slice.png, e.g. 000001_01_01_109.png")
dl.refused("a slice number beyond all integers", cell(INFO, 3, File_name="000003_01_01_99999999999999999999.png"), at(3, "File_name") + "patient_study_series_slice.png, e.g. 000001_01_01_109.png")
dl.refused("a patient number that is not the file name's", cell(INFO, 3, Patient_index="2"), at(3, "Patient_index") + "the patient of File_name")
dl.refused("a key slice outside of the sub-volume", cell(INFO, 3, Slice_range="4, 5"), at(3, "Key_slice_index") + "a slice within Slice_range")
dl.refused("a slice range turned round", cell(INFO, 3, Slice_range="5, 1"), at(3, "Slice_range") + "first and last slice of at most 10000")
dl.refused("a sub-volume of a billion slices", cell(INFO, 3, Slice_range="1, 1000000000"), at(3, "Slice_range") + "first and last slice of at most 10000")
dl.refused("marks of one sub-volume with different image sizes", cell(INFO, 1, Image_size="64, 64"), f"{INFO}: row 1 (line 3) and row 0 are of one sub-volume, deeplesion/000001_01_01_003-009, but differ in Image_size")
dl.refused("marks of one sub-volume with different spacings", cell(INFO, 1, Spacing_mm_px_="0.9, 0.9, 2"), f"{INFO}: row 1 (line 3) and row 0 are of one sub-volume, deeplesion/000001_01_01_003-009, but differ in Spacing_mm_px_")
dl.refused("a line that is cut short", edit(INFO, lambda b: b[:-20] + b"\n"), f"{INFO}: line 5 has 1… fields, expected 18 as in the header")
dl.refused("fields separated by semicolons", table(INFO, lambda t: t.set_axis([";".join(t), *t.columns[1:]], axis=1)[[";".join(t)]]), f"{INFO}: column 'File_name' is missing; found …")
dl.refused("an empty file", write(INFO, ""), f"{INFO}: column 'File_name' is missing; found nothing")
dl.refused("a header and no rows", edit(INFO, lambda b: b.splitlines(True)[0]), f"{INFO}: has a header and no rows")
dl.refused("zero bytes", edit(INFO, lambda b: b[:400] + b"\0"*40 + b[400:]), f"{INFO}: row 0 (line 2), column 'Spacing_mm_px_': found …, expected 3 numbers")
dl.refused("text in UTF-16", edit(INFO, lambda b: b.decode().encode("utf-16")), f"{INFO}: not a CSV file (…)")
dl.refused("a spreadsheet", write(INFO, b"PK\x03\x04\x14\x00\x08\x08\x08\x00\xe5\x9a\xf1"), f"{INFO}: not a CSV file (…)")
dl.refused("a quote that is never closed", sub(INFO, '"7, 7, 23, 21"', '"7, 7, 23, 21'), f"{INFO}: row 0 (line 2), column 'Bounding_boxes': found '7, 7, 23, 21,6', expected 4 numbers")
dl.refused("a folder in its place", lambda d: ((d/INFO).unlink(), (d/INFO).mkdir()), f"{INFO}: not a CSV file (…)")
dl.refused("Images_png is missing", lambda d: shutil.rmtree(d/"Images_png"), "deeplesion: no folder Images_png; expected DL_info.csv and Images_png/<patient>_<study>_<series>/<slice>.png")
check_dl = dl.reading("`meld check`", meld("check", "deeplesion", "{d}"))
check_dl.refused("two sub-volumes that share slices", cell(INFO, 1, Slice_range="5, 9"), "error: deeplesion/000001_01_01_005-009 shares slices with deeplesion/000001_01_01_003-009: what is marked in one would count as unlabelled in the other")
check_dl.refused("an Image_size that the PNGs do not have", cell(INFO, 3, Image_size="512, 512"), "error: …000003_01_01: 32 x 32 x 5 voxels, the table volumes says 512 x 512 x 5")
check_dl.handled("a noisy row whose box is turned round", cell(INFO, 1, Possibly_noisy="1", Bounding_boxes="26, 9, 10, 23"), has("info: 1 of 4 rows are left out, marked Possibly_noisy", "warning: a row that is left out as Possibly_noisy, is broken or contradicts others: …row 1 (line 3)…"), "left out as all noisy rows are; counted, and the fault is told")
check_dl.handled("diameters that are not those of the coordinates", cell(INFO, 0, Lesion_diameters_Pixel_="60, 4"), has("warning: …DL_info.csv: 1 rows say other lengths of their diameters than their coordinates, e.g. row 0"), "a warning that counts and names them")

IMAGES, KEY = Path("Images_png")/"000003_01_01", Path("Images_png")/"000003_01_01"/"003.png"
png = Kind("PNG slices", "deeplesion", "`meld check --voxels`", meld("check", "deeplesion", "{d}", "--voxels"))
png16 = "003.png: expected a 16-bit grey PNG (HU + 32768), got PNG of mode "
resave = lambda f: lambda d: f(Image.open(d/KEY)).save(d/KEY)
as8 = lambda im: Image.fromarray((np.asarray(im) >> 8).astype(np.uint8))
png.refused("8 bits", resave(as8), png16 + "L")
png.refused("RGB", resave(lambda im: as8(im).convert("RGB")), png16 + "RGB")
png.refused("grey with alpha", resave(lambda im: as8(im).convert("LA")), png16 + "LA")
png.refused("a palette", resave(lambda im: as8(im).convert("P")), png16 + "P")
png.refused("a JPEG with the name of a PNG", lambda d: as8(Image.open(d/KEY)).save(d/KEY, format="JPEG"), "003.png: expected a 16-bit grey PNG (HU + 32768), got JPEG of mode L")
png.refused("another offset than 32768", resave(lambda im: Image.fromarray((np.asarray(im).astype(np.int32) - 31744).astype(np.uint16))), "003.png: its values are … to … HU, all below air: expected HU + 32768, written with another offset?")
png.refused("cut short", cut(KEY), "003.png: broken PNG (…)")
png.refused("an empty file", write(KEY, ""), "003.png: broken PNG (…)")
png.refused("wrong bits within the pixels", edit(KEY, lambda b: b[:len(b)//2] + bytes([b[len(b)//2] ^ 255]) + b[len(b)//2+1:]), "003.png: broken PNG (…)")
png.refused("another size than its neighbours", lambda d: Image.fromarray(np.full((24, 24), 32768, np.uint16)).save(d/KEY), "003.png: 24 x 24 pixels; 001.png has 32 x 32")
png.refused("a slice that is missing", drop(KEY), "000003_01_01: slices missing: 3 (there are 4, 1 to 5)")
png.refused("a folder that is missing", lambda d: shutil.rmtree(d/IMAGES), "000003_01_01: no such file or folder")
png.refused("a slice twice, as 3.png and 003.png", lambda d: shutil.copy(d/KEY, d/IMAGES/"3.png"), "000003_01_01: slice 3 is there twice: 003.png and 3.png")

def single(d): cell(INFO, 3, Slice_range="3, 3")(d)
def one_slice(got, whole):
    v, l, s = got
    assert v.n_slices.tolist()[-1] == 1 and l.z.tolist()[-1] == 0 and s.kind.tolist()[-1] == "key" and load_volume(v.iloc[-1]).size == (32, 32, 1)
dl.handled("a sub-volume of a single slice", single, one_slice, "a volume of one slice, which is the key slice")
def far(d):
    write_pngs(tiny.body(3, seed=3), d/"far", 1099)
    for p in (d/"far").iterdir(): p.rename(d/IMAGES/p.name)
    cell(INFO, 3, File_name="000003_01_01_1100.png", Key_slice_index="1100", Slice_range="1099, 1101")(d)
def beyond_999(got, whole):
    v, l, _ = got
    assert v.volume_id.iloc[-1] == "deeplesion/000003_01_01_1099-1101" and l.z.iloc[-1] == 1
    assert np.array_equal(load_volume(v.iloc[-1]).hu[::-1], tiny.body(3, seed=3))
dl.handled("slice numbers above 999", far, beyond_999, "read like all others, in the order of their numbers")
pngs = Kind("PNG slices", "scan", "`read_volume`", lambda d: read_volume(d/"pngs", spacing=(.8, .8, 2.)))
pngs.reading("`read_volume`", lambda d: read_volume(d/"pngs")).refused("no spacing is given", lambda d: None, "pngs: PNGs hold no spacing: give spacing=(x,y,z) in mm (Spacing_mm_px_ in DL_info.csv)")
pngs.reading("`read_volume`", lambda d: read_volume(d/"pngs", spacing=(.8, float("nan"), 2.))).refused("a spacing of NaN", lambda d: None, "pngs: spacing must be 3 positive mm values (x,y,z), got (0.8, nan, 2.0)")
pngs.refused("a gap", drop("pngs/003.png"), "pngs: slice 4 follows 2; a volume needs consecutive slices: give slices=(first, last)")
pngs.handled("other files beside them", both(write("pngs/notes.txt", "x"), write("pngs/thumb.png", "x")), same, "passed over: slices are named by numbers")

MHD = "ct.mhd"
mhd = Kind("MetaImage and NRRD", "scan", "`read_volume`", lambda d: read_volume(d/MHD))
FLIP = np.diag([-1., -1., 1.])
def flipped(got, whole):
    "The voxels lie where the header says: turned back, x and y run the other way in the file."
    assert np.array_equal(got.hu, whole.hu[:,::-1,::-1]) and np.allclose(got.native.matrix[:3,:3], FLIP) and np.allclose(got.origin[:2], np.subtract(whole.origin[:2], 19*tiny.PX))
mhd.refused("the file of voxels is missing", drop("ct.raw"), "ct.mhd: its voxels, ct.raw, are missing")
mhd.refused("fewer voxels than the header says", cut("ct.raw"), "ct.mhd: cut short: 2880 bytes of voxels, its header asks for 4800")
mhd.handled("a TransformMatrix that flips two axes", sub(MHD, "TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = -1 0 0 0 -1 0 0 0 1"), flipped, "turned to LPS; tables stay in the file's order")
mhd.handled("big endian", both(sub(MHD, "BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = True"), edit("ct.raw", lambda b: np.frombuffer(b, "<i2").astype(">i2").tobytes())), same, "the same voxels")
mhd.refused("a TransformMatrix of zeros", sub(MHD, "TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 0 0 0 0 0 0 0 0 0"), "ct.mhd: its header has an origin of … and a direction of (0.0, 0.0, …), expected finite numbers and three different axes")
for what, m in (("shears", "1 0 0 0 1 0 0 0.1228 0.9924"), ("stretches", "1 0 0 0 1 0 0 0 1.5")):
    mhd.refused(f"a TransformMatrix that {what}", sub(MHD, "TransformMatrix = 1 0 0 0 1 0 0 0 1", f"TransformMatrix = {m}"), "ct.mhd: its axes, …, are not of length 1 and at right angles: a tilted gantry or a shear is not read")
mhd.refused("a TransformMatrix with NaN", sub(MHD, "TransformMatrix = 1 0", "TransformMatrix = nan 0"), "ct.mhd: its transformmatrix is 'nan 0 0 0 1 0 0 0 1', expected 9 finite numbers")
mhd.refused("an Offset of NaN", sub(MHD, "Offset = -7", "Offset = nan"), "ct.mhd: its offset is 'nan -8 30', expected 3 finite numbers")
mhd.refused("no spacing", edit(MHD, lambda b: re.sub(rb"ElementSpacing.*\n", b"", b)), "ct.mhd: its header has no spacing: give spacing=(x,y,z) in mm")
mhd.refused("a spacing of 0", edit(MHD, lambda b: re.sub(rb"ElementSpacing.*\n", b"ElementSpacing = 0 0.8 2\n", b)), "ct.mhd: spacing must be 3 positive mm values (x,y,z), got (0.0, 0.8, 2.0)")
mhd.refused("a negative spacing", edit(MHD, lambda b: re.sub(rb"ElementSpacing.*\n", b"ElementSpacing = 0.8 0.8 -2\n", b)), "ct.mhd: spacing must be 3 positive mm values (x,y,z), got (0.8, 0.8, -2.0)")
mhd.refused("two dimensions", both(sub(MHD, "NDims = 3", "NDims = 2"), edit(MHD, lambda b: re.sub(rb"(DimSize = \d+ \d+|ElementSpacing = \S+ \S+|Offset = \S+ \S+).*\n", rb"\1\n", re.sub(rb"(TransformMatrix|CenterOfRotation|AnatomicalOrientation).*\n", b"", b)))), "ct.mhd: expected a 3D image, got 2D of size (20, 20)")
mhd.refused("three values a voxel", lambda d: sitk.WriteImage(sitk.Compose(*[sitk.ReadImage(str(d/MHD))]*3), str(d/MHD)), "ct.mhd: expected one value a voxel, got 3 (a colour or vector image)")
mhd.refused("an empty file", write(MHD, ""), "ct.mhd: header cannot be read (…)")
mhd.refused("a type of voxels that does not exist", sub(MHD, "MET_SHORT", "MET_QUARK"), "ct.mhd: header cannot be read (…Unknown PixelType…)")
mhd.refused("values far beyond Hounsfield units", lambda d: sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(d/MHD)), sitk.sitkFloat32)*1000, str(d/MHD)), "ct.mhd: … of the values are beyond int16, …; expected Hounsfield units")
mhd.refused("a HeaderSize that leaves too few voxels", sub(MHD, "ElementType", "HeaderSize = 100\nElementType"), "ct.mhd: cut short: 4700 bytes of voxels, its header asks for 4800")
mhd.refused("a slope that the image library would not apply", sub(MHD, "ElementType", "ElementToIntensityFunctionSlope = 2\nElementType"), "ct.mhd: its elementtointensityfunctionslope is 2, which the image library does not apply: expected 1")
mhd.refused("a negative size", sub(MHD, "DimSize = 20 20 6", "DimSize = 20 20 -6"), "ct.mhd: its dimsize is '20 20 -6', expected whole numbers")
mhd.refused("a size of 0", sub(MHD, "DimSize = 20 20 6", "DimSize = 20 20 0"), "ct.mhd: its header asks for 20 x 20 x 0 voxels, expected at least 1 along each axis")
mhd.refused("an Offset of two numbers", sub(MHD, "Offset = -7 -8 30", "Offset = -7 -8"), "ct.mhd: its offset is '-7 -8', expected 3 finite numbers")
mhd.refused("a byte order that is neither True nor False", sub(MHD, "BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = yes"), "ct.mhd: its BinaryDataByteOrderMSB is 'yes', expected True or False")
mhd.refused("a list of files, one of which is missing", both(edit("ct.raw", lambda b: b[:800]), edit(MHD, lambda b: b.replace(b"ElementDataFile = ct.raw", b"ElementDataFile = LIST 2\n" + b"\n".join([b"ct.raw"]*5 + [b"none.raw"])))), "ct.mhd: its voxels, none.raw, are missing")
def slices(name, files=range(6), size=800):
    "One file a slice in place of ct.raw, the header's `name` for them; a file may be shorter."
    def _slices(d):
        raw = (d/"ct.raw").read_bytes(); (d/"ct.raw").unlink()
        for k in files: (d/f"s{k:02d}.raw").write_bytes(raw[800*k:800*k+size])
        sub(MHD, "ElementDataFile = ct.raw", f"ElementDataFile = {name}")(d)
    return _slices
LIST = "LIST\n" + "\n".join(f"s{k:02d}.raw" for k in range(6))
mhd.handled("one file a slice, named by number", slices("s%02d.raw 0 5 1"), same, "the same voxels")
mhd.handled("one file a slice, in a list", slices(LIST), same, "the same voxels")
for name, how in (("s%02d.raw 0 5 1", "named by number"), (LIST, "in a list")): mhd.refused(f"one file a slice, {how}, each too short", slices(name, size=400), "ct.mhd: cut short: 400 bytes of voxels in s00.raw, its header asks for 800")
mhd.refused("numbered files, one of which is missing", slices("s%02d.raw 0 5 1", (0, 1, 2, 4, 5)), "ct.mhd: its voxels, s03.raw, are missing")
mhd.refused("fewer numbered files than slices", slices("s%02d.raw 0 3 1"), "ct.mhd: its header names 4 files, expected 6, one a slice")
mhd.refused("fewer names in a list than slices", slices("LIST\ns00.raw\ns01.raw"), "ct.mhd: its header names 2 files, expected 6, one a slice")
for name in ("s%02d.raw 0 5 1 3", LIST.replace("LIST", "LIST 3")): mhd.refused(f"files of more than a slice, {'in a list' if name in LIST or 'LIST' in name else 'named by number'}", slices(name), "ct.mhd: its voxels are said to lie in …, expected files of one slice each")
mhd.refused("a field in another spelling", sub(MHD, "ElementSpacing", "elementspacing"), "ct.mhd: header cannot be read: line 10 is 'elementspacing = …', expected ElementSpacing")
mhd.refused("a field twice", sub(MHD, "ElementType", "ElementSpacing = 5 5 5\nElementType"), "ct.mhd: header cannot be read: line 12 is 'ElementSpacing = 5 5 5', expected ElementSpacing once")
mhd.refused("two fields that mean the same", sub(MHD, "ElementType", "Position = 0 0 0\nElementType"), "ct.mhd: its header has Offset and Position, which mean the same: expected one of them")
mhd.refused("a blank line in the header", sub(MHD, "ElementType", "\nElementType"), "ct.mhd: header cannot be read: line 12 is '', expected name = value")
mhd.refused("a field without a value", sub(MHD, "ElementType", "ElementMin =\nElementType"), "ct.mhd: header cannot be read: line 12 is 'ElementMin =', expected name = value")
mhd.handled("fields of one's own, one of them without a value", sub(MHD, "DimSize", "0008|0050 =\n0008|103e = Thorax: 5 = 5 mm\nComment = made by hand\nDimSize"), same, "passed over")
mhd.refused("a header of blanks", write(MHD, " "*3000 + "x\n"), "ct.mhd: header cannot be read: line 1 is '…', expected name = value")
mhd.refused("micrometres", sub(MHD, "ElementType", "DistanceUnits = um\nElementType"), "ct.mhd: its distanceunits is um, which the image library does not apply: expected mm")
mhd.refused("a spacing that no CT has", edit(MHD, lambda b: re.sub(rb"ElementSpacing.*\n", b"ElementSpacing = 0.8 0.8 30000\n", b)), "ct.mhd: spacing (x,y,z) is (0.8, 0.8, 30000.0) mm, expected 0.01 to 100 mm")
by_hand = lambda *mm: mhd.reading("`read_volume`", lambda d: read_volume(d/MHD, spacing=mm))
by_hand(.8, .8, 2).handled("a spacing that no CT has, and `spacing` is given", edit(MHD, lambda b: re.sub(rb"ElementSpacing.*\n", b"ElementSpacing = 800 800 2000\n", b)), that(lambda got: got.spacing == (.8, .8, 2)), "read as told")
by_hand(800, 800, 2000).refused("a given `spacing` that no CT has", lambda d: None, "ct.mhd: spacing (x,y,z) is (800.0, 800.0, 2000.0) mm, expected 0.01 to 100 mm")
mhd.handled("a Comment and a Name without text", sub(MHD, "DimSize", "Comment =\nName = \nDimSize"), same, "passed over")
mhd.reading("`write_volume`", lambda d: write_volume(Volume(tiny.body(2, 8), (1., 1., 1.)), d/"one.mhd")).refused("a one.raw of the user's beside a one.mhd that is written", write("one.raw", "mine"), "one.raw: is there, and one.mhd does not name it, so it is not written over; choose another name, or move it away")
mhd.reading("`write_pngs`", lambda d: write_pngs(tiny.body(2, 20), d/"pngs", 100)).refused("slices written to a folder of another scan's PNGs", nothing, "001.png: is there, and no slice of what is written; choose another folder, or move it away")
mhd.reading("`write_dicom`", lambda d: write_dicom(Volume(tiny.body(2, 20), (1., 1., 1.)), d/"dicom", "OTHER")).refused("slices written to a folder of another series", nothing, "1-001.dcm: is there, and no slice of what is written; choose another folder, or move it away")
packed = mhd.reading("`read_volume`", lambda d: read_volume(d/"packed.mha"))
packed.refused("compressed and cut short", cut("packed.mha", .9), "packed.mha: cut short: its packed voxels have no end")
SIZE = rb"CompressedDataSize = \d+\n"
packed_size = "packed.mha: its packed voxels are not what the image library unpacks: expected one stream and CompressedDataSize = …, found "
packed.refused("compressed, and the size of the stream is missing", edit("packed.mha", lambda b: re.sub(SIZE, b"", b)), packed_size + "none")
packed.refused("compressed, and the size of the stream is 0", edit("packed.mha", lambda b: re.sub(SIZE, b"CompressedDataSize = 0\n", b)), packed_size + "0")
packed.refused("compressed, and the size of the stream is too small", edit("packed.mha", lambda b: re.sub(SIZE, b"CompressedDataSize = 10\n", b)), packed_size + "10")
packed.refused("a HeaderSize that is not where the voxels begin", sub("packed.mha", "ElementDataFile", "HeaderSize = 10\nElementDataFile"), "packed.mha: its HeaderSize is 10, expected none or …, where its voxels begin")
packed.refused("compressed, with wrong bits", edit("packed.mha", lambda b: b[:-900] + bytes(64) + b[-836:]), "packed.mha: broken (…)")
nrrd = mhd.reading("`read_volume`", lambda d: read_volume(d/"ct.nrrd"))
nrrd.refused("NRRD, cut short", cut("ct.nrrd"), "ct.nrrd: cut short: … bytes of voxels, its header asks for 4800")
nrrd.refused("NRRD, sizes that are no numbers", sub("ct.nrrd", "sizes: 20 20 6", "sizes: a b c"), "ct.nrrd: its sizes is 'a b c', expected whole numbers")
SPACE = "space: left-posterior-superior"
nrrd.refused("NRRD, a space that is not the patient's", sub("ct.nrrd", SPACE, "space: 3D-right-handed"), "ct.nrrd: its header has space '3D-right-handed', so its orientation is not known: give orientation=, e.g. LPS")
nrrd.refused("NRRD, no space", sub("ct.nrrd", SPACE, "space dimension: 3"), "ct.nrrd: its header has no space, so its orientation is not known: give orientation=, e.g. LPS")
mhd.reading("`read_volume`", lambda d: read_volume(d/"ct.nrrd", spacing=(.8, .8, 2))).refused("NRRD, a space without directions, and only `spacing` is given", edit("ct.nrrd", lambda b: re.sub(rb"space directions.*\n", b"", b)), "ct.nrrd: its header has no space directions, so its orientation is not known: give orientation=, e.g. LPS")
mhd.reading("`read_volume`", lambda d: read_volume(d/"ct.nrrd", orientation="LPS")).handled("NRRD, no space, but `orientation` is given", sub("ct.nrrd", SPACE, "space dimension: 3"), same, "read as told")
nrrd.refused("NRRD, an axis without direction", sub("ct.nrrd", "(0,0,2)", "none"), "ct.nrrd: its space directions are '… none', expected three vectors")
nrrd.refused("NRRD, micrometres", sub("ct.nrrd", "encoding", 'space units: "um" "um" "um"\nencoding'), 'ct.nrrd: its space units are "um" "um" "um", expected mm')
nrrd.refused("NRRD, a skip that is no whole number", sub("ct.nrrd", "encoding", "byte skip: 1e2\nencoding"), "ct.nrrd: its byteskip is '1e2', expected a whole number, or -1 for the end of the file")
nrrd.refused("NRRD, text with a word that is longer than any number", edit("ct.nrrd", lambda b: b[:b.index(b"\n\n")].replace(b"encoding: raw", b"encoding: text") + b"\n\n" + b"1,"*5000), "ct.nrrd: broken: its text has '1,1,1,1,1,1,1,1,1,1,' and so on, expected numbers with blanks between")
nrrd.handled("NRRD, millimetres", sub("ct.nrrd", "encoding", 'space units: "mm" "mm" "mm"\nencoding'), same, "the same voxels")
nrrd.handled("NRRD, comments and keys of one's own", sub("ct.nrrd", "encoding", "# a comment: with a colon\nSegment0_Name:=Liver: left\nencoding"), same, "the same voxels")
nrrd.refused("NRRD, a field that is also a key", sub("ct.nrrd", "encoding", "Encoding:=gzip\nencoding"), "ct.nrrd: header cannot be read: line … is 'Encoding:=gzip', expected Encoding: with a blank after it, or another key")
mhd.reading("`read_volume`", lambda d: read_volume(d/"ct.nhdr")).refused("NRRD, the file of voxels is missing", drop("ct.nraw"), "ct.nhdr: header cannot be read (…couldn't open …ct.nraw…)")
mhd.reading("`read_volume`", lambda d: read_volume(d/"ct.img")).refused("a format that is not read", write("ct.img", "x"), "ct.img: expected a file ending in .nii, .nii.gz, …, or a folder with a DICOM series or DeepLesion PNGs")
mhd.reading("`read_volume`", lambda d: read_volume(d/"none.mhd")).refused("no such file", lambda d: None, "none.mhd: no such file or folder")

NII, GZ = "ct.nii", "ct_packed.nii.gz"
nii = Kind("NIfTI", "scan", "`read_volume`", lambda d: read_volume(d/NII))
gz = nii.reading("`read_volume`", lambda d: read_volume(d/GZ))
FIELDS = dict(dim=(40, "8h"), datatype=(70, "h"), bitpix=(72, "h"), pixdim=(76, "8f"), vox_offset=(108, "f"), scl_slope=(112, "f"), scl_inter=(116, "f"), xyzt_units=(123, "B"), qform_code=(252, "h"), sform_code=(254, "h"),
              quatern=(256, "3f"), qoffset=(268, "3f"), srow=(280, "12f"), magic=(344, "4s"))
def header(**values):
    "Fields of the NIfTI's header, overwritten."
    def _header(b):
        b = bytearray(b)
        for k, v in values.items(): struct.pack_into("<" + FIELDS[k][1], b, FIELDS[k][0], *np.atleast_1d(np.asarray(v, object)).ravel())
        return bytes(b)
    return edit(NII, _header)
def voxels(dtype, code, change):
    "The voxels as another type."
    def _voxels(b):
        a = change(np.frombuffer(b[352:], "<i2").astype(dtype))
        return b[:352] + a.tobytes()
    return both(edit(NII, _voxels), header(datatype=code, bitpix=np.dtype(dtype).itemsize*8))
def placed(affine):
    "Every voxel of the file lies where `affine` (index to RAS) puts it."
    def _placed(got, whole):
        a = whole.hu[:,::-1,::-1] if np.allclose(whole.native.matrix[:3,:3], FLIP) else whole.hu        # as the file has it
        z, y, x = np.indices(a.shape).reshape(3, -1)
        lps = (np.c_[x, y, z, np.ones(x.size)] @ np.asarray(affine, float).T)[:,:3]*[-1, -1, 1]
        i = got.world.inverse().points(lps)
        assert np.allclose(i, np.rint(i), atol=1e-3)
        i = np.rint(i).astype(int)
        assert np.array_equal(got.hu[i[:,2],i[:,1],i[:,0]], a.ravel()) and np.abs(np.diag(got.direction)).min() > .7
        assert np.allclose(got.native.points(i), np.c_[x, y, z], atol=1e-3)                             # and the file's index comes back
    return _placed
def sform(rows): return header(sform_code=1, srow=np.asarray(rows, float)[:3])
ORIENTED = dict(RAS=[[.8, 0, 0, 5], [0, .8, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], LAS=[[-.8, 0, 0, 5], [0, .8, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], PIR=[[0, 0, 2, 5], [-.8, 0, 0, 6], [0, -.8, 0, 7], [0, 0, 0, 1]])
for name, m in ORIENTED.items():
    pix = np.linalg.norm(np.array(m)[:3,:3], axis=0)
    nii.handled(f"axes that point to {name}", both(sform(m), header(pixdim=[1, *pix, 0, 0, 0, 0], qform_code=0)), placed(m), "turned to LPS; every voxel lies where the header says, tables stay in the file's order")
c, s = np.cos(.3), np.sin(.3)
OBLIQUE = [[.8*c, -.8*s, 0, 5], [.8*s, .8*c, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]]
nii.handled("oblique axes", both(sform(OBLIQUE), header(qform_code=0)), placed(OBLIQUE), "nothing is resampled; the rest of the turn stays in `direction`")
nii.handled("a qform and no sform", header(sform_code=0), same, "the qform counts")
nii.refused("neither sform nor qform", header(sform_code=0, qform_code=0), "ct.nii: its header has neither sform nor qform, so its orientation is not known: give orientation=, e.g. RAS")
nii.refused("an sform of zeros", both(header(srow=np.zeros(12)), header(sform_code=1, qform_code=0)), "ct.nii: header cannot be read (…orthonormal direction cosines…)")
nii.reading("`read_volume`", lambda d: read_volume(d/NII, orientation="LPS")).handled("neither sform nor qform, but `orientation` is given", header(sform_code=0, qform_code=0), that(lambda got: np.array_equal(got.hu, tiny.body(6, 20))), "read as told")
nii.refused("an sform that says another spacing than pixdim", header(pixdim=[1, 1.6, .8, 2, 0, 0, 0, 0]), "ct.nii: its pixdim says a spacing of [1.6, 0.8, 2.0] mm, its sform [0.8, 0.8, 2.0]: give spacing=(x,y,z)")
TILT = [[-.8, 0, 0, 7], [0, -.8, 2*np.tan(np.radians(7)), 8], [0, 0, 2, 30], [0, 0, 0, 1]]
nii.refused("a tilted gantry of 7 degrees in the sform, none in the qform", sform(TILT), "ct.nii: the axes of its sform, [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.1219, 0.9925]], are not at right angles: a tilted gantry or a shear is not read")
nii.reading("`read_volume`", lambda d: read_volume(d/NII, spacing=(.8, .8, 2))).refused("a tilted gantry, and `spacing` is given", sform(TILT), "ct.nii: the axes of its sform, …, are not at right angles: a tilted gantry or a shear is not read")
nii.refused("an sform and a qform that do not agree", sform(OBLIQUE), "ct.nii: its qform and sform do not agree: axes … and origin [7.0, 8.0, 30.0] against axes … and origin [5.0, 6.0, 7.0] (RAS): give orientation=, e.g. RAS, or mend the header")
nii.refused("an sform and a qform with other origins", header(qoffset=[7, 8, 40]), "ct.nii: its qform and sform do not agree: …")
nii.refused("a qform of NaN", header(sform_code=0, quatern=[float("nan"), 0, 0]), "ct.nii: its qform is [nan, 0.0, 0.0, 7.0, 8.0, 30.0], expected finite numbers and an origin within a kilometre")
nii.refused("a qform that is no rotation", header(sform_code=0, quatern=[5, 5, 5]), "ct.nii: its qform has the quaternion [5.0, 5.0, 5.0], which is no rotation")
nii.refused("an sform with an origin beyond the earth", sform([[-.8, 0, 0, 1e30], [0, -.8, 0, 8], [0, 0, 2, 30]]), "ct.nii: its sform is …, expected finite numbers and an origin within a kilometre")
for magic in (b"\0\0\0\0", b"ni1\0"): nii.refused(f"a magic of {magic!r}", header(magic=magic), f"ct.nii: its magic is {magic!r}, expected b'n+1\\x00': the NIfTI library would take it for another format, without axes or with its voxels elsewhere")
nii.refused("a spacing that no CT has", both(header(pixdim=[1, .0008, .0008, .002, 0, 0, 0, 0]), sform(np.diag([.0008, .0008, .002]) @ np.eye(3, 4))), "ct.nii: its header's spacing (x,y,z) is (0.0008, 0.0008, 0.002) mm, expected 0.01 to 100 mm")
nii.handled("metres", both(header(xyzt_units=1, pixdim=[1, .0008, .0008, .002, 0, 0, 0, 0], qoffset=[.007, .008, .03]), sform([[-.0008, 0, 0, .007], [0, -.0008, 0, .008], [0, 0, .002, .03]])), same, "the same volume, in mm")
nii.refused("four dimensions", header(dim=[4, 20, 20, 3, 2, 1, 1, 1]), "ct.nii: expected a 3D image, got 4D of size (20, 20, 3, 2)")
nii.refused("two dimensions", header(dim=[2, 20, 20, 1, 1, 1, 1, 1]), "ct.nii: expected a 3D image, got 2D of size (20, 20)")
nii.handled("slope and intercept", both(edit(NII, lambda b: b[:352] + (np.frombuffer(b[352:], "<i2") + 1000).astype("<i2").tobytes()), header(scl_slope=1., scl_inter=-1000.)), same, "applied")
nii.handled("a slope of one half", both(edit(NII, lambda b: b[:352] + (np.frombuffer(b[352:], "<i2")*2).astype("<i2").tobytes()), header(scl_slope=.5)), same, "applied")
nii.refused("a slope of 0 with an intercept", header(scl_slope=0., scl_inter=-1024.), "ct.nii: its scl_slope is 0, which means no scaling, but its scl_inter is -1024: which of the two is right?")
nii.refused("a slope of NaN", header(scl_slope=float("nan")), "ct.nii: its scl_slope is nan and its scl_inter 0, expected finite numbers")
def put(value):
    def _put(a): a[[7, 99]] = value; return a
    return _put
for value in ("nan", "inf"): nii.refused(f"voxels that are {value}", voxels(np.float32, 16, put(float(value))), "ct.nii: 2 voxels are NaN or infinite; expected Hounsfield units")
nii.handled("voxels of type float64", voxels(np.float64, 64, lambda a: a), same, "rounded to whole Hounsfield units")
nii.refused("complex voxels", both(voxels(np.complex64, 32, lambda a: a)), "ct.nii: expected one value a voxel, got 2 (a colour or vector image)")
nii.refused("a pixdim of 0", header(pixdim=[1, 0, .8, 2, 0, 0, 0, 0]), "ct.nii: its header's spacing must be 3 positive mm values (x,y,z), got (0.0, 0.8…, 2.0)")
nii.refused("a pixdim of NaN", header(pixdim=[1, float("nan"), .8, 2, 0, 0, 0, 0]), "ct.nii: its header's spacing must be 3 positive mm values (x,y,z), got (nan, 0.8…, 2.0)")
nii.refused("cut short", cut(NII), "ct.nii: cut short: … bytes of voxels, its header asks for 4800")
nii.refused("cut within its header", cut(NII, .03), "ct.nii: header cannot be read (…)")
nii.refused("a vox_offset beyond the file", header(vox_offset=1e12), "ct.nii: its vox_offset is 1e+12, expected where its voxels begin, 352 or a little more")
nii.refused("a vox_offset of NaN", header(vox_offset=float("nan")), "ct.nii: its vox_offset is nan, expected where its voxels begin, 352 or a little more")
nii.refused("NIfTI-2", edit(NII, lambda b: (540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + b[12:]), "ct.nii: a NIfTI-2 file, which the NIfTI library does not read: convert it to NIfTI-1")
nii.refused("text in its place", write(NII, "not a scan\n"*50), "ct.nii: header cannot be read (…)")
gz.refused("a cut gzip", cut(GZ), "ct_packed.nii.gz: …broken or cut short (…)")
gz.refused("a gzip with wrong bits", edit(GZ, lambda b: b[:-300] + bytes([b[-300] ^ 255]) + b[-299:]), "ct_packed.nii.gz: header cannot be read (…)")
gz.refused("not packed, though its name says so", edit(GZ, gzip.decompress), "ct_packed.nii.gz: …broken or cut short (…)")
gz.refused("the same scan beside it, unpacked", lambda d: (d/"ct_packed.nii").write_bytes(gzip.decompress((d/GZ).read_bytes())), "ct_packed.nii.gz: ct_packed.nii lies beside it, and the NIfTI library would take that one's voxels: remove one of the two")

dcm = Kind("DICOM", "scan", "`read_volume`", lambda d: read_volume(d/"dicom"))
def files(d): return sorted((d/"dicom").glob("*.dcm"))                                                # 1-001 is the uppermost
def tags(which=slice(None), **values):
    "Tags of some files set, or deleted where None."
    def _tags(d):
        for p in np.atleast_1d(np.array(files(d))[which]):
            ds = pydicom.dcmread(p)
            for k, v in values.items():
                if v is None: del ds[k]
                else: setattr(ds, k, v)
            ds.save_as(p, enforce_file_format=True)
    return _tags
def another(description, **values):
    "A second series in the folder."
    def _another(d):
        write_dicom(Volume(tiny.body(3, 20), (.8, .8, 2.)), d/"more", "NOBODY", description)
        for p in sorted((d/"more").iterdir()):
            ds = pydicom.dcmread(p)
            for k, v in values.items(): setattr(ds, k, v)
            ds.save_as(d/"dicom"/f"other-{p.name}")
    return _another
def tilted(d):
    for k in range(6): tags(k, ImagePositionPatient=[-7, -8 - k, 40 - 2*k])(d)
def syntax(uid):
    def _syntax(d):
        ds = pydicom.dcmread(p := files(d)[2]); ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
        ds.PixelData = pydicom.encaps.encapsulate([ds.PixelData]); ds["PixelData"].VR = "OB"; ds["PixelData"].is_undefined_length = True
        ds.save_as(p)
    return _syntax
def rescaled(d):
    for k, p in enumerate(files(d)):
        ds = pydicom.dcmread(p)
        ds.RescaleIntercept, ds.PixelData = str(-1024 - k), (np.frombuffer(ds.PixelData, "<i2") + k).astype("<i2").tobytes()
        ds.save_as(p)
def big_endian(d):
    for p in files(d):
        ds, out = pydicom.dcmread(p), pydicom.Dataset()
        out.update(ds); out.file_meta = ds.file_meta                          # it does not know how it was read, and can be written otherwise
        out.PixelData, out.file_meta.TransferSyntaxUID = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes(), pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(p, out, implicit_vr=False, little_endian=False, enforce_file_format=True)
def renamed(d):
    for k, p in zip((5, 2, 9, 1, 7, 3), files(d)): p.rename(p.with_name(f"{k}.dcm"))
def nested(d):
    (d/"dicom").rename(d/"series"); (d/"dicom").mkdir(); (d/"series").rename(d/"dicom"/"series")
dcm.refused("two series in one folder", another("CHEST"), "dicom: holds 2 series, choose one by series= (--series on the command line): … (6 axial slices of 20 x 20 pixels, 2 mm thick); … (3 axial slices of …")
dcm.refused("a localiser beside the series", another("SCOUT", ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "dicom: holds 2 series, choose one by series= (--series on the command line): …; … (3 coronal slices of …")
dcm.refused("a localiser within the series", tags(0, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "dicom: slices of different kinds in one series: 1-001.dcm has orientation, pixel spacing, rows, columns …, most have …")
dcm.refused("a slice twice", lambda d: shutil.copy(files(d)[1], d/"dicom"/"copy.dcm"), "dicom: 1-002.dcm and copy.dcm lie at the same position …: a slice twice, or two acquisitions in one series")
dcm.refused("a gap", lambda d: files(d)[2].unlink(), "dicom: 4.00 mm between 1-004.dcm and 1-002.dcm where the slice interval is 2.00 mm: slices missing, or intervals mixed")
dcm.refused("a tilted gantry", tilted, "dicom: slices are shifted against each other by up to 5.0 mm: a tilted gantry is not read")
dcm.refused("RescaleSlope is missing", tags(RescaleSlope=None), "1-00….dcm: DICOM tag RescaleSlope is missing")
dcm.refused("RescaleSlope of 0", tags(RescaleSlope="0"), "1-00….dcm: its RescaleSlope is 0, expected more than 0: values would be turned round, or all the same")
dcm.refused("a negative RescaleSlope", tags(RescaleSlope="-1"), "1-00….dcm: its RescaleSlope is -1, expected more than 0: values would be turned round, or all the same")
dcm.refused("two patients in a series", tags(1, PatientID="SOMEBODY"), "dicom: 1-001.dcm and 1-002.dcm are of one series but not of one patient (PatientID)")
dcm.refused("two patients, and series without UIDs", both(tags(SeriesInstanceUID=""), tags(1, PatientID="SOMEBODY")), "dicom: 1-001.dcm and 1-002.dcm are of one series but not of one patient (PatientID)")
def shorter(d):
    ds = pydicom.dcmread(p := files(d)[2]); ds.PixelData, ds.DataSetTrailingPadding = ds.PixelData[:400], bytes(1000); ds.save_as(p)
dcm.refused("fewer pixels than the header says, and something behind them", shorter, "1-003.dcm: its header asks for 800 bytes of pixels, found 400")
dcm.refused("pixels of 16 bits, said to have 8", tags(BitsAllocated=8, BitsStored=8, HighBit=7), "1-00….dcm: its header asks for 400 bytes of pixels, found 800")
dcm.refused("no pixels", tags(2, PixelData=None), "1-003.dcm: its header asks for 800 bytes of pixels, found 0")
dcm.refused("a link to a file that is not there", lambda d: (d/"dicom"/"2.dcm").symlink_to("gone.dcm"), "2.dcm: a link to a file that is not there: a slice may be missing")
dcm.refused("RescaleIntercept is empty", tags(2, RescaleIntercept=None), "1-003.dcm: DICOM tag RescaleIntercept is missing")
dcm.handled("another RescaleIntercept in each slice", rescaled, same, "each slice by its own")
dcm.refused("MONOCHROME1", tags(PhotometricInterpretation="MONOCHROME1"), "1-00….dcm: its PhotometricInterpretation is MONOCHROME1, expected MONOCHROME2: values would not be Hounsfield units")
dcm.refused("a compression that is not known", syntax("1.2.840.10008.1.2.4.100"), "1-003.dcm: pixels cannot be read; cut short, or an unknown compression? (…)")
dcm.refused("a multi-frame file", tags(0, NumberOfFrames="6"), "1-001.dcm: multi-frame files are not read: convert to single slices or NIfTI")
dcm.refused("a colour image", tags(0, SamplesPerPixel=3), "1-001.dcm: a colour image; expected CT")
dcm.refused("an MR image", tags(Modality="MR"), "1-00….dcm: an image of modality MR; expected CT")
dcm.refused("a slice of another size", tags(3, Rows=10), "dicom: slices of different kinds in one series: 1-004.dcm has …")
dcm.refused("PixelSpacing is missing", tags(PixelSpacing=None), "1-00….dcm: DICOM tag PixelSpacing is missing")
dcm.refused("a PixelSpacing that no CT has", tags(PixelSpacing=[1e9, 1e9]), "dicom: spacing (x,y,z) is (1000000000.0, 1000000000.0, 2.0) mm, expected 0.01 to 100 mm")
dcm.refused("PixelSpacing of 0", tags(PixelSpacing=[0, 0]), "dicom: spacing must be 3 positive mm values (x,y,z), got (0.0, 0.0, 2.0)")
dcm.refused("ImagePositionPatient is missing", tags(1, ImagePositionPatient=None), "1-002.dcm: DICOM tag ImagePositionPatient is missing")
dcm.refused("an ImageOrientationPatient of zeros", tags(ImageOrientationPatient=[0]*6), "1-00….dcm: ImageOrientationPatient [0.0, 0.0, 0.0, 0.0, 0.0, 0.0] is not two unit vectors at a right angle")
dcm.refused("a file cut within its pixels", lambda d: cut(f"dicom/{files(d)[2].name}", .7)(d), "1-003.dcm: pixels cannot be read; cut short, or an unknown compression? (…)")
dcm.refused("a file cut within its header", lambda d: cut(f"dicom/{files(d)[2].name}", .25)(d), "1-003.dcm: broken DICOM file (…)")
dcm.refused("a .dcm that is no DICOM file", write("dicom/1-003.dcm", "x"*999), "1-003.dcm: broken DICOM file (it does not begin as one)")
dcm.handled("other files beside them", both(write("dicom/readme.txt", "x"), write("dicom/.hidden", "x")), same, "passed over")
dcm.handled("file names that say nothing of the order", renamed, same, "ordered by position")
dcm.handled("big endian", big_endian, same, "the same voxels")
dcm.refused("the folder above the series", nested, "dicom: no DICOM images or DeepLesion PNGs in this folder; there are some in …series: give that folder")
dcm.refused("an empty folder", lambda d: (shutil.rmtree(d/"dicom"), (d/"dicom").mkdir()), "dicom: no DICOM images or DeepLesion PNGs in this folder")
dcm.reading("`read_volume`", lambda d: read_volume(d/"dicom", series="1.2.3")).refused("a series that is not there", lambda d: None, "dicom: no series '1.2.3'; there are: … (6 axial slices of 20 x 20 pixels, 2 mm thick)")

luna = Kind("LUNA16", "luna16", "`read_dataset`", lambda d: read_dataset("luna16", d))
ANN = "annotations.csv"
la = lambda column: f"{ANN}: row 0 (line 2), column '{column}': found …, expected "
luna.refused("annotations.csv is missing", drop(ANN), f"{ANN}: no such file")
luna.refused("a column is missing", table(ANN, lambda t: t.drop(columns="coordZ")), f"{ANN}: column 'coordZ' is missing; found seriesuid, coordX, coordY, diameter_mm")
luna.handled("columns in another order, a byte order mark, line ends of Windows", both(table(ANN, lambda t: t[sorted(t)]), edit(ANN, lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n"))), same, "the same tables")
luna.refused("a lesion outside of its scan", cell(ANN, 0, coordZ="900"), f"{ANN}: row 0: centre (-1.0, 0.0, 900.0) mm lies outside of the scan (index …); are the coordinates LPS?")
luna.refused("a radius of 0", cell(ANN, 0, diameter_mm="0"), la("diameter_mm") + "a positive diameter in mm, at most 1000")
luna.refused("a diameter of -1, unknown, among the nodules", cell(ANN, 0, diameter_mm="-1"), la("diameter_mm") + "a positive diameter in mm, at most 1000")
luna.refused("a diameter of 1e300", cell(ANN, 0, diameter_mm="1e300"), la("diameter_mm") + "a positive diameter in mm, at most 1000")
luna.refused("a header and no rows", edit(ANN, lambda b: b.splitlines(True)[0]), f"{ANN}: has a header and no rows")
luna.refused("NaN in a centre", cell(ANN, 0, coordX="nan"), la("coordX") + "a number of mm")
luna.refused("no series", cell(ANN, 0, seriesuid=""), la("seriesuid") + "a series UID")
luna.refused("a series with slashes", cell(ANN, 0, seriesuid="../../etc/passwd"), la("seriesuid") + "a series UID")
luna.handled("a scan without lesions", lambda d: None, that(lambda got: set(got[2][got[2].volume_id == "luna16/1.2.2"].kind) == {"negative"}), "kept; all its slices are negative")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).handled("a nodule of a scan that is not at hand", edit(ANN, lambda b: b + b"1.2.9,0,0,0,5\n"), has("info: 1 of 2 annotated nodules are in the 2 scans that can be read; annotations.csv, row 1: none is of series 1.2.9"), "counted and named by `meld check`: subsets are often read alone")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).handled("a nodule twice", edit(ANN, lambda b: b + b.splitlines(True)[1]), has("warning: annotations.csv: 1 nodules have the place of one before them, first row 1: they count as two"), "read as two; `meld check` warns")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).refused("no nodule of any scan at hand", cell(ANN, 0, seriesuid="1.2.9"), "error: no annotated nodule belongs to a scan at hand: do annotations.csv and the subsets belong together?")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).refused("a nodule excluded with a diameter of -2", cell("annotations_excluded.csv", 0, diameter_mm="-2"), "error: …annotations_excluded.csv: row 0 (line 2), column 'diameter_mm': found '-2', expected a positive diameter in mm, at most 1000, or -1")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).handled("annotations_excluded.csv is missing", drop("annotations_excluded.csv"), has("warning: …annotations_excluded.csv is missing: LUNA16's evaluation needs it"), "a warning: only the evaluation needs it")
luna.refused("a scan twice", lambda d: shutil.copytree(d/"subset0", d/"subset1"), "subset1/1.2.1.mhd: the scan is there twice, also as …")
luna.handled("a subset that is a link to another folder", linked("subset0"), same, "the same tables")
luna.handled("files of macOS beside a scan's", apple("subset0/1.2.1.mhd", "subset0/1.2.1.raw"), same, "passed over")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).handled("a .raw of macOS beside a scan's", apple("subset0/1.2.1.raw"), has("0 errors"), "passed over")
luna.refused("no scans", lambda d: shutil.rmtree(d/"subset0"), "luna16: no scans; expected subset0/<seriesuid>.mhd and so on, with the .raw files")
luna.refused("a scan whose slices are not axial", sub("subset0/1.2.1.mhd", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 0 1 0 1 0"), "1.2.1.mhd: the file's third axis does not run along the body (axes …); tables need axial slices")
luna.reading("`meld check`", meld("check", "luna16", "{d}")).refused("a .raw that is missing", drop("subset0/1.2.2.raw"), "error: …1.2.2.mhd: its voxels, 1.2.2.raw, are missing")

lit = Kind("LiTS", "lits", "`read_dataset`", lambda d: read_dataset("lits", d))
SEG = "segmentation-0.nii"
def labelled(change):
    def _labelled(d):
        im = sitk.ReadImage(str(d/SEG)); a = sitk.GetArrayFromImage(im); out = sitk.GetImageFromArray(change(a)); out.CopyInformation(im)
        sitk.WriteImage(out, str(d/SEG))
    return _labelled
def remade(change):
    def _remade(d): im = sitk.ReadImage(str(d/SEG)); change(im); sitk.WriteImage(im, str(d/SEG))
    return _remade
lit.refused("a mask on another grid", remade(lambda im: im.SetOrigin((30., 4., 5.))), "segmentation-0.nii: not on the grid of volume-0.nii: size …, origin (30.0, 4.0, 5.0), axes LPS against …; a row in overrides.csv can say which is right")
lit.refused("a mask of another size", lambda d: write_volume(Volume(np.zeros((8, 24, 20), np.int16), (.8, .8, 2.), (3., 4., 5.)), d/SEG), "segmentation-0.nii: not on the grid of volume-0.nii: size (20, 24, 8), …")
lit.refused("a mask that is flipped", remade(lambda im: im.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))), "segmentation-0.nii: not on the grid of volume-0.nii: …")
lit.refused("an unknown label", labelled(lambda a: np.where(a == 2, 3, a)), "segmentation-0.nii: holds values [0, 1, 3]; expected 0, 1 (liver) and 2 (tumour) only")
lit.refused("negative labels", labelled(lambda a: -a), "segmentation-0.nii: holds values [-2, -1, 0]; expected 0, 1 (liver) and 2 (tumour) only")
lit.refused("labels that are fractions", labelled(lambda a: a.astype(np.float32)*.5), "segmentation-0.nii: holds values …; expected 0, 1 (liver) and 2 (tumour) only")
lit.refused("NaN among the labels", labelled(lambda a: np.where(a == 2, np.nan, a).astype(np.float32)), "segmentation-0.nii: 18 voxels are NaN or infinite; expected Hounsfield units")
lit.refused("a scan without a mask", drop(SEG), "volume-0.nii: there is no segmentation-0.nii or .nii.gz to go with it")
lit.refused("a mask without a scan", lambda d: shutil.copy(d/SEG, d/"segmentation-1.nii"), "segmentation-1.nii: there is no volume-1.nii or .nii.gz to go with it")
lit.refused("a case twice", lambda d: ((d/"more").mkdir(), shutil.copy(d/SEG, d/"more"/SEG)), "segmentation-0.nii: the case is there twice, also as …")
lit.handled("a scan without lesions", labelled(lambda a: np.minimum(a, 1)), that(lambda got: (len(got[1]), set(got[2].kind)) == (0, {"negative"})), "kept; all its slices are negative")
lit.handled("scans in a folder that is a link", lambda d: ((d/"part").mkdir(), [p.rename(d/"part"/p.name) for p in sorted(d.glob("*.nii"))], linked("part")(d)), same, "the same tables")
lit.handled("files of macOS beside a scan's", apple("volume-0.nii", SEG), same, "passed over")
lit.refused("no files", lambda d: [p.unlink() for p in d.iterdir()], "lits: no scans; expected volume-0.nii and segmentation-0.nii and so on")
OVER = "case,spacing_x,spacing_y,spacing_z,orientation\n"
lit.refused("overrides.csv for a case that is not there", write("overrides.csv", OVER + "7,1,1,2,\n"), "overrides.csv: there is no case 7 in …")
lit.refused("overrides.csv with a spacing of 0", write("overrides.csv", OVER + "0,0,1,2,\n"), "overrides.csv: row 0 (line 2): spacing_x, spacing_y, spacing_z are [0.0, 1.0, 2.0]; expected 3 positive mm values or 3 empty fields")
lit.refused("overrides.csv with an orientation that is none", write("overrides.csv", OVER + "0,,,,LLS\n"), "overrides.csv: row 0 (line 2), column 'orientation': found 'LLS', expected three letters such as LPS or RAS")

nih = Kind("NIH-LN", "nih_ln", "`read_dataset`", lambda d: read_dataset("nih_ln", d))
MASK = "MED_ABD_LYMPH_MASKS/ABD_LYMPH_001/ABD_LYMPH_001_mask.nii.gz"
nih.refused("a mask of another size", lambda d: write_volume(Volume(np.zeros((7, 24, 24), np.int16), (.8, .8, 2.)), d/MASK), "ABD_LYMPH_001_mask.nii.gz: does not fit its CT: size (24, 24, 7), spacing … against size (24, 24, 8), …")
nih.refused("a mask of another spacing", lambda d: write_volume(Volume(np.zeros((8, 24, 24), np.int16), (.8, .8, 3.)), d/MASK), "ABD_LYMPH_001_mask.nii.gz: does not fit its CT: …")
nih.refused("negative node numbers", lambda d: write_volume(Volume(np.full((8, 24, 24), -1, np.int16), (.8, .8, 2.)), d/MASK), "ABD_LYMPH_001_mask.nii.gz: expected node numbers (whole, 0 or more), found values [-1]")
nih.refused("a cut mask", cut(MASK), "ABD_LYMPH_001_mask.nii.gz: …broken or cut short (…)")
nih.refused("a case without a mask", lambda d: shutil.rmtree(d/"MED_ABD_LYMPH_MASKS"), "ABD_LYMPH_001: no mask; expected …ABD_LYMPH_001_mask.nii.gz")
nih.handled("a case and the masks that are links to other folders", both(linked("ABD_LYMPH_001"), linked("MED_ABD_LYMPH_MASKS")), same, "the same tables")
nih.handled("a series that is a link to another folder", linked("ABD_LYMPH_001/study/series"), same, "the same tables")
nih.handled("files of macOS beside a slice and a mask", apple("ABD_LYMPH_001/study/series/1-001.dcm", MASK), same, "passed over")
nih.refused("two series in a case", lambda d: write_dicom(Volume(tiny.body(3, 24), (.8, .8, 2.)), d/"ABD_LYMPH_001"/"study"/"other", "NOBODY", "CHEST"), "ABD_LYMPH_001: expected one CT series below it, found 2; …")
nih.handled("a scan without nodes", lambda d: write_volume(Volume(np.zeros((8, 24, 24), np.int16), (.8, .8, 2.), (-9., -9., 50.)), d/MASK, np.uint8), that(lambda got: (len(got[1]), set(got[2].kind)) == (0, {"negative"})), "kept; all its slices are negative")
nih.reading("`meld check`", meld("check", "nih_ln", "{d}")).handled("a mask with another origin", lambda d: write_volume(Volume(tiny.nodes(), (.8, .8, 2.)), d/MASK, np.uint8), has("warning: …ABD_LYMPH_001_mask.nii.gz: origin (0.0, 0.0, 0.0) mm, its CT's …; used by order of voxels"), "used by order of voxels, as the released masks need; `meld check` warns")

js = Kind("JSON labels and ontology", "labels", "`read_labels`", lambda d: read_labels(d/"labels.json"))
J = "labels.json"
def key(**values):
    def _key(d):
        t = json.loads((d/J).read_text())
        for k, v in values.items():
            if v is None: del t[k]
            else: t[k] = v
        (d/J).write_text(json.dumps(t))
    return _key
js.refused("the file is missing", drop(J), "labels.json: no such file")
js.refused("a folder in its place", lambda d: ((d/J).unlink(), (d/J).mkdir()), "labels.json: not a JSON file (…Is a directory…)")
js.refused("cut short", cut(J), "labels.json: not a JSON file (…)")
js.refused("not text", write(J, b"\xff\xfe\x00\x80"), "labels.json: not a JSON file (…)")
js.refused("brackets a hundred thousand deep", write(J, "["*100_000), "labels.json: not a JSON file (…)")
js.refused("a number of five thousand digits", edit(J, lambda b: b.replace(b"[0, 1]", b"[0, " + b"1"*5000 + b"]")), "labels.json: not a JSON file (…)")
js.refused("a list in place of an object", write(J, "[1, 2]"), "labels.json: 'term_list' is missing or not a list of names")
js.refused("a key is missing", key(val_uncertain_labels=None), "labels.json: 'val_uncertain_labels' is missing or not a list of 1, one for each lesion")
js.refused("a list of another length", key(train_relevant_labels=[[0]]), "labels.json: 'train_relevant_labels' is missing or not a list of 2, one for each lesion")
js.refused("a label beyond the terms", key(train_relevant_labels=[[0], [4]]), "labels.json: train_relevant_labels[1] is [4], expected positions in term_list (0 to 3)")
js.refused("a negative label", key(train_relevant_labels=[[0], [-1]]), "labels.json: train_relevant_labels[1] is [-1], expected positions in term_list (0 to 3)")
js.refused("a label that is true", key(train_relevant_labels=[[0], [True]]), "labels.json: train_relevant_labels[1] is [True], expected positions in term_list (0 to 3)")
js.refused("NaN in place of a lesion", key(val_lesion_idxs=[float("nan")]), "labels.json: 'val_lesion_idxs' is missing or not a list of row numbers")
js.refused("a lesion in two splits", key(val_lesion_idxs=[1]), "labels.json: lesion 1 is listed twice")
js.refused("a lesion beyond all integers", key(val_lesion_idxs=[10**30]), "labels.json: 'val_lesion_idxs' is missing or not a list of row numbers")
js.refused("a term twice in the list", key(term_list=["lung","lung","liver","nodule"]), "labels.json: term_list names 'lung' twice")
js.handled("a byte order mark", edit(J, lambda b: b"\xef\xbb\xbf" + b), same, "the same table")
js.handled("a label twice", key(val_relevant_labels=[[0, 3, 0]]), same, "counted once")
js.handled("extra keys", key(comment="x"), same, "passed over")
onto = js.reading("`read_ontology`", lambda d: read_ontology(d/"ontology.csv"))
onto.refused("a column is missing", table("ontology.csv", lambda t: t.drop(columns="class")), "ontology.csv: column 'class' is missing; found term, …")
onto.refused("a class that does not exist", cell("ontology.csv", 1, **{"class": "organ"}), "ontology.csv: row 1: class of 'liver' is 'organ', expected one of bodypart, type, attribute")
onto.refused("a term twice", cell("ontology.csv", 1, term="lung"), "ontology.csv: row 1: term 'lung' is empty or listed before")
onto.refused("a term among its own ancestors", cell("ontology.csv", 0, term_parents="lung"), "ontology.csv: 'lung' is among its own ancestors")
onto.refused("six thousand terms, which would have billions of relations", edit("ontology.csv", lambda b: b + "".join(f"t{i}{',' * b.splitlines()[0].count(b',')}\n" for i in range(6000)).encode()), "ontology.csv: has 60… rows, expected at most 1000")
def far_cell(d):
    "An Excel file of a few KB whose last cell is the last that there can be."
    import openpyxl
    book = openpyxl.Workbook()
    for row in pd.read_csv(d/"ontology.csv", dtype=str, keep_default_na=False).T.reset_index().T.values.tolist(): book.active.append(row)
    book.active["XFD1048576"] = "x"
    book.save(d/"ontology.xlsx")
onto.reading("`read_ontology`", lambda d: read_ontology(d/"ontology.xlsx")).refused("a workbook whose last cell is XFD1048576", far_cell, "ontology.xlsx: unpacks to … bytes, expected at most 100,000,000, with 1000 rows of 100 columns")
onto.refused("not a table", write("ontology.csv", b"PK\x03\x04\xff\xfe"), "ontology.csv: cannot be read as CSV or Excel (…)")
js.reading("`organ_shares`", lambda d: organ_shares(d/J, d/"ontology.csv")).refused("no lesion with a body part", key(train_relevant_labels=[[3], [3]]), "labels.json: no lesion of train has a body-part label of …ontology.csv")

P2, P3 = "Revised-Test1071.pkl", "manual_3d.pkl"
pk = Kind("Pickled releases", "testset", "`read_revised_1071`", lambda d: read_revised_1071(d/P2, dl_info=d/INFO))
pk3 = pk.reading("`read_manual_1k`", lambda d: read_manual_1k(d/P3, dl_info=d/INFO))
def pickled(name, change): return lambda d: (d/name).write_bytes(pickle.dumps(change(tiny.two_d() if name == P2 else tiny.three_d()), 2))
def row2(*boxes, z=2): return pickled(P2, lambda t: t | {f"{tiny.NAME}.annot": {z: [list(b) for b in boxes]}})
def row3(*boxes): return pickled(P3, lambda t: t | {"test": {tiny.NAME: np.array(boxes, float)}})
pk.refused("the file is missing", drop(P2), f"{P2}: no such file")
pk.refused("cut short", cut(P2), f"{P2}: refused as a pickle of boxes: …")
pk.refused("not a pickle", write(P2, "boxes"), f"{P2}: refused as a pickle of boxes: …")
pk.refused("a list in place of a dict", pickled(P2, lambda t: [1, 2]), f"{P2}: expected boxes by sub-volume, found list")
pk.refused("no sub-volume", pickled(P2, lambda t: {}), f"{P2}: expected boxes by sub-volume, found dict")
pk.refused("a name that is not a sub-volume's", pickled(P2, lambda t: {"../../etc/passwd": {}}), f"{P2}: '../../etc/passwd' is not the name of a sub-volume, e.g. 000001_01_01_103-115")
pk.refused("a slice number beyond all integers", pickled(P2, lambda t: {"000003_01_01_001-99999999999999999999": {}}), f"{P2}: '000003_01_01_001-99999999999999999999' is not the name of a sub-volume, …")
pk.refused("a series that DL_info.csv does not know", pickled(P2, lambda t: {"000009_01_01_001-005.annot": {}}), f"{P2}: deeplesion/000009_01_01_001-005 is not of a series in …DL_info.csv")
pk.refused("x2 < x1", row2([18, 9, 8, 20, 2, 2]), f"{P2}: {tiny.NAME}.annot: slice 2: found box [18.0, 9.0, 2.0, 8.0, 20.0, 2.0] (x1, y1, z1, x2, y2, z2), expected finite numbers with the first corner first")
pk.refused("NaN in a box", row2([8, float("nan"), 18, 20, 2, 2]), f"{P2}: {tiny.NAME}.annot: slice 2: found box [8.0, nan, …] (x1, y1, z1, x2, y2, z2), expected finite numbers with the first corner first")
pk.refused("a box of five numbers", row2([8, 9, 18, 20, 2]), f"{P2}: {tiny.NAME}.annot: slice 2: found …, expected boxes of 6 numbers")
pk.refused("a box with a number of 400 digits", pickled(P2, lambda t: {f"{tiny.NAME}.annot": {2: [[10**400]*6]}}), f"{P2}: {tiny.NAME}.annot: slice 2: found …, expected boxes of 6 numbers")
pk.refused("text in place of a box", pickled(P2, lambda t: {f"{tiny.NAME}.annot": {2: "box"}}), f"{P2}: {tiny.NAME}.annot: slice 2: found 'box', expected boxes of 6 numbers")
pk.refused("a box that says another slice than its key", row2([8, 9, 18, 20, 3, 3]), f"{P2}: {tiny.NAME}.annot: boxes of slice 2 say slice 3")
pk.refused("a slice of the name 'two'", row2([8, 9, 18, 20, 2, 2], z="two"), f"{P2}: {tiny.NAME}.annot: boxes of slice 'two' say slice 2")
pk.refused("a slice of NaN", row2([8, 9, 18, 20, 2, 2], z=float("nan")), f"{P2}: {tiny.NAME}.annot: boxes of slice nan say slice 2")
pk.refused("a box outside of its sub-volume", row2([8, 9, 18, 20, 7, 7], z=7), f"{P2}: deeplesion/{tiny.NAME}: box …/0 is on slices 7 to 7, expected 0 to 4 (counted within the sub-volume)")
pk.refused("3D boxes", lambda d: shutil.copy(d/P3, d/P2), f"{P2}: 'val' is not the name of a sub-volume, e.g. 000001_01_01_103-115")
pk.refused("a call of os.system", write(P2, b"cos\nsystem\n(S'true'\ntR."), f"{P2}: refused as a pickle of boxes: it asks for os.system, which is not among the names that box files need")
pk.refused("objects in an array", pickled(P2, lambda t: {f"{tiny.NAME}.annot": {2: np.array([None, "x"], object)}}), f"{P2}: refused as a pickle of boxes: it holds an array of type 'O8', expected numbers")
pk.handled("sub-volumes without lesions", lambda d: None, that(lambda got: len(got[0]) == 2 and set(got[1].volume_id) == {f"deeplesion/{tiny.NAME}"}), "kept: their false positives count")
pk3.refused("a split that does not exist", pickled(P3, lambda t: {"train": t["test"]}), f"{P3}: expected {{'val': {{sub-volume: boxes}}, 'test': ...}}")
pk3.refused("a sub-volume in two splits", pickled(P3, lambda t: {"val": t["test"], "test": t["test"]}), f"{P3}: table volumes: row 1 repeats {{'volume_id': 'deeplesion/{tiny.NAME}'}}")
pk3.refused("z2 < z1", row3([7, 8, 3, 17, 19, 2]), f"{P3}: {tiny.NAME}: found box [7.0, 8.0, 3.0, 17.0, 19.0, 2.0] (x1, y1, z1, x2, y2, z2), expected finite numbers with the first corner first")
pk3.refused("a 3D box outside of its sub-volume", row3([7, 8, 2, 17, 19, 9]), f"{P3}: deeplesion/{tiny.NAME}: box …/0 is on slices 1 to 8, expected 0 to 4 (counted within the sub-volume)")
pk3.refused("a patient in two splits", pickled(P3, lambda t: {"val": {"000003_01_01_001-002": np.zeros((0, 6))}, "test": t["test"]}), f"{P3}: table volumes: patient 'deeplesion/000003' is in more than one split")

D, T, I, M, G = (f"{n}.csv" for n in ("detections", "truth", "images", "members", "groups"))
fr = Kind("Detections", "froc", "`meld froc`", meld("froc", f"{{d}}/{D}", f"{{d}}/{T}", "--images", f"{{d}}/{I}", "--preset", "paper", "--members", f"{{d}}/{M}", "--groups", f"{{d}}/{G}", "--bootstrap", "20"))
p3d = fr.reading("`meld froc`", meld("froc", f"{{d}}/{D}", f"{{d}}/{T}", "--images", f"{{d}}/{I}", "--bootstrap", "20"))
fr.refused("the file is missing", drop(D), f"{D}: no such file")
fr.refused("an empty file", write(D, ""), f"{D}: column 'volume_id' is missing; …")
fr.refused("a column is missing", table(D, lambda t: t.drop(columns="score")), f"{D}: column 'score' is missing; …")
fr.handled("columns in another order and extra ones", table(D, lambda t: t.assign(note="x")[sorted([*t, "note"])]), same, "the same curve")
fr.handled("a byte order mark and line ends of Windows", edit(D, lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")), same, "the same curve")
fr.handled("rows in another order", table(D, lambda t: t[::-1]), same, "the same curve")
p3d.handled("no detections", edit(D, lambda b: b.splitlines(True)[0]), has("average        0.000", "3 images, 2 lesions, 0 found, 0 detections, 0 fps, 0 neutral"), "a curve of zeros")
p3d.handled("no truth", edit(T, lambda b: b.splitlines(True)[0]), has("average            -", "3 images, 0 lesions, 0 found, 3 detections, 3 fps, 0 neutral"), "no sensitivity: not 0")
p3d.handled("all scores equal", table(D, lambda t: t.assign(score=".5")), has("3 images, 2 lesions, 1 found, 3 detections, 2 fps, 0 neutral"), "in the order of the table")
fr.refused("NaN as a score", cell(D, 1, score="nan"), f"{D}, line 3: score is 'nan', expected a finite number")
fr.refused("text as a coordinate", cell(D, 2, x1="left"), f"{D}, line 4: x1 is 'left', expected a finite number")
fr.refused("a coordinate of 1e300", cell(D, 1, x2="1e300"), f"{D}, line 3: x2 is 1e+300, expected at most 1e+09")
fr.refused("x2 < x1", cell(D, 1, x2="1"), f"{D}, line 3: x2 is 1, less than x1, 5")
fr.refused("z2 < z1", cell(D, 1, z2="1"), f"{D}, line 3: z2 is 1, less than z1, 2")
fr.refused("a volume that is not among the images", cell(D, 2, volume_id="d"), f"{D}, line 4: volume 'd' is not among the images")
fr.refused("a lesion of a volume that is not among the images", cell(T, 1, volume_id="d"), f"{T}, line 3: volume 'd' is not among the images")
fr.refused("no volume_id in a row", cell(D, 1, volume_id=""), f"{D}, line 3: volume_id is empty")
fr.refused("a line that is cut short", edit(D, lambda b: b + b"a,3,1\n"), f"{D}: line 5 has 3 fields, expected 9 as in the header")
fr.refused("a stack twice", cell(D, 2, stack_id="1"), f"{D}: stack_id 1 occurs twice")
fr.refused("a stack without members", table(M, lambda t: t[t.stack_id != "2"]), f"{D}, line 4: stack_id 2 has no members")
fr.refused("a member's box turned round", cell(M, 1, y2="1"), f"{M}, line 3: y2 is 1, less than y1, 5")
fr.refused("an image twice", edit(I, lambda b: b + b"a\n"), f"{I}: volume 'a' is listed twice")
fr.refused("no images", edit(I, lambda b: b.splitlines(True)[0]), f"{I}: the list is empty; FPs per image need at least one")
flat = fr.reading("`meld froc --dims 2d`", meld("froc", f"{{d}}/{D}", f"{{d}}/{T}", "--images", f"{{d}}/{I}", "--dims", "2d", "--bootstrap", "20"))
def images_2d(*rows): return both(write(I, "volume_id,z\n" + "".join(f"{r}\n" for r in rows)), table(D, lambda t: t[:1].assign(z=1, volume_id="a")), table(T, lambda t: t[:1].assign(z=1, volume_id="a")))
for z in ("nan", "inf", "-inf", "1.5", "1_0", "", "1e300"): flat.refused(f"a slice {z or 'that is empty'} among the images", images_2d("a,1", f"a,{z}"), f"{I}, line 3: z is …, expected " + ("the whole number of a slice" if z in ("1.5", "1e300") else "a finite number"))
flat.refused("a slice twice among the images", images_2d("a,1", "a,1.0"), f"{I}: volume 'a', z 1 is listed twice")
fr.handled("members that say of which volume they are", table(M, lambda t: t.assign(volume_id=t.stack_id.map({"0": "a"}).fillna("b"))), same, "the same curve")
fr.refused("members of another volume than their stack", table(M, lambda t: t.assign(volume_id=t.stack_id.map({"0": "b"}).fillna("a"))), f"{M}, line 2: volume_id is 'b', expected 'a', that of stack 0")
fr.refused("members of an unknown volume", table(M, lambda t: t.assign(volume_id="x")), f"{M}, line 2: volume_id is 'x', expected 'a', that of stack 0")
fr.refused("no stack_id in a detection", cell(D, 1, stack_id=""), f"{D}, line 3: stack_id is missing")
fr.refused("no stack_id in a member", cell(M, 1, stack_id=""), f"{M}, line 3: stack_id is missing")
fr.refused("a volume without a patient", table(G, lambda t: t[:2]), "volume 'c' has none (1 of 3 volumes are missing)")
fr.refused("a volume with two patients", edit(G, lambda b: b + b"a,q\n"), f"{G}: volume 'a' has 2 patients")
fr.reading("`meld froc`", meld("froc", f"{{d}}/{D}", f"{{d}}/{T}", "--images", f"{{d}}/{I}", "--threshold", "1.5")).refused("a threshold of 1.5", lambda d: None, "Invalid value for '--threshold': 1.5 is not in the range 0<x<=1")
fr.reading("`meld froc`", meld("froc", f"{{d}}/{D}", f"{{d}}/{T}", "--images", f"{{d}}/{I}", "--preset", "paper")).refused("the paper's rule without members", lambda d: None, "the paper's rule needs --members: the boxes of each stack on each slice (or use --dims p3d)")
def luna_froc(d):
    for name, t in (("marks", dict(probability=.5)), ("nodules", dict(diameter_mm=-1))): pd.DataFrame(dict(seriesuid=["s"], coordX=0, coordY=0, coordZ=0) | t).to_csv(d/f"{name}.csv", index=False)
    (d/"scans.csv").write_text("s\n")
fr.reading("`meld froc --preset luna16`", meld("froc", "{d}/marks.csv", "{d}/nodules.csv", "--images", "{d}/scans.csv", "--preset", "luna16")).refused("a diameter of -1, unknown, among the nodules", luna_froc, "nodules.csv, line 2: diameter_mm is -1, expected more than 0")
def million(d):
    "A million boxes on a thousand slices; one lesion, which the last box finds."
    n = 1_000_000
    det = pd.DataFrame(dict(volume_id="v", z=np.arange(n) % 1000, x1=100., y1=0., x2=110., y2=10., score=np.linspace(1, .1, n)))
    det.loc[n-1, ["x1","x2"]] = 0., 10.
    f = F.froc(det, pd.DataFrame(dict(volume_id=["v"], z=[(n-1) % 1000], x1=[0.], y1=[0.], x2=[10.], y2=[10.])), [("v", z) for z in range(1000)], dims="2d")
    return f.counts, f.at([998, 999.999])
fr.reading("`froc`", million).handled("a million boxes", lambda d: None, that(lambda got: (got[0]["fps"], got[1].tolist()) == (999_999, [0, 1])), "counted to the last one")
tb = fr.reading("`read_table`", lambda d: read_table(d/D, "detections3d"))
tb.refused("a table with NaN in a box", cell(D, 1, y1=""), f"{D}: table detections3d: column 'y1', row 1: found nan, expected a value")
tb.refused("a table with a stack that is no whole number", cell(D, 1, stack_id="1.5"), f"{D}: table detections3d: column 'stack_id', row 1: found 1.5, expected a whole number")
tb.refused("a table with a stack beyond all integers", cell(D, 1, stack_id="1e300"), f"{D}: table detections3d: column 'stack_id', row 1: found 1e+300, expected a whole number")
tb.refused("a table with a score of 400 digits", table(D, lambda t: t.iloc[1:2].assign(score="9"*400)), f"{D}: table detections3d: column 'score', row 0: found 9…, expected a number that is not this long")
tb.refused("a table with words as scores", cell(D, 1, score="high"), f"{D}: table detections3d: column 'score', row 1: found 'high', expected a number")
tb.refused("a table without a volume in a row", cell(D, 1, volume_id=""), f"{D}: table detections3d: column 'volume_id', row 1: found None, expected a string")
tb.refused("a table with a column twice", edit(D, lambda b: b"\n".join(l + (b",score" if i == 0 else b",1" if l else b"") for i, l in enumerate(b.split(b"\n")))), f"{D}: column 'score' occurs 2 times in the header, expected once")
tb.handled("a table with blanks around its fields", edit(D, lambda b: b.replace(b",", b" , ")), same, "the same table")
tb.handled("a table with a comma in a quoted name, and blanks before it", lambda d: (d/D).write_text((d/D).read_text().replace("\nb,", '\n "a,b",')), that(lambda got: got.volume_id.tolist() == ["a", "a,b", "a,b"] and got.z2.tolist() == [4, 4, 2]), "one field")
tb.handled("a table with volumes called NA, nan and 007", table(D, lambda t: t.assign(volume_id=["NA", "nan", "007"])), that(lambda got: got.volume_id.tolist() == ["NA", "nan", "007"]), "their names")
tb.refused("a table without a column", table(D, lambda t: t.drop(columns="z1")), f"{D}: table detections3d: column 'z1' is missing; expected …")
def parquet(**change): return tb.reading("`read_table`", lambda d: read_table(d/"t.parquet", "detections3d")), lambda d: pd.read_csv(d/D).assign(**change).to_parquet(d/"t.parquet")
for what, change, says in (("true and false as scores", dict(score=True), "column 'score', row 0: found True, expected a number"), ("dates as scores", dict(score=pd.Timestamp(0)), "column 'score', row 0: found …, expected a number"),
                           ("numbers as volumes", dict(volume_id=1), "column 'volume_id', row 0: found 1, expected a string")):
    of, make = parquet(**change)
    of.refused(f"a table with {what}", make, f"t.parquet: table detections3d: {says}")
tb.refused("a table with an infinite score", cell(D, 1, score="inf"), f"{D}: table detections3d: column 'score', row 1: found inf, expected a finite number")
tb.reading("`read_table`", lambda d: read_table(d/"t.parquet", "detections3d")).refused("a Parquet file that is cut", lambda d: (pd.read_csv(d/D).to_parquet(d/"t.parquet"), cut("t.parquet")(d)), "t.parquet: cannot be read as a table (…)")

from meld_nb.boxfiles import box_tables, named_scans, read_boxes
OWN = "boxes.csv"
check_own = Kind("Boxes of one's own", "own", "`meld check own`", meld("check", "own", "{d}"))
def named(name): return cell(OWN, 0, volume_id=name)
for name in ("ann/ct", "../../etc/ct.nii", "/x/ct.nii", "/data/tom/ct.nii", "bob/ct.mha", "ct.mha"):
    check_own.refused(f"a scan of another place or kind, {name}", named(name), f"error: …{OWN}: row 0 (line 2): scan '{name}' is not below …")
check_own.handled("the whole path of a scan, and a bare name", lambda d: both(named(str(d/"ann"/"scan.nii")), cell(OWN, 1, volume_id="ct"))(d), has("0 errors"), "found")
check_own.handled("the path of a scan on another machine", named("/data/bob/ct.nii"), has("0 errors"), "found by the folders below the data set")
check_own.handled("the path of a scan on another machine, and no folders here", lambda d: (shutil.move(d/"bob"/"ct.nii", d/"one.nii"), table(OWN, lambda t: t.assign(volume_id="/data/bob/one.nii"))(d)), has("0 errors"), "found by its name, which is alone")
check_own.refused("a pipe in place of a scan", lambda d: ((d/"bob"/"ct.nii").unlink(), os.mkfifo(d/"bob"/"ct.nii")), f"error: …{OWN}: row 1 (line 3): scan 'bob/ct' is not below …")
def beside(d): write_volume(read_volume(d/"bob"/"ct.nii"), d/"bob"/"ct.mha")
check_own.refused("two scans that differ in their suffix", beside, f"error: …{OWN}: row 1 (line 3): scan 'bob/ct' may be …ct.mha or …ct.nii: give its path below …, with its suffix")
check_own.handled("two scans that differ in their suffix, one of them named with it", both(beside, cell(OWN, 1, volume_id="bob/ct.nii")), has("0 errors"), "that one is read")
check_own.refused("boxes on two scans that differ in their suffix", both(beside, cell(OWN, 0, volume_id="bob/ct.mha"), cell(OWN, 1, volume_id="bob/ct.nii")), f"error: …{OWN}: row 1 (line 3): scan 'bob/ct.nii' is …ct.nii, and another …ct.mha: scans that differ in their suffix alone have one name; rename one of them")
for z in ("0,1e300", "-1e300,3"):
    check_own.refused(f"slices z1, z2 of {z}", write(OWN, f"volume_id,z1,z2,x1,y1,x2,y2\nbob/ct,{z},4,6,12,14\n"), f"error: …{OWN}: row 0 (line 2): box [4.0, 6.0, …] (x1, y1, z1, x2, y2, z2), expected numbers below 1e+09 with the first corner first")
check_own.refused("a slice z of 1e300", cell(OWN, 0, z="1e300"), f"error: …{OWN}: row 0 (line 2): box [5.0, 6.0, 1e+300, …] (x1, y1, z1, x2, y2, z2), expected numbers below 1e+09 with the first corner first")

H = "volume_id,z,x1,y1,x2,y2\n"
scans_csv = lambda *rows: write("scans.csv", "volume_id,patient_id\n" + "".join(f"{r}\n" for r in rows))
check_own.refused("a header and no rows", write(OWN, H), f"error: …{OWN}: no boxes in it: for scans without lesions list them in scans.csv")
check_own.refused("a header and no rows, in both tables", both(write(OWN, H), scans_csv()), f"error: …{OWN}: no boxes in it, and no scans in scans.csv")
check_own.refused("COCO without annotations", both(drop(OWN), write("boxes.json", '{"images": [], "annotations": []}')), "error: …boxes.json: no boxes in it: for scans without lesions list them in scans.csv")
check_own.handled("no boxes, and scans.csv names the scans", both(write(OWN, H), scans_csv("bob/ct,1", "ann/scan,2")), has("info: 2 scans without a box…", "0 errors"), "scans without lesions")
check_own.handled("a box twice", edit(OWN, lambda b: b + b.splitlines()[-1].replace(b",b", b",c") + b"\n"), has("warning: 1 boxes repeat another one of their slice, e.g. of own/bob/ct, slice 3: they count as lesions of their own"), "`meld check` warns")
for rows in (("bob/ct,1", "bob/ct.nii,2"), ("ct,1", "bob/ct,1")): check_own.refused(f"scans.csv: a scan under two names, {rows[0]} and {rows[1]}", scans_csv("ann/scan,3", *rows), f"error: …scans.csv: row 2 (line 4): scan '{rows[1].split(',')[0]}' is there already under another name, '{rows[0].split(',')[0]}'; expected each scan once")
convert = lambda out: check_own.reading("`meld convert`", meld("convert", "own", "{d}", out))
convert("{d}").refused("converted into itself", nothing, "meld: …own: is the data set itself; choose another folder")
convert("{d}/../own/.").refused("converted into itself, by another path", nothing, "…: is the data set itself; choose another folder")
convert("{d}/..").refused("converted into a folder that holds it", nothing, "meld: …: holds the data set, where each scan would be found a second time; choose another folder")
convert("{d}/conv").refused("converted into a folder of itself", nothing, "meld: …conv: lies in the data set, where each scan would be found a second time; choose another folder")
Kind("Boxes of one's own", "lits", "`meld convert`", meld("convert", "lits", "{d}", "{d}/conv")).refused("LiTS converted into a folder of itself", nothing, "meld: …conv: lies in the data set, where each scan would be found a second time; choose another folder")
def added(line): return lambda d: (meld("convert", "own", "{d}", "{d}/../conv")(d), edit("../conv/boxes.csv", line)(d))
convert("{d}/../conv").refused("converted again, and a row was added to the converted boxes.csv", added(lambda b: b + b"bob/ct,4,1,1,3,3,1,mine\n"), "meld: …conv/boxes.csv: changed since an earlier call wrote it, so it is not written over; move it away")
convert("{d}/../conv").refused("converted again, and the converted boxes.csv has a column more", added(lambda b: b.replace(b"lesion_id", b"lesion_id,note")), "meld: …conv/boxes.csv: changed since an earlier call wrote it, so it is not written over; move it away")
convert("{d}/../conv").refused("a boxes.csv of the user's where the converted one would go", lambda d: ((d.parent/"conv").mkdir(), (d.parent/"conv"/"boxes.csv").write_text("mine")), "meld: …boxes.csv: is there, and not of an earlier call, so it is not written over; choose another folder, or move it away")
def mine(*more): return check_own.reading("`meld mine`", meld("mine", "{d}/predictions.csv", "{d}/boxes.csv", "{d}", "--out", "{d}/out", "--device", "cpu", *more))
def patients(*rows): return write("who.csv", "volume_id,patient_id\n" + "".join(f"{r}\n" for r in rows))
of = mine("--patients", "{d}/who.csv")
of.refused("a table of patients with an empty one", patients("bob/ct,", "ann/scan,"), "meld: …who.csv: row 0 (line 2), column 'patient_id': found '', expected a patient: …")
of.refused("a table of patients with a scan twice", patients("bob/ct,1", "ann/scan,2", "bob/ct.nii,2"), "meld: …who.csv: row 2 (line 4), column 'volume_id': found 'bob/ct.nii', expected each scan once")
of.refused("a table of patients with a scan under two names", both(patients("bob/ct,1", "ct,2", "ann/scan,3"), cell("predictions.csv", 1, volume_id="ct")), "meld: …who.csv: scan 'ct' is of patient '2', and under another name of '1'")
mine().refused("scores of 0 to 100", cell("predictions.csv", 1, score="80"), "meld: …predictions.csv: row 1 (line 3): score is 80, expected 0 to 1: sigma and min_score are such scores")
for name, (option, value, says) in {"NaN as --min-score": ("--min-score", "nan", "Invalid value for '--min-score': nan is no finite number"), "NaN as --theta": ("--theta", "nan", "Invalid value for '--theta': nan is no finite number"), "NaN in --spacing": ("--spacing", ("1", "1", "nan"), "Invalid value for '--spacing': nan is no finite number"),
        "an embedding of a billion numbers": ("--emb", "1000000000", "meld: emb is 1000000000, expected a whole number in [1,4096]"), "patches of a million pixels": ("--patch", "1000000", "meld: patch is 1000000, expected a whole number in [32,512]"), "pixels of 1e300 mm": ("--mm", "1e300", "meld: mm is 1e+300, expected a number in (0,100]")}.items():
    mine(option, *([value] if isinstance(value, str) else value)).refused(name, nothing, says)
into = lambda name, *more: mine("--theta", "9", *more).refused(f"{name} of the user's where one would be written", lambda d: ((d/"out").mkdir(), (d/"out"/name).write_text("mine")), f"meld: …{name}: is there, and not of an earlier call, so it is not written over; choose another folder, or move it away")
for name in ("mined.csv", "ignore.csv", "mine.json", "review.csv", "review.html", "embedding.safetensors"): into(name)
def folders(d):
    "Files of the user's in the folders of nnDetection's boxes."
    for name in ("mined/thesis.tex", "ignore/notes.txt"): (d/"out"/name).parent.mkdir(parents=True); (d/"out"/name).write_text("mine")
def copied(read):
    "Of a copy: what is written does not reach the tree."
    def _read(d):
        with tempfile.TemporaryDirectory() as t: return read(Path(shutil.copytree(d, Path(t)/d.name)))
    return _read
def mined_beside(d):
    meld("mine", "{d}/ct_boxes.json", "{d}/boxes.csv", "{d}", "--out", "{d}/out", "--device", "cpu", "--theta", "9", "--steps", "1", "--batch", "2", "--patch", "32", "--emb", "4")(d)
    return {p.relative_to(d/"out").as_posix(): p.read_text() for p in (d/"out").glob("*/*")}
def boxes_beside(d): folders(d); (d/"out"/"mined"/"bob_boxes.json").write_text("mine")
nn_mine = check_own.reading("`meld mine`", copied(mined_beside))
nn_mine.handled("files of the user's in the folders mined and ignore of nnDetection's boxes", folders, that(lambda got: sorted(got) == ["ignore/ct_boxes.json", "ignore/notes.txt", "mined/ct_boxes.json", "mined/thesis.tex"] and got["mined/thesis.tex"] == got["ignore/notes.txt"] == "mine"), "they stay; boxes are written beside them")
nn_mine.refused("boxes of the user's in the folder mined of nnDetection's boxes", boxes_beside, "meld: …bob_boxes.json: is there, and not of an earlier call, so it is not written over; …")
def embedded(d):
    meld("embed", "{d}/boxes.csv", "{d}", "--out", "{d}/e.safetensors", "--device", "cpu", "--steps", "1", "--batch", "2", "--patch", "32", "--emb", "4")(d)
    return read_tensors(d/"e.safetensors")[1]["meta"]["lesions"]
embed = check_own.reading("`meld embed`", copied(embedded))
embed.refused("a file of the user's in the embedding's place", write("e.safetensors", "mine"), "meld: …e.safetensors: is there, and not of an earlier call, so it is not written over; choose another name, or move it away")
embed.handled("the same lesion_id in two patients", table(OWN, lambda t: t.assign(lesion_id="1")), that(lambda lesions: lesions == 2), "two lesions")
check_own.handled("a box without a lesion_id in row 0, and one of the same scan whose lesion_id is 0", write(OWN, "volume_id,z,x1,y1,x2,y2,lesion_id\nbob/ct,2,4,6,12,14,\nbob/ct,3,4,6,12,14,0\n"), has("1 patients (train 1), 2 lesions in 2 boxes", "0 errors"), "two lesions")
check_own.refused("a patient in two forms of Unicode", write(OWN, "volume_id,z,x1,y1,x2,y2,patient_id\nbob/ct,2,4,6,12,14,\u00fc\nann/scan,3,4,6,11,12,u\u0308\n"), f"error: …{OWN}: row 1 (line 3): patient_id is 'u\\u0308', elsewhere '\\xfc': the same letters in another form of Unicode; expected one form")
check_own.refused("a slice z outside of z1 to z2", table(OWN, lambda t: t.assign(z1="0", z2="1")), f"error: …{OWN}: row 0 (line 2), column 'z': found '2', expected a slice from z1 to z2, …")
experts = table("predictions.csv", lambda t: t.assign(expert=["lits", "luna16"]))
mine("--universal", "lidc").refused("an expert that no prediction has", experts, "meld: universal: …predictions.csv has no expert 'lidc'; it has: lits, luna16")
mine("--patients", "").refused("an empty path", nothing, "Invalid value for '--patients': is empty; is a shell variable not set?")
check_own.reading("`meld mine`", meld("mine", "{d}/mined.csv", "{d}/boxes.csv", "{d}", "--out", "{d}")).refused("predictions that would be written over", lambda d: (d/"predictions.csv").rename(d/"mined.csv"), "meld: …mined.csv: is read, and would be written over; choose another folder for what is written")

def boxes(name):
    def _read(d): f = read_boxes(d/name); return box_tables(f, None, *named_scans(d, [f]))
    return Kind("Boxes of one's own", "own", "`read_boxes`", _read)
def js(name, change):
    "A JSON file, changed: the change is made in place."
    def _js(d): data = json.loads((d/name).read_text()); change(data); (d/name).write_text(json.dumps(data))
    return _js
HUGE = 10**400
coco, monai, nnd = boxes("coco.json"), boxes("monai.json"), boxes("ct_boxes.json")
in_coco = lambda part, k, **values: js("coco.json", lambda d: d[part].__setitem__(k, d[part][k] | values))
coco.handled("scans in a folder that is a link", linked("ann"), same, "the same boxes")
coco.handled("files of macOS beside a scan", apple("ann/scan.nii"), same, "passed over")
coco.refused("COCO: two images of one id", in_coco("images", 1, id=1), "coco.json: image 1: id is 1, as of an image before it; expected each id once …")
coco.refused("COCO: a key twice in an annotation", sub("coco.json", '"id": 2, "image_id": 2,', '"id": 2, "image_id": 1, "image_id": 2,'), "coco.json: not a JSON file ('image_id' is given twice)")
coco.refused("COCO: an image without an id", js("coco.json", lambda d: d["images"][0].pop("id")), "coco.json: image 0: id is None, expected text or a number")
for what, part in (("image", "images"), ("annotation", "annotations")):
    for value in (1, None): coco.refused(f"COCO: {value} in place of an {what}", js("coco.json", lambda d, part=part, value=value: d.update({part: [value]})), f"coco.json: {what} 0 is {value}, expected a JSON object")
coco.refused("COCO: an id that is a list", in_coco("images", 0, id=[1]), "coco.json: image 0: id is [1], expected text or a number")
coco.refused("COCO: an image_id that is a list", in_coco("annotations", 0, image_id=[1]), "coco.json: annotation 0: image_id is [1], expected text or a number")
coco.refused("COCO: a box of 10^400", in_coco("annotations", 1, bbox=[5, 6, HUGE, 8]), "coco.json: annotation id 2: bbox is [5, 6, 1000…, expected 4 finite numbers")
coco.refused("COCO: a score of 10^400", in_coco("annotations", 1, score=HUGE), "coco.json: annotation id 2: score is 1000…, expected a finite number")
coco.refused("COCO: a slice of 10^19", in_coco("images", 1, slice=10**19), "coco.json: annotation id 2: box [4.5, 5.5, 1e+19, …] (x1, y1, z1, x2, y2, z2), expected numbers below 1e+09 with the first corner first")
for c in ("patient_id", "expert", "lesion_id"): coco.refused(f"COCO: a {c} that is a list", in_coco("annotations", 1, **{c: ["a"]}), f"coco.json: annotation id 2: {c} is ['a'], expected text or a number")
coco.refused("COCO: a volume that is an object", in_coco("images", 1, volume=dict(a=1)), "coco.json: annotation id 2: scan is {'a': 1}, expected text or a number")
for c in ("patient_id", "expert", "lesion_id"): coco.refused(f"COCO: half a character in {c}", in_coco("annotations", 1, **{c: "a\ud800"}), f"coco.json: annotation id 2: {c} is 'a\\ud800', expected whole characters")
coco.refused("COCO: half a character in file_name", lambda d: (js("coco.json", lambda t: t["images"][1].pop("volume"))(d), in_coco("images", 1, file_name="\ud800")(d)), "coco.json: annotation id 2: scan is '\\ud800', expected whole characters")
def against(d): a = read_boxes(d/OWN, scored=False); p = read_boxes(d/"coco.json"); return box_tables(a, p, *named_scans(d, [a, p]))[1]
coco.reading("`box_tables`", against).handled("COCO: a patient_id that is a number, and text in the CSV", both(in_coco("annotations", 0, patient_id=1), table(OWN, lambda t: t.assign(patient_id=["1", "2"]))), that(lambda p: p.patient_id.tolist() == ["1", "2"]), "text in both")
coco.handled("COCO: blanks around a patient_id", both(in_coco("annotations", 0, patient_id=" p "), in_coco("annotations", 1, patient_id="p")), that(lambda t: t[0].patient_id.tolist() == ["p", "p"]), "left out, as in a CSV")
monai.refused("MONAI: a list of scans twice", edit("monai.json", lambda b: b.replace(b'{"validation": ', b'{"validation": [], "validation": ')), "monai.json: not a JSON file ('validation' is given twice)")
in_monai = lambda **values: js("monai.json", lambda d: d["validation"][0].update(values))
monai.refused("MONAI: a score in place of a list", in_monai(score=.5), "monai.json: validation[0]: score is 0.5, expected a list of a value for each box")
monai.refused("MONAI: no image", js("monai.json", lambda d: d["validation"][0].pop("image")), "monai.json: validation[0], box 0: no name of a scan")
monai.refused("MONAI: an image that is a list", in_monai(image=["bob/ct.nii"]), "monai.json: validation[0], box 0: scan is ['bob/ct.nii'], expected text or a number")
for value in (None, 3, dict(a=1), "abcdef"): monai.refused(f"MONAI: a box that is {value}", in_monai(box=value), f"monai.json: validation[0]: box is {value!r}, expected a list of boxes")
monai.refused("MONAI: boxes in place of box, in one entry of two", js("monai.json", lambda d: d["validation"].append({("boxes" if k == "box" else k): v for k, v in d["validation"][0].items()})), "monai.json: validation[1]: found ['image', 'boxes', 'score'], expected an object with image and box")
monai.refused("MONAI: an object in place of a list of scans", js("monai.json", lambda d: d.update(test={"0": d["validation"][0]})), "monai.json: test is an object, expected a list of entries with image and box")
monai.refused("MONAI: a box of 10^400", in_monai(box=[[0, 0, HUGE, 4, 4, 4]]), "monai.json: validation[0], box 0: box is [0, 0, 1000…, expected 6 finite numbers")
monai.refused("MONAI: a box of 1e290", in_monai(box=[[0, 0, 4, 1e290, 4, 4]]), "monai.json: validation[0], box 0: box …, expected numbers below 1e+09 with the first corner first")
monai.refused("MONAI: a patient_id that is a list", in_monai(patient_id=["p"]), "monai.json: validation[0], box 0: patient_id is ['p'], expected text or a number")
monai.refused("MONAI: a scan of another place", in_monai(image="/datasets/ct.nii"), "monai.json: validation[0], box 0: scan '/datasets/ct.nii' is not below …; there is bob/ct.nii")
in_nnd = lambda **values: js("ct_boxes.json", lambda d: d.update(values))
for value in (None, 3, dict(a=1)): nnd.refused(f"nnDetection: pred_boxes that is {value}", in_nnd(pred_boxes=value), "ct_boxes.json: expected a dict with pred_boxes, a list of boxes")
for c in ("pred_scores", "expert"):
    for value in (None, 3, dict(a=1), "a"): nnd.refused(f"nnDetection: {c} that is {value}", in_nnd(**{c: value}), f"ct_boxes.json: {c} is {value!r}, expected a list of a value for each box")
nnd.refused("nnDetection: a score of 10^400", in_nnd(pred_scores=[HUGE]), "ct_boxes.json: box 0: score is 1000…, expected a finite number")
nnd.refused("nnDetection: a slice of 1e300", in_nnd(pred_boxes=[[0, 3, 1e299, 9, 3, 9]]), "ct_boxes.json: ct, box 0: box …, expected numbers below 1e+09 with the first corner first")
nnd.reading("`read_boxes`", lambda d: read_boxes(d/"ct_boxes.pkl")).refused("nnDetection: pickled, with a number of 5000 digits", lambda d: (d/"ct_boxes.pkl").write_bytes(pickle.dumps(dict(pred_boxes=[[1, 5, 3, 12, 4, 10**5000]], pred_scores=[.5]))), "ct_boxes.pkl: box 0: box is a number of thousands of digits, expected 6 finite numbers")
nnd.refused("nnDetection: a patient_id that is a list", in_nnd(patient_id=[1]), "ct_boxes.json: ct, box 0: patient_id is [1], expected text or a number")

BOX = ["x1","y1","x2","y2"]
def mining(**change):
    "Two lesions and two proposals of one patient with their embeddings, as keyword arguments of `match_missing`."
    boxes = pd.DataFrame([[0., 0, 10, 10], [20, 20, 30, 30]], columns=BOX).assign(volume_id="v", patient_id="p", z=[1, 4])
    return dict(lesions=boxes.assign(lesion_id=["a","b"], role="annotated"), proposals=boxes.assign(z=[2, 5], score=[.9, .4], expert="lits"),
                lesion_emb=np.eye(2), proposal_emb=np.eye(2)[::-1]*.9, **change)
def mam(**change): return lambda d: match_missing(**(mining() | change))
def nrm(**change): return lambda d: suspicious(**{k: v for k, v in (mining() | change).items() if k in ("proposals","lesions","sigma","experts","iou_known","nms")})
par = Kind("Parameters", "profile", "", None)
for theta in (-.1, float("nan"), None, "0.15"): par.reading("`match_missing`", mam(theta=theta)).refused(f"theta = {theta!r}", nothing, f"theta is {theta!r}, expected a number in [0,inf)")
for sigma in (1.5, -.1, float("nan"), None, "0.5"): par.reading("`suspicious`", nrm(sigma=sigma)).refused(f"sigma = {sigma!r}", nothing, f"sigma is {sigma!r}, expected a number in [0,1]")
par.reading("`match_missing`", mam(nms=2)).refused("nms = 2", nothing, "nms is 2, expected a number in [0,1]")
par.reading("`match_missing`", mam(proposal_emb=np.eye(3))).refused("embeddings of another number of proposals", nothing, "proposal_emb has shape (3, 3), expected (2, E): a row for each row of the proposals table")
par.reading("`match_missing`", mam(proposal_emb=np.array([[1, np.nan], [0, 1]]))).refused("an embedding with NaN", nothing, "proposal_emb, row 0: the embedding has a value that is not finite")
par.reading("`match_missing`", mam(proposals=mining()["proposals"].assign(score=[np.nan, .4]))).refused("a proposal whose score is NaN", nothing, "proposals, row 0: score is nan, expected a finite number")
par.reading("`match_missing`", mam(proposals=mining()["proposals"].drop(columns="patient_id"))).refused("proposals without patients", nothing, "proposals: column 'patient_id' is missing; …")
par.reading("`match_missing`", mam(proposals=mining()["proposals"].assign(patient_id=[None, "p"]))).refused("a proposal without a patient", nothing, "proposals, row 0: patient_id is missing")
par.reading("`match_missing`", mam(proposals=mining()["proposals"].assign(patient_id=1))).refused("patients that are numbers in one table and text in the other", nothing, "patient_id is of type string in lesions and number in proposals: none would be the same")
for by, of, what in (("`match_missing`", mam, "matching"), ("`suspicious`", nrm, "suspecting")):
    changed = lambda **change: par.reading(by, of(**{k: mining()[k].assign(**v) for k, v in change.items()}))
    changed(proposals=dict(volume_id=7), lesions=dict(volume_id="7")).refused(f"{what}: volumes that are numbers in one table and text in the other", nothing, "volume_id is of type number in proposals and string in lesions: none would be the same")
    changed(proposals=dict(volume_id=7), lesions=dict(volume_id=7.)).handled(f"{what}: volumes that are whole numbers in one table and floats in the other", nothing, that(lambda got: len(got) > 0), "the same volumes")
    changed(proposals=dict(volume_id=["v", None], score=.9)).refused(f"{what}: a proposal without a volume", nothing, "proposals, row 1: volume_id is missing")
    changed(proposals=dict(z=[2, 4.5])).refused(f"{what}: a proposal between two slices", nothing, "proposals, row 1: z is 4.5, expected the whole number of a slice")
    changed(lesions=dict(role=["annotated", "Annotated"])).refused(f"{what}: a role that does not exist", nothing, "lesions, row 1: role is 'Annotated', expected one of annotated, mined, …")
    changed(proposals=dict(score=["0.95", "9e-1"], z=2)).handled(f"{what}: scores as text", nothing, that(lambda got: list(got.lesion_id.str[-3:]) == ["2/0", "2/1"]), "compared as numbers")
par.reading("`match_missing`", mam(lesion_emb=[[1, 0], [0, 1]])).refused("lists as embeddings", nothing, "lesion_emb is a list, expected an array")
par.reading("`suspicious`", nrm(experts="lits")).refused("a name in place of a list of experts", nothing, "experts is 'lits', expected a list of names")
par.reading("`suspicious`", nrm(proposals=mining()["proposals"].assign(x2=-1.))).refused("proposals that are turned round", nothing, "proposals, row 0: x2 is -1.0, less than x1, 0.0")
par.reading("`match_missing`", lambda d: match_missing(**{k: v[:0] if k.startswith("proposal") else v for k, v in mining().items()})).handled("no proposals", nothing, that(lambda got: len(got) == 0 and "matched_lesion_id" in got), "an empty table")
par.reading("`stack`", lambda d: stack(pd.DataFrame([["v", 1.5, 0, 0, 1, 1, .5]], columns=["volume_id","z",*BOX,"score"]))).refused("a box between two slices", nothing, "detections2d, row 0: z is 1.5, expected the whole number of a slice")
par.reading("`stack`", lambda d: stack(pd.DataFrame([], columns=["volume_id","z",*BOX,"score"]), iou=1)).refused("an IoU that no two boxes reach", nothing, "iou is 1, expected a number in [0,1)")
def boxes2(**change): return lambda d: stack(pd.DataFrame([["v", z, 0, 0, 9, 9, .5] for z in (1, 2)], columns=["volume_id","z",*BOX,"score"]).assign(**change))
par.reading("`stack`", boxes2(volume_id=["v", None])).refused("a box without a volume", nothing, "detections2d, row 1: volume_id is missing")
par.reading("`stack`", boxes2(z=[1, 1e300])).refused("a box on slice 1e300", nothing, "detections2d, row 1: z is 1e+300, expected the whole number of a slice, at most 1e+09")
par.reading("`stack`", boxes2(score=["0.5", "1e-05"])).handled("stacking: scores as text", nothing, that(lambda got: got[0].score.tolist() == [.5]), "numbers: the best is 0.5")
def curve(rule="field", threshold=.5, shift=0):
    boxes = pd.DataFrame(dict(volume_id=["a", "b"], z=1, x1=[0., 20], y1=0., x2=[9., 29], y2=9., score=[.5, .9]))
    return F.froc(boxes, boxes.assign(x1=boxes.x1 + shift, x2=boxes.x2 + shift), [("a", 1), ("b", 1)], dims="2d", rule=rule, threshold=threshold)
compared = lambda **change: par.reading("`compare`", lambda d: F.compare(curve(), curve(**change), dict(a="p", b="q"), 20))
compared(rule="strict").refused("curves by two rules", nothing, "the two curves are of different rules: rule is 'field' and 'strict'")
compared(threshold=.1).refused("curves by two thresholds", nothing, "the two curves are of different rules: threshold is 0.5 and 0.1")
compared(shift=300).refused("curves of lesions at other places", nothing, "the two curves are of different truth: a lesion of volume 'a' is at …")
par.reading("`Froc.bootstrap`", lambda d: curve().bootstrap(dict(a="p", b=None))).refused("a volume whose patient is None", nothing, "groups: volume 'b' has none (1 of 2 volumes are missing)")
par.reading("`Froc.bootstrap`", lambda d: curve().bootstrap(dict(a="p", b="q"), n=10.)).refused("10. draws", nothing, "n is 10.0, expected a whole number in [1,inf)")
def setting(text, profile="{d}/own.yaml"): return par.reading("`meld run --set`", meld("run", "--profile", profile, "--dry-run", "--run", "{d}/run", "--set", text))
setting("40_mam.theta=0.2").refused("an unknown parameter", nothing, "40_mam.theta: unknown parameter; 40_mam has: run, seed, mam_theta, …")
setting("41_mum.theta=0.2").refused("an unknown chapter", nothing, "41_mum: no such chapter; there are: 10_data, …")
setting("40_mam.mam_theta=high").refused("a word in place of a number", nothing, "40_mam.mam_theta: expected float like 0.0, found 'high'")
setting("40_mam.mam_theta=nan").refused("NaN as a threshold", nothing, "40_mam.mam_theta: expected float like 0.0, found 'nan'")
setting("40_mam.mam_theta=-0.1").refused("theta < 0", nothing, "40_mam.mam_theta is -0.1, expected a number in [0,inf)")
setting("50_nrm.nrm_sigma=1.5").refused("sigma > 1", nothing, "50_nrm.nrm_sigma is 1.5, expected a number in [0,1]")
setting("40_mam.run=elsewhere").refused("a parameter of the whole run", nothing, "40_mam.run: this belongs to the whole run; set study.run")
setting("mam_theta=0.2").refused("a parameter without its chapter", nothing, "'mam_theta': expected chapter.name")
setting("mam_theta").refused("a setting without a value", nothing, "'mam_theta': expected chapter.name=value")
setting("study.shards=0").refused("no shard", nothing, "study.shards is 0, expected a whole number in [1,inf)")
setting("study.arms=[meld, mum]").refused("an arm that does not exist", nothing, "no arm 'mum'; there are baseline, meld, …")
setting("study.arms=[]").refused("no arm", nothing, "study.arms: expected one or more, found none")
setting("study.arms=[meld, meld]").refused("an arm twice", nothing, "study: meld is there twice among arms, points and shares")
setting("study.annotated=[1.5]").refused("a share above 1", nothing, "study.annotated: a share lies in (0, 1], found 1.5")
setting("study.world=[1, 2]").refused("a list in place of a world", nothing, "a world is the name of a profile or world parameters by name, got [1, 2]")
setting("study.world=moon").refused("a world that does not exist", nothing, "no world profile is called 'moon'; there are: smoke, demo, study")
setting("study.world={annotated: 2}").refused("a share of the world above 1", nothing, "world parameter annotated is 2, expected a number in [0,1]")
setting("study.world={noise: .nan}").refused("NaN in the world", nothing, "world parameter noise is nan, expected a number in [0,200]")
setting("study.seed=1.5").refused("a seed that is no whole number", nothing, "study.seed: expected int like 0, found 1.5")
setting("study.seed=-1").refused("a seed below 0", nothing, "study.seed is -1, expected a whole number in [0,4294967295]")
setting("study.seed=18446744073709551616").refused("a seed of more than 32 bits", nothing, "study.seed is 18446744073709551616, expected a whole number in [0,4294967295]")
setting("15_lesanet.triplets=0", "smoke").refused("a count of 0", nothing, "15_lesanet.triplets is 0, expected a whole number in [1,inf)")
setting("15_lesanet.scale=5", "smoke").refused("a change of scale that turns a patch inside out", nothing, "15_lesanet.scale is 5.0, expected a number in [0,1)")
setting("study.sede=1").refused("an unknown setting of the study", nothing, "study.sede: unknown; there are: chapters, seed, …")
yaml = par.reading("`meld run`", meld("run", "--profile", "{d}/own.yaml", "--dry-run", "--run", "{d}/run"))
yaml.refused("a profile that is not YAML", write("own.yaml", "study: [1, 2"), "own.yaml: not YAML (…)")
yaml.refused("a profile with a Python tag", write("own.yaml", "study: !!python/object/apply:os.getcwd []"), "own.yaml: not YAML (could not determine a constructor for the tag …)")
yaml.refused("a profile that is not text", write("own.yaml", b"study: \xff\xfe\x00"), "own.yaml: not YAML (…)")
yaml.refused("a profile with brackets ten thousand deep", write("own.yaml", "study: " + "["*10_000), "own.yaml: not YAML (…)")
yaml.refused("a profile that is a list", write("own.yaml", "[1, 2]"), "own.yaml: expected `chapter:` with `name: value` lines below")
yaml.refused("a profile with a parameter twice", edit("own.yaml", lambda b: b + b"40_mam:\n  mam_theta: 0.1\n  mam_theta: 0.2\n"), "own.yaml: not YAML ('mam_theta' is given twice)")
yaml.refused("a list in a list of chapters", write("own.yaml", "study: {seed: 1000, chapters: [[40_mam]]}"), "study.chapters: expected names of chapters, or all, found ['40_mam']")
yaml.refused("a chapter without those that it needs", write("own.yaml", "study: {seed: 1000, chapters: [40_mam]}"), "chapter 10 is needed, but the profile does not list it before the one that needs it")
yaml.refused("a profile without a seed", sub("own.yaml", "seed: 1000", "shards: 1"), "profile …own.yaml is run once for each seed: say which (--seed)")
par.reading("`meld run`", meld("run", "--profile", "none")).refused("a profile that does not exist", nothing, "'none' is no profile; there are: bench, demo, paper, …")
def record(text): return lambda d: ((d/"10").mkdir(), (d/"run.json").write_text(text))
report = par.reading("`meld report`", meld("report", "{d}", "--out", "{d}/report.html"))
report.refused("a list as the record of a run", record("[1]"), "run.json: found a list, expected the record of a run")
report.refused("a number as the jobs of a run", record('{"jobs": 5}'), "run.json: jobs is 5, expected a dict")
par.reading("`meld report --release`", meld("report", "{d}", "--release")).refused("the record of no run", record("{}"), "run.json: no such file, or not the record of a run")
par.reading("`meld check`", meld("check", "own", "{d}/l\udcfcna")).refused("a name that is not UTF-8", nothing, "Invalid value for 'ROOT': … is no name in UTF-8: rename the file or folder")
par.reading("`meld check`", meld("check", "deeplessien", "{d}")).refused("a data set that does not exist", nothing, "no data set is called 'deeplessien'; there are: deeplesion, luna16, lits, nih_ln")
par.reading("`meld phantom`", meld("phantom", "{d}/world", "--profile", "{d}/own.yaml")).refused("a world parameter that does not exist", write("own.yaml", "patients: 3"), "world parameter 'patients' is unknown; there are: train, val, …")
for k, v in dict(noise=-5, pad_px="1.0e+8", contrast="-1.0e+8", magnify=50).items(): par.reading("`meld phantom`", meld("phantom", "{d}/world", "--profile", "{d}/own.yaml")).refused(f"a world parameter out of range, {k}", write("own.yaml", f"{k}: {v}"), f"world parameter {k} is …, expected a … in […]")
par.reading("`meld phantom`", meld("phantom", "{d}/world")).refused("a world.json that is none", lambda d: ((d/"world").mkdir(), (d/"world"/"world.json").write_text("[]")), "world.json: is [], expected the parameters of a world; choose another folder")

def load(d):
    from meld_nb.meld import load_model
    model = load_model(d/"model.safetensors", "cpu")
    return {k: v.numpy() for k, v in model.state_dict().items()}
ck = Kind("Checkpoints", "checkpoint", "`load_model`", load)
MODEL = "model.safetensors"
def saved(change=lambda t: None, head=lambda h: None):
    "The checkpoint with other tensors (a dict) or another header."
    def _saved(d):
        from meld_nb.backbone import read_tensors
        from safetensors.torch import save_file
        tensors, meta = read_tensors(d/MODEL)
        change(tensors); head(meta)
        save_file(tensors, d/MODEL, {"meta": json.dumps(meta)})
    return _saved
first = "trunk.fuse1.weight"
ck.refused("the file is missing", drop(MODEL), f"{MODEL}: no such file")
ck.refused("cut short", cut(MODEL), f"{MODEL}: not a safetensors file (…)")
ck.refused("an empty file", write(MODEL, ""), f"{MODEL}: not a safetensors file (…)")
ck.refused("text in its place", write(MODEL, "weights"*99), f"{MODEL}: not a safetensors file (…)")
ck.refused("a tensor is missing", saved(lambda t: t.pop(first)), f"{MODEL}: does not fit the model: {first} is missing")
ck.refused("a tensor too many", saved(lambda t: t.update(extra=t[first].clone())), f"{MODEL}: does not fit the model: extra is not part of the model")
ck.refused("a tensor of another shape", saved(lambda t: t.update({first: t[first][:1].clone()})), f"{MODEL}: does not fit the model: {first} is …, expected …")
ck.refused("a tensor of another type", saved(lambda t: t.update({first: t[first].long()})), f"{MODEL}: does not fit the model: {first} is of type torch.int64, expected torch.float32")
ck.refused("weights that are NaN", saved(lambda t: t[first].fill_(float("nan"))), f"{MODEL}: does not fit the model: {first} has values that are not finite")
ck.refused("the weights of another kind of model", saved(head=lambda h: h.update(model="LesaNet")), f"{MODEL}: holds 'LesaNet', expected a model saved by this project (MELD, …)")
ck.refused("no description of the model", saved(head=lambda h: h.clear()), f"{MODEL}: holds 'no model', expected a model saved by this project (MELD, …)")
ck.refused("no configuration", saved(head=lambda h: h.pop("config")), f"{MODEL}: its metadata has no 'config'; not written by this project")
ck.refused("a setting that the model does not have", saved(head=lambda h: h["config"].update(layers=3)), f"{MODEL}: no model can be made of its settings (… unexpected keyword argument 'layers')")
ck.refused("a setting out of its range", saved(head=lambda h: h["config"].update(box_nms_thresh=2)), f"{MODEL}: …box_nms_thresh is 2, expected a number in [0,1]")
ck.refused("a setting that is a word", saved(head=lambda h: h["config"].update(head_width="wide")), f"{MODEL}: …head_width is 'wide', expected a whole number in [1,inf)")
ck.refused("a layer of a billion units", saved(head=lambda h: h["config"].update(head_width=10**9)), f"{MODEL}: does not fit the model: heads.box.weight is [8, 8], expected [8, 1000000000]; …")
ck.refused("no note of the data that it was trained on", saved(head=lambda h: h.pop("meta")), f"{MODEL}: its metadata has no 'meta'; not written by this project")
def detect(*more): return ck.reading("`meld detect`", meld("detect", "{d}/ct.nii", "--checkpoint", f"{{d}}/{MODEL}", "--out", "{d}/out", "--overlays", "0", "--device", "cpu", *more))
detect("--experts", "kits").refused("an expert that the model does not have", nothing, "--experts: …model.safetensors has no expert 'kits'; it has: deeplesion, lits")
detect("--score", "2").refused("a score above 1", nothing, "Invalid value for '--score': 2.0 is not in the range 0<=x<=1")
detect("--score", "nan").refused("a score of NaN", nothing, "Invalid value for '--score': nan is no finite number")
for what, args in dict(SCANS=["", "--out", "{d}/out"], out=["{d}/ct.nii", "--out", ""], checkpoint=["{d}/ct.nii", "--out", "{d}/out", "--checkpoint="]).items():
    ck.reading("`meld detect`", meld("detect", *args)).refused(f"an empty path as {what}", nothing, f"Invalid value for '{'SCANS...' if what == 'SCANS' else '--' + what}': is empty; is a shell variable not set?")
for value in (None, float("nan"), "many", [1], dict(deeplesion=None), dict(deeplesion=[]), dict(deeplesion={}), 3):
    detect().refused(f"operating points that are {value}", saved(head=lambda h, value=value: h["meta"].update(operating_points=value)), f"meld: …{MODEL}: its operating points…")
CURVE = dict(measured_on="x", volumes=1, lesions=1, length_mm=None, thresholds=[.9, .5], fps=[0, 1], sensitivity=[0, 1])
for k, v in dict(measured_on=7, volumes=None, length_mm=float("nan"), thresholds=[.9, float("nan")], fps="many", sensitivity=[.5]).items():
    detect().refused(f"operating points whose {k} is {v}", saved(head=lambda h, k=k, v=v: h["meta"].update(operating_points=dict(deeplesion=CURVE | {k: v}))), f"meld: …{MODEL}: its operating points of deeplesion: {k} is …, expected …")
detect("--format", "nifti").refused("a label map of the user's where one would be written", both(lambda d: (d/"out"/"labels").mkdir(parents=True), write("out/labels/ct.nii.gz", "mine")), "meld: …ct.nii.gz: is there, and not of an earlier call, so it is not written over; choose another folder, or move it away")
detect("--format", "csv").refused("a detections.csv of the user's where one would be written", both(lambda d: (d/"out").mkdir(), write("out/detections.csv", "mine")), "meld: …detections.csv: is there, and not of an earlier call, …")
detect().refused("a scan that is missing", drop("ct.nii"), "ct.nii: no such file or folder")
detect().refused("a scan that is cut short", cut("ct.nii"), "ct.nii: cut short: … bytes of voxels, its header asks for 49152")
def label_map(d): write_volume(Volume((read_volume(d/"ct.nii").hu > 0).astype(np.int16), (1., 1., 1.)), d/"ct.nii", dtype=np.uint8)
detect().refused("a label map in place of the scan", label_map, "ct.nii: its values are 0 to 1, none below 0: expected HU (air -1000, fat about -100); is it a label map, or stored with an offset?")
detect("--series", "1.2").refused("a series of a file", nothing, "--series: …ct.nii is a file; series are for DICOM folders")
detect("--device", "cuda:99").refused("a device that is not there", nothing, "device is 'cuda:99', expected one of cpu…")


# ---- the tests -----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def trees(tmp_path_factory): return tmp_path_factory.mktemp("trees")

@functools.cache
def whole(case_read, tree): return case_read(tree)           # what an unbroken tree gives; the same reader is asked once

@pytest.fixture
def folder(request, trees, tmp_path):
    "The case's own copy of its tree."
    case = request.param
    shutil.copytree(tiny.make(case.tree, trees), tmp_path/case.tree)
    return tmp_path/case.tree

names = [f"{c.kind}: {c.broken}" for c in CASES]

def test_cases_have_names_of_their_own(): assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]

@pytest.mark.parametrize("case,folder", [(c, c) for c in CASES], ids=names, indirect=["folder"])
def test_bad_input(case, folder, trees, monkeypatch):
    monkeypatch.setenv("MELD_QUIET", "1")
    case.make(folder)
    if case.check: return case.check(case.read(folder), whole(case.read, trees/case.tree))
    with pytest.raises((InputError, Refusal)) as e: case.read(folder)
    lines = [" ".join(l.split()) for l in str(e.value).splitlines()] if e.type is Refusal else [str(e.value)]
    assert e.type is Refusal or "\n" not in str(e.value), f"more than a line: {e.value}"
    assert any(re.search(_pattern(case.says), l) for l in lines), f"expected {case.says!r}, found:\n" + "\n".join(lines)


# ---- the page ------------------------------------------------------------------------------------------------------

def page():
    "docs/bad_input.md."
    text = lambda s: s.replace("|", "\\|").replace("<", "&lt;")
    out = ["# Bad input", "", "What happens to input that is broken. Either it is handled right, and the table says how, or it is refused: one line that names the file, the place in it, what was found and what was expected "
           "(`InputError` in Python; on the command line, `meld: ...` and an exit code that is not 0). Nothing is left out in silence.", "",
           f"Each row is one of the {len(CASES)} cases of `tests/trust/test_bad_input.py`, from which this page is made; … stands for any text, and paths are shortened to their ends.", ""]
    for kind in dict.fromkeys(c.kind for c in CASES):
        out += [f"## {kind}", "", "| what is wrong | read by | what happens |", "|---|---|---|"]
        out += [f"| {text(c.broken)} | {c.by} | {'handled: ' + text(c.says) if c.check else 'refused: `' + c.says.replace('|', chr(92) + '|') + '`'} |" for c in CASES if c.kind == kind] + [""]
    return "\n".join(out)

def test_every_number_of_every_chapter_has_a_range():
    numbers = {name: book.stem for book in sorted((ROOT/"nbs"/"study").glob("[0-9][0-9]_*.ipynb")) for name, (default, *_) in parameters(book).items() if isinstance(default, (int, float)) and not isinstance(default, bool)}
    assert numbers and not {name: book for name, book in numbers.items() if name not in RANGES}


def test_the_page_is_in_step(): assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/trust/test_bad_input.py --write-docs"

if __name__ == "__main__":
    if sys.argv[1:] != ["--write-docs"]: sys.exit(__doc__)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
