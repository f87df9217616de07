"""A valid data set of each kind, as small as can be: what the tests of this folder break. Made once for each session of pytest."""
import csv, json, pickle
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from meld_nb.volume import Volume, write_dicom, write_pngs, write_volume

PX, MM = .8, 2.                                             # pixel size, slice interval
TERMS = ["lung", "liver", "lymph node", "nodule"]


def body(nz, n=32, seed=0):
    "HU int16 [z,y,x]: a round body in air, whose voxels all differ."
    y, x = np.mgrid[:n,:n] - (n-1)/2
    hu = np.where(x**2 + y**2 < (.45*n)**2, 40, -1000) + np.arange(nz)[:,None,None] + np.random.default_rng(seed).integers(-9, 10, (nz, n, n))
    return hu.astype(np.int16)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f, lineterminator="\n").writerows([header, *rows])


DL_HEADER = ("File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,Lesion_diameters_Pixel_,Normalized_lesion_location,"
             "Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test").split(",")


def dl_row(patient, key, first, last, split, x=12, y=14):
    "A mark whose long axis is 6 px and whose short one is 4 px; its box is padded by 5 px."
    return [f"{patient:06d}_01_01_{key:03d}.png", patient, 1, 1, key, f"{x}, {y}, {x+6}, {y}, {x+3}, {y-2}, {x+3}, {y+2}", f"{x-5}, {y-7}, {x+11}, {y+7}", "6, 4", "0.4, 0.4, 0.5",
            5, 0, f"{first}, {last}", f"{PX}, {PX}, {MM}", "32, 32", "-175, 275", "F", 50, split]


def deeplesion(root):
    rows = [dl_row(1, 6, 3, 9, 1), dl_row(1, 7, 3, 9, 1, 15, 16), dl_row(2, 2, 1, 3, 2), dl_row(3, 3, 1, 5, 3)]
    write_csv(root/"DL_info.csv", DL_HEADER, rows)
    for r in rows: write_pngs(body(int(r[11].split(",")[1]), seed=r[1]), root/"Images_png"/r[0][:12])


def luna16(root):
    for k in (1, 2): write_volume(Volume(body(8, 24, k), (PX, PX, MM), (-9., -9., 100.*k)), root/"subset0"/f"1.2.{k}.mhd")
    header = ["seriesuid","coordX","coordY","coordZ","diameter_mm"]
    write_csv(root/"annotations.csv", header, [["1.2.1", -1., 0., 106., 6.]])
    write_csv(root/"annotations_excluded.csv", header, [["1.2.1", 2., 2., 104., -1.]])


def lits(root):
    root.mkdir(parents=True)
    labels = np.zeros((8, 24, 24), np.int16); labels[:,6:18,5:12] = 1; labels[3:5,8:11,7:10] = 2
    for name, a in (("volume", body(8, 24)), ("segmentation", labels)): write_volume(Volume(a, (PX, PX, MM), (3., 4., 5.)), root/f"{name}-0.nii")


def nodes():
    "A lymph node on two slices."
    a = np.zeros((8, 24, 24), np.int16); a[3:5,10:13,10:14] = 1
    return a


def nih_ln(root):
    vol = Volume(body(8, 24), (PX, PX, MM), (-9., -9., 50.))
    write_dicom(vol, root/"ABD_LYMPH_001"/"study"/"series", "NOBODY")
    write_volume(Volume(nodes(), vol.spacing, vol.origin), root/"MED_ABD_LYMPH_MASKS"/"ABD_LYMPH_001"/"ABD_LYMPH_001_mask.nii.gz", np.uint8)


def scan(root):
    "The same scan in every format that is read."
    vol = Volume(body(6, 20), (PX, PX, MM), (-7., -8., 30.))
    for suffix in (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr"): write_volume(vol, root/f"ct{suffix.replace('.nii.gz', '_packed.nii.gz').removeprefix('ct')}")
    sitk.WriteImage(sitk.ReadImage(str(root/"ct.mha")), str(root/"packed.mha"), True)
    write_dicom(vol, root/"dicom", "NOBODY")
    write_pngs(vol.hu[::-1], root/"pngs")


def labels(root):
    said = dict(term_list=TERMS, **{f"{s}_{k}": v for s, n in (("train", 2), ("val", 1), ("test", 1)) for k, v in
                (("relevant_labels", [[0, 3]]*n), ("uncertain_labels", [[]]*n), ("irrelevant_labels", [[1]]*n))},
                train_lesion_idxs=[0, 1], val_lesion_idxs=[2], test_lesion_idxs=[3])
    root.mkdir(parents=True)
    (root/"labels.json").write_text(json.dumps(said))
    write_csv(root/"ontology.csv", ["term","class","term_exclusive","term_parents","synonyms","num_detected"],
              [[t, "type" if t == "nodule" else "bodypart", "", "", "", 1] for t in TERMS])


NAME = "000003_01_01_001-005"


def two_d(): return {f"{NAME}.annot": {2: [[8., 9., 18., 20., 2., 2.]]}, "000002_01_01_001-003.annot": {}}
def three_d(): return {"val": {"000002_01_01_001-003": np.zeros((0, 6))}, "test": {NAME: np.array([[7., 8, 2, 17, 19, 3]])}}


def testset(root):
    deeplesion(root)
    for name, obj, protocol in (("Revised-Test1071.pkl", two_d(), 2), ("manual_3d.pkl", three_d(), 3)):
        (root/name).write_bytes(pickle.dumps(obj, protocol).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def froc(root):
    box = ["x1","y1","z1","x2","y2","z2"]
    write_csv(root/"detections.csv", ["volume_id","stack_id",*box,"score"], [["a", 0, 5, 5, 2, 15, 15, 4, .9], ["b", 1, 5, 5, 2, 15, 15, 4, .8], ["b", 2, 40, 40, 1, 50, 50, 2, .7]])
    write_csv(root/"members.csv", ["stack_id","z","x1","y1","x2","y2"], [[s, z, *b] for s, zs, b in ((0, (2, 3, 4), (5, 5, 15, 15)), (1, (2, 3, 4), (5, 5, 15, 15)), (2, (1, 2), (40, 40, 50, 50))) for z in zs])
    write_csv(root/"truth.csv", ["volume_id","z","x1","y1","x2","y2"], [["a", 3, 5, 5, 15, 15], ["b", 3, 20, 20, 30, 30]])
    write_csv(root/"images.csv", ["volume_id"], [["a"], ["b"], ["c"]])
    write_csv(root/"groups.csv", ["volume_id","patient_id"], [["a", "p"], ["b", "q"], ["c", "q"]])


def checkpoint(root):
    import torch
    from meld_nb.meld import MELD, meld_config, save_model
    torch.manual_seed(0)
    small = dict(trunk=dict(growth_rate=4, block_config=[1, 1, 1], num_init_features=4, width=8), datasets=["deeplesion", "lits"], organs=["lung", "liver"],
                 anchors_px=[8], anchor_ratios=[1.], rpn_width=8, head_width=8, gate_width=8, mask_width=8, box_score_thresh=0.)
    save_model(MELD(**meld_config("narrow", **small)), root/"model.safetensors", data="phantom world 'tiny', seed 0")
    write_volume(Volume(body(6, 64), (PX, PX, MM)), root/"ct.nii")


def own(root):
    "Scans of two patients, and their boxes in every form."
    for name, seed in (("ann/scan", 1), ("bob/ct", 2)): write_volume(Volume(body(6, 24, seed), (PX, PX, MM)), root/f"{name}.nii")
    write_csv(root/"boxes.csv", ["volume_id","z","x1","y1","x2","y2","lesion_id"], [["ann/scan", 2, 5, 6, 11, 12, "a"], ["bob/ct", 3, 4, 6, 12, 14, "b"]])
    write_csv(root/"predictions.csv", ["volume_id","z","x1","y1","x2","y2","score"], [["ann/scan", 4, 5, 6, 11, 12, .9], ["bob/ct", 1, 4, 6, 12, 14, .8]])
    for name, d in (("coco", dict(images=[dict(id=1, volume="ann/scan", slice=2), dict(id=2, volume="bob/ct", slice=3)], annotations=[dict(id=k, image_id=k, bbox=[5, 6, 7, 8], score=.5) for k in (1, 2)])),
                    ("monai", dict(validation=[dict(image="bob/ct.nii", box=[[6, 7, 4, 5, 5, 3]], score=[.5])])), ("ct_boxes", dict(pred_boxes=[[1, 5, 3, 12, 4, 11]], pred_scores=[.5]))):
        (root/f"{name}.json").write_text(json.dumps(d))


def profile(root):
    "A study of two chapters, and the tables that they work on."
    root.mkdir(parents=True)
    (root/"own.yaml").write_text("study:\n  seed: 1000\n  world: smoke\n  chapters: [40_mam, 50_nrm]\n")


MAKERS = dict(profile=profile, own=own, deeplesion=deeplesion, luna16=luna16, lits=lits, nih_ln=nih_ln, scan=scan, labels=labels, testset=testset, froc=froc, checkpoint=checkpoint)


def make(name, root):
    "The tree called `name`, below `root`, made if it is not there."
    if not (root/name).exists(): MAKERS[name](root/name)
    return root/name
