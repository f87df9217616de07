"""Properties of frames, tables, stacking, FROC, MAM, NRM, training targets and sampling, on inputs that nobody would write down.

The library notebooks show each part on hand-made cases and against a loop; here hypothesis looks for the case that breaks it: boxes without
area, equal scores, duplicates, empty volumes, single slices, coordinates of a million. References are written from the definition and share
nothing with the package: overlaps are counted in pixels, matches tried one by one.

    pytest tests/trust/test_properties.py                               # few examples, always the same
    pytest tests/trust/test_properties.py --hypothesis-profile=trust    # many
"""
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, strategies as st

from meld_nb.core import InputError

PAT = {"a/1": "a", "a/2": "a", "b/1": "b", "c/1": "c"}                     # volumes and their patients
VOLUMES = [*PAT, "empty/1", "empty/2"]
BOX2, BOX3 = ["x1", "y1", "x2", "y2"], ["x1", "y1", "z1", "x2", "y2", "z2"]
TINY = 1e-9
corner, side, slices = st.integers(0, 9), st.integers(0, 6), st.integers(0, 3)
shifts = st.sampled_from([0, -7, 123_456, 1_000_000, -1_000_000])          # a power of ten keeps sizes exact
scores = st.integers(0, 8).map(lambda k: k/8)                              # many are equal


# references: sets of pixels

def pixels(b, plus_one): # x1,y1,x2,y2 whole numbers
    x1, y1, x2, y2 = map(int, b)
    return {(x, y) for x in range(x1, x2 + plus_one) for y in range(y1, y2 + plus_one)}


def shared(a, b, kind, plus_one): # of the boxes' pixels
    a, b = pixels(a, plus_one), pixels(b, plus_one)
    whole = dict(iou=len(a | b), iobb=len(a), iogt=len(b), iobbgt=min(len(a), len(b)))[kind]
    return len(a & b)/whole if whole else 0.


def shared3(a, b, kind, plus_one): # x1,y1,z1,x2,y2,z2; a slice is one voxel thick and inclusive
    cells = lambda o: {(x, y, z) for x, y in pixels([o[0], o[1], o[3], o[4]], plus_one) for z in range(int(o[2]), int(o[5]) + 1)}
    a, b = cells(a), cells(b)
    whole = dict(iou=len(a | b), iobb=len(a), iogt=len(b), iobbgt=min(len(a), len(b)))[kind]
    return len(a & b)/whole if whole else 0.


def nms(rows, keep): # rows [(volume, z, box, score)], best of equals first: which stay if IoU > keep goes
    stay = []
    for i in sorted(range(len(rows)), key=lambda i: (-rows[i][3], i)):
        if all(rows[i][:2] != rows[j][:2] or shared(rows[i][2], rows[j][2], "iou", False) <= keep for j in stay): stay.append(i)
    return sorted(stay)


# tables of boxes

@st.composite
def flat(draw, most=14, score=scores, **more):
    n = draw(st.integers(0, most))
    rows = draw(st.lists(st.tuples(st.sampled_from([*PAT]), slices, corner, corner, side, side, score, *more.values()), min_size=n, max_size=n))
    d = pd.DataFrame([(v, z, float(x), float(y), float(x+w), float(y+h), *o) for v, z, x, y, w, h, *o in rows], columns=["volume_id", "z", *BOX2, "score", *more])
    d = d.astype({c: float for c in [*BOX2, "score"]} | {"z": int})
    again = draw(st.lists(st.integers(0, max(0, n-1)), max_size=2)) if n else []          # duplicates
    return pd.concat([d, d.iloc[again]], ignore_index=True)


@st.composite
def solid(draw, most=10, score=scores):
    d = draw(flat(most, score, deep=st.integers(0, 2)))
    return d.assign(z1=d.z.astype(float), z2=d.z + d.deep.astype(float)).drop(columns=["z", "deep"])


def moved(d, x, y, z): return d.assign(**{c: d[c] + dict(x=x, y=y, z=z)[c[0]] for c in d if c in (*BOX3, "z")})


def shuffled(draw, d): return d.iloc[draw.draw(st.permutations(range(len(d))))] if len(d) else d


unique = lambda d: d.assign(score=(np.argsort(np.argsort(-d.score.to_numpy(), kind="stable"))[::-1] + 1)/(len(d) + 1)) if len(d) else d   # no ties
rising = st.sampled_from([lambda s: 3*s - 7, np.exp, lambda s: s**3, lambda s: np.arctan(s)*1e-3, lambda s: s*1e6])


# what callers rely on without saying it: the paper's values, and the documented ones

def defaults(f):
    import inspect
    return {k: p.default for k, p in inspect.signature(f).parameters.items() if p.default is not p.empty}


def test_mam_nrm_stack_and_targets_defaults():
    from meld_nb import mam, nrm, stack, targets
    assert defaults(mam.match_missing) == dict(theta=.15, iou_annotated=0., nms=.5)                       # §4.2
    assert defaults(nrm.suspicious) == dict(sigma=.5, experts=None, iou_known=0., nms=.5)                 # §4.2
    assert defaults(stack.stack) == dict(iou=.5)                                                          # §4.3
    assert defaults(targets.anchor_targets) == dict(fg=.7, bg=.3, mined_in_rpn=True, mined_regression=False, border=False)
    assert defaults(targets.roi_targets) == dict(fg=.5, bg=.5, mined_regression=False) and defaults(targets.hard_rois) == dict(fg=.5)
    assert (targets.IGNORE_IOU, targets.IGNORE_COVER, targets.PADDING) == (.3, .5, -1)


def test_froc_defaults():
    from meld_nb import froc as m
    rates = (1/8, 1/4, 1/2, 1, 2, 4, 8)                                                                   # §4.3
    assert defaults(m.froc) == dict(dims="p3d", overlap="iou", threshold=.5, rule="field", plus_one=True, members=None, average_at=rates)
    assert defaults(m.froc_luna16) == dict(max_marks=100) and defaults(m.compare) == dict(n=1000, seed=0, method="expanded")
    assert defaults(m.Froc.bootstrap)["method"] == "expanded"
    for f in (m.Froc.draws, m.Froc.bootstrap, m.Froc.fp_draws): assert defaults(f).items() >= dict(n=1000, seed=0).items()
    assert m.PAPER_VOLUMETRIC == dict(dims="stack", overlap="iou", threshold=.5, average_at=rates)
    assert m.KEY_SLICE == dict(dims="2d", overlap="iou", threshold=.5, average_at=(.5, 1, 2, 4)) and m.LENS_3D == dict(dims="3d", overlap="iobb", threshold=.3, average_at=rates)


def test_frames_defaults():
    from meld_nb.frames import Frame, dl_info_frame
    assert defaults(Frame.world) == dict(source="index", target="lps")
    f = dl_info_frame(3)
    assert (f.source, f.target) == ("dl_info", "native")


# frames

number = lambda a, b: st.floats(a, b, allow_nan=False)
turns = st.tuples(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])]*3)).map(lambda t: (np.eye(3)*t[1])[list(t[0])])


@st.composite
def maps(draw, source, target):
    from meld_nb.frames import Frame
    m = np.eye(4)
    m[:3,:3] = draw(turns) @ np.diag(draw(st.tuples(*[number(.05, 20)]*3))); m[:3,3] = draw(st.tuples(*[number(-1e6, 1e6)]*3))
    return Frame(m, source, target)


points = st.lists(st.tuples(*[number(-1e6, 1e6)]*3), min_size=0, max_size=6).map(lambda p: np.array(p, float).reshape(-1, 3))


def by_hand(f, p): return np.array([[sum(float(f.matrix[k][a])*q[a] for a in range(3)) + float(f.matrix[k][3]) for k in range(3)] for q in p]).reshape(-1, 3)


@given(maps("a", "b"), maps("b", "c"), maps("c", "d"), points)
def test_frames_chain_and_come_back(f, g, h, p):
    np.testing.assert_allclose(f.points(p), by_hand(f, p), rtol=1e-12, atol=1e-6)
    a, b, c = (h @ g @ f), (h @ (g @ f)), h.points(g.points(f.points(p)))
    assert (a.source, a.target, a.inverse().source, a.inverse().target) == ("a", "d", "d", "a")
    scale = 1e-9*(1 + np.abs(p).max(initial=0) + np.abs(c).max(initial=0) + 1e6)
    np.testing.assert_allclose(a.points(p), c, atol=scale); np.testing.assert_allclose(b.points(p), c, atol=scale)
    np.testing.assert_allclose(f.inverse().points(f.points(p)), p, atol=1e-6)
    np.testing.assert_allclose((f.inverse() @ f).points(p), p, atol=1e-6)
    with pytest.raises(InputError): f @ g


@given(maps("a", "b"), points, points)
def test_frames_map_boxes_as_sets_of_points(f, p, q):
    n = min(len(p), len(q))
    boxes = np.concatenate([np.minimum(p[:n], q[:n]), np.maximum(p[:n], q[:n])], 1)
    out = f.boxes3d(boxes)
    assert (out[:,:3] <= out[:,3:]).all()
    np.testing.assert_allclose(np.sort(out[:,3:] - out[:,:3]), np.sort(np.abs((boxes[:,3:] - boxes[:,:3]) @ np.abs(f.matrix[:3,:3]).T)), rtol=1e-6, atol=1e-6)
    for t in (0, .3, 1):                                                   # what lies in a box lies in the mapped box, the middle in the middle
        inner = f.points(boxes[:,:3] + t*(boxes[:,3:] - boxes[:,:3]))
        assert (inner >= out[:,:3] - 1e-6).all() and (inner <= out[:,3:] + 1e-6).all()
    np.testing.assert_allclose(f.points((boxes[:,:3] + boxes[:,3:])/2), (out[:,:3] + out[:,3:])/2, atol=1e-6)
    np.testing.assert_array_equal(f.boxes3d(boxes[::-1]), out[::-1])
    np.testing.assert_allclose(f.inverse().boxes3d(out), boxes, atol=1e-6)


def test_frames_are_affine_maps_that_can_be_undone():
    from meld_nb.frames import Frame
    bad = [np.eye(3), np.zeros((4, 4)), np.diag([1., 1, 1, 2]), np.full((4, 4), np.nan), np.eye(4)[:3]]
    for i, v in ((0, np.inf), (5, np.nan), (10, 0.), (5, -1e-13), (12, 1.), (13, 1e-9), (14, -1.)): bad.append(np.where(np.arange(16).reshape(4, 4) == i, v, np.eye(4)))
    for m in bad:
        with pytest.raises(InputError, match="frame a -> b"): Frame(m, "a", "b")
    m = np.diag([1e-12, 1, -1, 1])                                         # the smallest that is taken
    f = Frame(m, "a", "b")
    m[0, 0] = 7                                                            # the frame keeps its own
    assert f.matrix[0, 0] == 1e-12 and f.matrix.dtype == float and Frame.identity("p", "q").points([[1, 2, 3]]).tolist() == [[1, 2, 3]]
    b, z = Frame(np.diag([1., 1, -1, 1]), "a", "b").boxes2d([[0, 1, 2, 3], [0, 0, 0, 0]], 5)               # one slice for all
    assert z.tolist() == [-5, -5] and b[:, [1, 3]].tolist() == [[1, 3], [0, 0]]
    for axes in ([2, 1, 0], [0, 2, 1], [1, 2, 0]):                         # z into x or y: boxes map in 3D, and lie on no slice
        g = Frame(np.eye(4)[[*axes, 3]], "a", "b")
        assert g.boxes3d([[1, 2, 3, 4, 5, 6]]).tolist() == [[np.array([1, 2, 3])[axes][i] for i in range(3)] + [np.array([4, 5, 6])[axes][i] for i in range(3)]]
        with pytest.raises(InputError, match="axial"): g.boxes2d([[0, 0, 1, 1]], 0)
    for i in (1, 2, 4, 6, 8, 9):                                           # a shear of any two axes turns boxes
        with pytest.raises(InputError, match="turns boxes" if i < 8 else "turns boxes|axial"): Frame(np.where(np.arange(16).reshape(4, 4) == i, .1, np.eye(4)), "a", "b").boxes2d([[0, 0, 1, 1]], 0)


@given(turns, st.tuples(*[number(.05, 20)]*3), st.tuples(*[number(-1e4, 1e4)]*3), points, number(0, 90))
def test_frames_of_the_world_agree_with_itk(turn, spacing, origin, p, angle):
    import SimpleITK as sitk
    from meld_nb.frames import Frame
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    direction = turn @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    im = sitk.Image(3, 4, 5, sitk.sitkUInt8); im.SetSpacing(spacing); im.SetOrigin(origin); im.SetDirection(direction.ravel())
    w, p = Frame.world(spacing, origin, direction), p/1e3
    np.testing.assert_allclose(w.points(p), np.array([im.TransformContinuousIndexToPhysicalPoint(q.tolist()) for q in p]).reshape(-1, 3), atol=1e-6)
    boxes = np.concatenate([p, p + 1.5], 1)
    around, corners = w.bounds3d(boxes), [w.points(boxes[:,[i, j, k]]) for i in (0, 3) for j in (1, 4) for k in (2, 5)]
    np.testing.assert_allclose(around, np.concatenate([np.min(corners, 0), np.max(corners, 0)], 1), atol=1e-6)
    if 1 < angle < 89:
        with pytest.raises(InputError): w.boxes3d(boxes)


@given(st.integers(1, 400), st.integers(1, 400), number(.1, 10), number(.1, 10), number(.1, 10))
def test_frames_resize_keeps_edges(n, m, sx, sy, sz):
    from meld_nb.frames import Frame
    f = Frame.resize((sx, sy, sz), "a", "b")
    image = f.boxes3d([[-.5, -.5, 0, n - .5, m - .5, 7]])[0]               # outer edges to outer edges; slices are positions
    np.testing.assert_allclose(image, [-.5, -.5, 0, n*sx - .5, m*sy - .5, 7*sz], atol=1e-9*(n + m)*10)


@given(st.integers(0, 5000), st.lists(st.tuples(number(1, 512), number(1, 512), number(0, 100), number(0, 100), st.integers(0, 400)), max_size=5))
def test_frames_of_dl_info(first, rows):
    from meld_nb.frames import dl_info_frame
    b = np.array([(x, y, x+w, y+h) for x, y, w, h, _ in rows]).reshape(-1, 4)
    out, z = dl_info_frame(first).boxes2d(b, [first + k for *_, k in rows])
    np.testing.assert_allclose(out, b - 1, atol=1e-9); np.testing.assert_array_equal(z, [k for *_, k in rows])


@given(turns, st.tuples(*[st.integers(1, 4)]*3), st.tuples(*[number(.3, 5)]*3), st.tuples(*[number(-500, 500)]*3))
def test_frames_follow_every_voxel_to_lps(turn, size, spacing, origin): # single slices, rows and columns too
    from meld_nb.volume import Geometry, to_lps
    g = Geometry(size, spacing, origin, turn)
    a = np.arange(np.prod(size), dtype=np.int16).reshape(size[::-1])
    v = to_lps(a, g)
    index = np.array([(x, y, z) for z in range(v.size[2]) for y in range(v.size[1]) for x in range(v.size[0])])
    x, y, z = v.native.points(index).round().astype(int).T
    np.testing.assert_array_equal(a[z, y, x], v.hu.ravel())
    np.testing.assert_allclose(v.world.points(index), g.world.points(v.native.points(index)), atol=1e-6)
    np.testing.assert_allclose(v.direction, np.eye(3), atol=1e-12)


# tables

names = st.text(st.characters(codec="utf-8", exclude_characters='\r\n\x00', exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@st.composite
def any_table(draw):
    from meld_nb.tables import COLUMNS
    name = draw(st.sampled_from(["detections2d", "members", "proposals", "truth3d", "detections3d"]))
    d = draw(solid() if "z1" in COLUMNS[name] else flat())
    d = d.assign(patient_id=d.volume_id.map(PAT), expert=draw(names), lesion_id=draw(st.sampled_from(["007", "1e5", "nan-1", "True"])), stack_id=np.arange(len(d)), extra=draw(names))
    d["volume_id"] = d.volume_id.map({v: draw(names.filter(lambda s: s.strip() == s and s.lower() not in _NULLS)) + v for v in PAT}).astype(object)
    d["expert"] = d.expert.str.strip() + "x"
    return name, d[[*COLUMNS[name], "extra"]]


_NULLS = ("", "nan", "na", "n/a", "null", "none", "<na>", "#n/a", "-nan", "#na")


@given(any_table(), st.data())
def test_tables_come_back_from_disk(tmp_path_factory, t, data):
    from meld_nb.tables import COLUMNS, check, read_table, write_table
    name, d = t
    mixed = d[data.draw(st.permutations(list(d)))].sample(frac=1, random_state=len(d))    # columns and index in any order
    tidy = check(mixed, name)
    assert list(tidy)[:len(COLUMNS[name])] == list(COLUMNS[name]) and list(tidy.index) == list(range(len(d)))
    pd.testing.assert_frame_equal(check(tidy, name), tidy)                                # nothing left to do
    pd.testing.assert_frame_equal(tidy[list(d)], mixed[list(d)].reset_index(drop=True), check_dtype=False, check_index_type=False)
    at = tmp_path_factory.mktemp("t")
    write_table(mixed, at/"t.parquet", name)
    pd.testing.assert_frame_equal(read_table(at/"t.parquet", name), tidy, check_column_type=False, check_dtype=len(d) > 0)
    tidy.drop(columns="extra").to_csv(at/"t.csv", index=False)
    pd.testing.assert_frame_equal(read_table(at/"t.csv", name), tidy.drop(columns="extra"), check_column_type=False)


@given(any_table(), st.data())
def test_tables_refuse_one_bad_value(t, data):
    from meld_nb.tables import COLUMNS, check
    name, d = t
    assume(len(d))
    row, column = data.draw(st.integers(0, len(d)-1)), data.draw(st.sampled_from(list(COLUMNS[name])))
    bad = dict(str=[None, np.nan], int=[np.nan, "two", 1.5, np.inf], float=[np.nan, "x", np.inf, -np.inf])[COLUMNS[name][column].rstrip("?")]
    spoilt = d.astype({column: object})
    spoilt.loc[row, column] = data.draw(st.sampled_from(bad))
    with pytest.raises(InputError, match=rf"table {name}: .*row {row}\b"): check(spoilt, name)
    with pytest.raises(InputError, match=f"column '{column}' is missing"): check(d.drop(columns=column), name)


# stacking

def stacks_of(d, iou): # sets of rows, by the definition
    link = {i: {i} for i in range(len(d))}
    box, s = d[BOX2].to_numpy(), d.score.to_numpy()
    for v in set(d.volume_id):
        for z in sorted(set(d.z)):
            here, there = (np.flatnonzero((d.volume_id == v) & (d.z == k)) for k in (z, z+1))
            o = {(i, j): shared(box[i], box[j], "iou", False) for i in here for j in there}
            pairs = sorted([p for p in o if o[p] > iou], key=lambda p: (-max(s[p[0]], s[p[1]]), -min(s[p[0]], s[p[1]]), -o[p], *p))
            used = set()
            for i, j in pairs:
                if ("from", i) in used or ("to", j) in used: continue
                used |= {("from", i), ("to", j)}
                whole = link[i] | link[j]
                for k in whole: link[k] = whole
    return {frozenset(c) for c in link.values()}


def stacked(d, iou):
    from meld_nb.stack import stack
    det, mem = stack(d.assign(row=np.arange(len(d))), iou)
    return {frozenset(g) for _, g in mem.groupby("stack_id").row}, det, mem


@given(flat(20), st.sampled_from([0, .25, .5, .75]))
def test_stack_is_the_definition(d, iou):
    got, det, mem = stacked(d, iou)
    assert got == stacks_of(d, iou)
    assert list(det) == ["volume_id", "stack_id", *BOX3, "score"] and list(mem) == ["volume_id", "stack_id", "z", *BOX2, "score", "row"]   # what is known, then what came along
    assert sorted(mem.row) == list(range(len(d))) and len(det) == mem.stack_id.nunique() and list(det.stack_id) == list(range(len(det)))
    pd.testing.assert_frame_equal(mem.sort_values("row")[["volume_id", "z", *BOX2, "score"]].reset_index(drop=True), d[["volume_id", "z", *BOX2, "score"]], check_dtype=False)
    for r, (_, g) in zip(det.itertuples(), mem.groupby("stack_id")):
        best = g[g.score == g.score.max()].iloc[0]                         # of equals the lowest slice
        assert (r.volume_id, r.z1, r.z2, r.score) == (g.volume_id.iloc[0], g.z.min(), g.z.max(), g.score.max())
        assert (r.x1, r.y1, r.x2, r.y2) == tuple(best[BOX2]) and g.volume_id.nunique() == 1 and list(g.z) == list(range(g.z.min(), g.z.max()+1))


@given(flat(14).map(unique), rising, shifts, shifts, st.integers(-50, 5000), st.data())
def test_stack_forgets_order_place_and_scale_of_scores(d, up, x, y, z, data):
    want, *_ = stacked(d, .25)
    for other in (d.assign(score=up(d.score)), moved(d, x, y, z), moved(d, 0, 0, -2*d.z), d.assign(volume_id="new " + d.volume_id)): assert stacked(other, .25)[0] == want
    mixed = shuffled(data, d)
    assert {frozenset(mixed.index[list(c)]) for c in stacked(mixed, .25)[0]} == want
    one = d[d.volume_id == "a/1"]                                          # other volumes do not matter
    assert {frozenset(one.index[list(c)]) for c in stacked(one, .25)[0]} == {c for c in want if c <= set(one.index)}


@given(flat(10))
def test_stack_of_single_slices_links_nothing(d):
    got, det, _ = stacked(d.assign(z=5*np.arange(len(d))), 0)
    assert len(det) == len(d) and (det.z1 == det.z2).all()
    flat_boxes = d.assign(x2=d.x1)                                         # without area nothing overlaps
    assert len(stacked(flat_boxes, 0)[1]) == len(d)


# FROC

settings_2d = st.fixed_dictionaries(dict(overlap=st.sampled_from(["iou", "iobb", "iogt", "iobbgt"]), threshold=st.sampled_from([.1, .25, .5, 1.]), plus_one=st.booleans(), rule=st.sampled_from(["field", "strict"])))
SLICES = [(v, z) for v in VOLUMES for z in range(4)]


@st.composite
def cases(draw):
    "detections, truth, images, options, and the overlap of detection i with lesion j by counting."
    from meld_nb.stack import stack
    dims, kw = draw(st.sampled_from(["2d", "p3d", "3d", "stack"])), draw(settings_2d)
    count = lambda d, t: shared([d[c] for c in BOX2], [t[c] for c in BOX2], kw["overlap"], kw["plus_one"])
    if dims == "2d":
        det, truth = draw(flat()), draw(flat(6))
        reach = lambda d, t: count(d, t) if d.z == t.z else 0.
    elif dims == "stack":
        det, members = stack(draw(flat()), .25); truth = draw(flat(6))
        kw["members"] = members
        reach = lambda d, t: max([count(m, t) for _, m in members[(members.stack_id == d.stack_id) & (members.z == t.z)].iterrows()], default=0.)
    elif dims == "p3d":
        det, truth = draw(solid()), draw(flat(6))
        reach = lambda d, t: count(d, t) if d.z1 <= t.z <= d.z2 else 0.
    else:
        det, truth = draw(solid()), draw(solid(6))
        reach = lambda d, t: shared3([d[c] for c in BOX3], [t[c] for c in BOX3], kw["overlap"], kw["plus_one"])
    table = np.array([[reach(d, t) if d.volume_id == t.volume_id else 0. for _, t in truth.iterrows()] for _, d in det.iterrows()]).reshape(len(det), len(truth))
    return det, truth.drop(columns="score"), SLICES if dims == "2d" else VOLUMES, kw | dict(dims=dims), table


def curve_of(det, truth, images, kw, table): # FPs per image and sensitivity when the k best boxes are kept, k = 1, 2, ...; what became of each box; by which score each lesion is found
    order = sorted(range(len(det)), key=lambda i: (-det.score.iloc[i], i))
    fps, sens, n, found, fate = [], [], 0, {}, [""]*len(det)
    for i in order:
        hits = sorted((j for j in range(len(truth)) if table[i, j] >= kw["threshold"]), key=lambda j: (-table[i, j], j))
        if kw["rule"] == "strict": hits = [j for j in hits if j not in found][:1]
        fate[i] = "fp" if not hits else "hit" if set(hits) - set(found) else "neutral"
        n, found = n + (not hits), {j: det.score.iloc[i] for j in hits} | found
        fps.append(n/len(images)); sens.append(len(found)/len(truth) if len(truth) else np.nan)
    return np.array(fps), np.array(sens), fate, [found.get(j, np.nan) for j in range(len(truth))]


def reached(f, fps, sens): # `fp_at`: where a line through the points first reaches each level, and the middle between two
    levels = np.unique(np.r_[sens, 0., 1.])
    for want in [*levels, *(levels[1:] + levels[:-1])/2]:
        k = next((k for k, s in enumerate(sens) if s >= want), None)
        at = 0. if want == 0 else np.nan if k is None else fps[0] if k == 0 else fps[k-1] + (want - sens[k-1])*(fps[k] - fps[k-1])/(sens[k] - sens[k-1])
        np.testing.assert_allclose(f.fp_at(want), at, atol=1e-12)


def froc_of(case):
    from meld_nb.froc import froc
    det, truth, images, kw, _ = case
    return froc(det, truth, images, **kw)


@given(cases(), st.lists(number(0, 3), min_size=1, max_size=4))
def test_froc_is_the_definition(case, rates):
    det, truth, images, kw, table = case
    f, (fps, sens, fate, by) = froc_of(case), curve_of(*case)
    assert f.outcome.tolist() == fate
    np.testing.assert_array_equal(f.found, by)
    assert f.counts == dict(images=len(images), lesions=len(truth), found=int(np.isfinite(by).sum()), detections=len(det), fps=fate.count("fp"), neutral=fate.count("neutral"))
    np.testing.assert_allclose(f.fps, fps, atol=1e-12); np.testing.assert_allclose(f.sensitivity, sens, atol=1e-12)
    assert (np.diff(f.fps) >= 0).all() and (np.diff(f.thresholds) <= 0).all()
    if len(truth): assert (np.diff(f.sensitivity) >= 0).all() and ((0 <= f.sensitivity) & (f.sensitivity <= 1)).all()
    s = sorted(det.score, reverse=True)
    for r in rates:
        assert np.isnan(f.at(r)) if not len(truth) else abs(f.at(r) - (np.interp(r, fps, sens) if len(det) else 0)) < 1e-12
        t = f.threshold_at(r)                                             # keep what scores at least t: not too many FPs, and no lower score would do
        n = lambda t: sum(~(table >= kw["threshold"]).any(1) & (det.score >= t)) if kw["rule"] == "field" else None
        if kw["rule"] == "field":
            assert n(t) <= r*len(images) + 1e-9 and (t == np.inf or t in s)
            for lower in [q for q in s if q < t]: assert n(lower) > r*len(images) - 1e-9
    if len(truth): reached(f, fps, sens)
    if len(truth): assert abs(f.average - np.mean([f.at(r) for r in (1/8, 1/4, 1/2, 1, 2, 4, 8)])) < 1e-12


@given(cases(), rising, shifts, shifts, st.integers(-9, 2000), st.data())
def test_froc_forgets_order_names_place_and_scale_of_scores(case, up, x, y, z, data):
    det, truth, images, kw, table = case
    det = unique(det)
    same = lambda d, t, im, k: np.testing.assert_array_equal([(h := froc_of((d, t, im, k, None))).fps, h.sensitivity], want)
    f = froc_of((det, truth, images, kw, None)); want = [f.fps, f.sensitivity]
    same(shuffled(data, det), truth if kw["rule"] == "strict" else shuffled(data, truth), images, kw)
    same(det, truth, data.draw(st.permutations(images)), kw)
    same(det.assign(score=up(det.score)), truth, images, kw)
    inside = kw["dims"] == "2d"                                          # the slices that count are named
    k = kw | dict(members=moved(kw["members"], x, y, z)) if "members" in kw else kw
    same(moved(det, x, y, z), moved(truth, x, y, z), [(v, s+z) for v, s in images] if inside else images, k)
    names = dict(zip(VOLUMES, data.draw(st.permutations([f"v{i}" for i in range(len(VOLUMES))]))))
    k = kw | dict(members=kw["members"].assign(volume_id=kw["members"].volume_id.map(names))) if "members" in kw else kw
    same(det.assign(volume_id=det.volume_id.map(names)), truth.assign(volume_id=truth.volume_id.map(names)), [(names[v], s) for v, s in images] if inside else [names[v] for v in images], k)


@given(cases(), st.integers(1, 5))
def test_froc_counts_empty_volumes_false_boxes_and_other_patients(case, n):
    det, truth, images, kw, table = case
    f, inside = froc_of(case), kw["dims"] == "2d"
    more = froc_of((det, truth, [*images, *[(f"new{i}", 0) if inside else f"new{i}" for i in range(n)]], kw, None))
    np.testing.assert_allclose(more.fps*(len(images) + n), f.fps*len(images), atol=1e-9); np.testing.assert_array_equal(more.sensitivity, f.sensitivity)
    assert f.counts["fps"] == sum(~(table >= kw["threshold"]).any(1)) or kw["rule"] == "strict"
    for v in PAT:                                                          # boxes of one volume find nothing in another, however alike
        alone = froc_of((det[det.volume_id == v], truth[truth.volume_id != v], images, kw, None))
        assert alone.counts["found"] == 0 and alone.counts["fps"] == (det.volume_id == v).sum()
    if len(det) and "members" not in kw:
        worst = det.iloc[[0]].assign(volume_id="empty/1", score=det.score.max() + 1)      # a false positive above all: never better
        worse = froc_of((pd.concat([det, worst], ignore_index=True), truth, images, kw, None))
        rates = np.linspace(0, 4, 9)
        if len(truth): assert (worse.at(rates) <= f.at(rates) + 1e-12).all()
        np.testing.assert_allclose(worse.fps[1:], f.fps + 1/len(images), atol=1e-12)
    found = [froc_of((det, truth, images, kw | dict(threshold=t), None)).counts for t in (.1, .3, .5, 1)]
    if kw["rule"] == "field":
        assert all(a["found"] >= b["found"] and a["fps"] <= b["fps"] for a, b in zip(found, found[1:]))
    field, strict = (froc_of((det, truth, images, kw | dict(rule=r), None)).counts for r in ("field", "strict"))
    assert strict["found"] <= field["found"] and strict["fps"] >= field["fps"] and strict["neutral"] == 0


@given(cases(), st.integers(0, 99))
def test_froc_draws_are_studies_of_copied_patients(case, seed):
    from meld_nb.stats import resample
    det, truth, images, kw, table = case
    assume("members" not in kw and kw["dims"] != "2d" and len(truth))
    groups = PAT | {"empty/1": "e", "empty/2": "a"}
    f = froc_of(case)
    got, half, t = f.draws(groups, 3, seed), f.fp_draws(groups=groups, sensitivity=.5, n=3, seed=seed), f.bootstrap(groups, 3, seed, fps=[.25, 1], method="percentile")
    assert list(t) == ["fp", "low", "high", "sensitivity", "measure"] and t.measure.tolist() == ["sensitivity", "sensitivity", "average"]
    np.testing.assert_array_equal(t.fp, [.25, 1, np.nan]); np.testing.assert_array_equal(t.sensitivity, [*f.at([.25, 1]), f.average])
    np.testing.assert_allclose(t[["low", "high"]].T, np.nanquantile(f.draws(groups, 3, seed, [.25, 1]), [.025, .975], axis=0))
    for row, fp, w in zip(got, half, resample([groups[v] for v in f.volumes], 3, seed)):
        copies = [(v, f"{v}#{c}") for v, k in zip(f.volumes, w) for c in range(int(k))]
        copied = lambda d: pd.concat([d[:0], *[d[d.volume_id == v].assign(volume_id=new) for v, new in copies]], ignore_index=True)
        again = froc_of((copied(det.assign(rank=np.arange(len(det)))).sort_values("rank", kind="stable"), copied(truth), [n for _, n in copies], kw, None))
        np.testing.assert_allclose(row, [*again.at(f.average_at), again.average], atol=1e-12); np.testing.assert_allclose(fp, again.fp_at(.5), atol=1e-12)


sphere = lambda last, most: st.lists(st.tuples(st.sampled_from("st"), *[st.sampled_from([-4, -3, 0, 3, 4])]*3, last), max_size=most)   # 3-4-5: on a sphere exactly


@given(sphere(st.integers(0, 4), 12), sphere(st.integers(1, 12), 4), sphere(st.sampled_from([-1, 2, 6, 10]), 3), st.integers(1, 6))
def test_froc_of_luna16_is_the_definition(marks, nodules, excluded, most):
    from meld_nb.froc import froc_luna16
    table = lambda rows, last: pd.DataFrame([(s, *map(float, r)) for s, *r in rows], columns=["seriesuid", "coordX", "coordY", "coordZ", last]).astype({last: float})
    got = froc_luna16(table(marks, "probability"), table(nodules, "diameter_mm"), table([*excluded, ("not listed", 0, 0, 0, 5)], "diameter_mm"), ["s", "t", "u"], max_marks=most)
    near = lambda m, n: m[0] == n[0] and 4*sum((a - b)**2 for a, b in zip(m[1:4], n[1:4])) < (100 if n[4] < 0 else n[4]**2)
    kept = []
    for s in "stu":                                                       # at most `most` of a scan: all above the score of the first that is too many
        p = sorted((m[4] for m in marks if m[0] == s), reverse=True)
        bar = p[most] if len(p) > most else -1
        kept += [m for m in marks if m[0] == s and m[4] > bar]
    found, dropped = ([any(near(m, n) for n in of) for m in kept] for of in (nodules, excluded))
    levels = sorted({m[4] for m, f, d in zip(kept, found, dropped) if f or not d}, reverse=True)
    fps = [0.] + [sum(m[4] >= t and not (f or d) for m, f, d in zip(kept, found, dropped))/3 for t in levels]
    sens = [0.] + [sum(any(near(m, n) and m[4] >= t for m in kept) for n in nodules)/max(1, len(nodules)) for t in levels]
    np.testing.assert_allclose(got.fps, fps, atol=1e-12)
    if nodules: np.testing.assert_allclose(got.sensitivity, sens, atol=1e-12); reached(got, fps, sens)   # hits and false positives of one score together
    assert (got.counts["over_limit"], got.counts["excluded"]) == (len(marks) - len(kept), sum(d and not f for f, d in zip(found, dropped)))


def test_froc_reads_half_slices_and_other_orders():
    from meld_nb.froc import compare, froc
    box = pd.DataFrame(dict(volume_id=["v"], x1=0., y1=0., z1=0., x2=9., y2=9., z2=1., score=.5))
    half = box.drop(columns="score").assign(z1=1.5, z2=2.5)               # inclusive: half a slice is shared, of three and a half
    for share, found in ((1/7, 1), (1/7 + 1e-9, 0)): assert froc(box, half, ["v"], dims="3d", threshold=share).counts["found"] == found
    for z, found in ((0, 1), (1, 1), (1.5, 0), (-.5, 0)): assert froc(box, half.assign(z=z), ["v"], threshold=.9).counts["found"] == found
    lesions = pd.DataFrame(dict(volume_id=["a", "b", "c"], z=0, x1=0., y1=0., x2=9., y2=9.))
    one, two = (lesions.assign(score=s) for s in ([.9, .8, .7], [.2, .3, .4]))
    two = two.assign(x1=[0, 50, 0], x2=[9, 59, 9])
    images = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    curve = lambda d, t=lesions, im=images, **kw: froc(d, t, im, dims="2d", **kw)
    groups = dict(a="p", b="q", c="r")
    assert compare(curve(one), curve(two), groups, 50) == compare(curve(one), curve(two, im=images[::-1]), groups, 50)
    for other, says in ((curve(two, im=[*images, ("c", 1)]), "slices or lesions"), (curve(two, lesions[:2]), "slices or lesions"), (curve(two, average_at=(1,)), "averaged at different"),
                        (curve(two, im=[*images, ("d", 0)]), "different images: 3 and 4 volumes, 1 not"), (curve(two, pd.concat([lesions, lesions[:1]])), "slices or lesions")):
        with pytest.raises(InputError, match=says): compare(curve(one), other, groups, 50)


@pytest.mark.filterwarnings("error")
def test_froc_refuses():
    from meld_nb.froc import froc, froc_luna16
    flat_box, deep = ["z", *BOX2], BOX3
    d = pd.DataFrame(dict(volume_id=["v", "v"], stack_id=[4, 5], z=1, z1=1, z2=1, x1=[0., 20], y1=0., x2=[9., 29], y2=9., score=[.5, .9]))
    for dims, mine, theirs in (("2d", flat_box, flat_box), ("p3d", deep, flat_box), ("3d", deep, deep), ("stack", [*deep, "stack_id"], flat_box)):
        images = [("v", 1)] if dims == "2d" else ["v"]
        call = lambda det=d, truth=d.drop(columns="score"), members=d if dims == "stack" else None, **kw: froc(det, truth, images, dims=dims, members=members, **kw)
        assert call(det=d[["volume_id", "score", *mine]], truth=d[["volume_id", *theirs]]).average == 1
        assert np.isnan(call(truth=d[:0]).average) and call(det=d[:0], members=d[:0]).average == 0           # and no warning
        for table, columns in (("det", ["volume_id", "score", *mine]), ("truth", ["volume_id", *theirs]), *([("members", ["stack_id", *flat_box])] if dims == "stack" else [])):
            name = dict(det="detections").get(table, table)
            for c in columns:
                with pytest.raises(InputError, match=f"{name}: column '{c}' is missing"): call(**{table: d.drop(columns=c)})
                if c not in ("volume_id", "stack_id"):
                    spoilt = d.astype({c: float}).set_axis([17, 42]); spoilt.loc[42, c] = np.inf
                    with pytest.raises(InputError, match=f"{name}, row 42: {c} is inf"): call(**{table: spoilt})
            if table != "members":
                with pytest.raises(InputError, match=f"{name}, row 42: volume 'w'.* is not among the images"): call(**{table: d.assign(volume_id=["v", "w"]).set_axis([17, 42])})
        for t in (TINY, 1): call(threshold=t)
        for t in (0, 1 + TINY, -1, np.nan):
            with pytest.raises(InputError, match="^threshold is "): call(threshold=t)
    with pytest.raises(InputError, match="volume 'v', z 2 is not among"): froc(d.assign(z=2), d, [("v", 1)], dims="2d")
    f = froc(d, d, ["v"])
    assert f.threshold_at(0) == .5
    for fp in (-TINY, np.nan):
        with pytest.raises(InputError, match="^fp is "): f.threshold_at(fp)
    at = dict(seriesuid=["s", "s"], coordX=[0., 30.], coordY=0., coordZ=0.)
    luna = dict(marks=pd.DataFrame(at | dict(probability=.5)), nodules=pd.DataFrame(at | dict(diameter_mm=5.)), excluded=pd.DataFrame(at | dict(diameter_mm=-1.)))
    for table, t in luna.items():
        for c in t:
            with pytest.raises(InputError, match=f"{table}: column '{c}' is missing"): froc_luna16(**luna | {table: t.drop(columns=c)}, scans=["s"])
            if c != "seriesuid":
                spoilt = t.set_axis([17, 42]); spoilt.loc[42, c] = np.nan
                with pytest.raises(InputError, match=f"{table}, row 42: {c} is nan"): froc_luna16(**luna | {table: spoilt}, scans=["s"])


# MAM and NRM

@st.composite
def worlds(draw):
    "lesions, proposals, embeddings of both (numbers on a line, so that equal distances are common)."
    lesions = draw(flat(6, role=st.sampled_from(["annotated", "annotated", "mined", "suspicious"]), at=st.integers(0, 6)))
    props = draw(flat(14, at=st.integers(0, 6), expert=st.sampled_from(["luna16", "lits", "nih_ln"])))
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    for d in (lesions, props): d["patient_id"] = d.volume_id.map(PAT)
    lesions["lesion_id"] = [f"L{i}" for i in range(len(lesions))]
    emb = lambda d: np.stack([d["at"]/8, np.ones(len(d))], 1).astype(kind) if len(d) else np.zeros((0, 2), kind)
    return lesions, props, emb(lesions), emb(props)


def plain(d): return [(r.volume_id, r.z, (r.x1, r.y1, r.x2, r.y2), r.score) for r in d.itertuples()]


def mined_of(lesions, props, theta, iou_annotated, keep): # rows of the proposals, each with the lesion and the distance
    marked = lesions[lesions.role == "annotated"]
    out = []
    for r, p in zip(props.itertuples(), plain(props)):
        own = [(abs(r.at - l.at)/8, l.lesion_id) for l in marked.itertuples() if l.patient_id == r.patient_id]
        known = any((l.volume_id, l.z) == p[:2] and shared((l.x1, l.y1, l.x2, l.y2), p[2], "iou", False) > iou_annotated for l in marked.itertuples())
        if own and min(d for d, _ in own) < theta and not known: out.append((r.Index, *min(own, key=lambda o: o[0])[::-1]))
    stay = nms([plain(props)[i] for i, *_ in out], keep)
    return [out[k] for k in stay]


ious = st.sampled_from([0., .25, .5, 1.])


@given(worlds(), st.sampled_from([0., .1, .125, .15, .3, 2.]), ious, ious)
def test_mam_is_the_definition(world, theta, iou_annotated, keep):
    from meld_nb.mam import match_missing
    from meld_nb.tables import check
    lesions, props, a, p = world
    got, want = match_missing(lesions, props, a, p, theta, iou_annotated=iou_annotated, nms=keep), mined_of(lesions, props, theta, iou_annotated, keep)
    assert [(int(s.split(":")[1]), l) for s, l in zip(got.source, got.matched_lesion_id)] == [w[:2] for w in want]
    np.testing.assert_allclose(got.distance, [w[2] for w in want], atol=1e-9)
    check(got, "lesions")
    assert (got.role == "mined").all() and (got.distance < theta).all() and got.lesion_id.is_unique
    pd.testing.assert_frame_equal(got[["volume_id", "patient_id", "z", *BOX2, "score"]], props.iloc[[w[0] for w in want]][["volume_id", "patient_id", "z", *BOX2, "score"]].reset_index(drop=True), check_dtype=False)
    owner = lesions.set_index("lesion_id")
    assert all(owner.patient_id[l] == q and owner.role[l] == "annotated" for l, q in zip(got.matched_lesion_id, got.patient_id))


@given(worlds(), number(0, 1), number(0, 1), st.data())
def test_mam_grows_with_theta_and_forgets_order(world, one, two, data):
    from meld_nb.mam import match_missing
    lesions, props, a, p = world
    lo, hi = sorted((one, two))
    rows = lambda t, keep: set(match_missing(lesions, props, a, p, t, nms=keep).source)
    assert rows(lo, 1.) <= rows(hi, 1.)
    kept, at = rows(hi, .5), dict(enumerate(plain(props)))                 # with suppression: what goes has made room for a better one
    for i in (int(s.split(":")[1]) for s in rows(lo, .5) - kept):
        assert any(at[i][:2] == at[j][:2] and at[j][3] >= at[i][3] and shared(at[i][2], at[j][2], "iou", False) > .5 for j in (int(s.split(":")[1]) for s in kept))
    props = unique(props)
    o, q = data.draw(st.permutations(range(len(props)))), data.draw(st.permutations(range(len(lesions))))
    got, again = match_missing(lesions, props, a, p, hi), match_missing(lesions.iloc[q], props.iloc[o], a[q], p[o], hi)
    text = lambda d: sorted(zip(d.volume_id, d.z, d.score, d.distance.round(9)))
    assert text(got) == text(again)
    far = lesions.assign(patient_id="z", volume_id="z/" + lesions.volume_id)             # nobody's lesions: nothing is mined, however alike
    assert len(match_missing(far, props, a, p, 9.)) == 0


@given(worlds(), st.sampled_from([0., .25, .5, .75, 1.]), ious, ious, st.sampled_from([None, (), ("lits",), ("luna16", "nih_ln")]))
def test_nrm_is_the_definition(world, sigma, iou_known, keep, experts):
    from meld_nb.nrm import suspicious
    from meld_nb.tables import check
    lesions, props, *_ = world
    got = suspicious(props, lesions, sigma, experts=experts, iou_known=iou_known, nms=keep)
    known = lesions[lesions.role.isin(["annotated", "mined"])]
    out = [r.Index for r, p in zip(props.itertuples(), plain(props)) if r.score > sigma and (experts is None or r.expert in experts)
           and not any((l.volume_id, l.z) == p[:2] and shared((l.x1, l.y1, l.x2, l.y2), p[2], "iou", False) > iou_known for l in known.itertuples())]
    want = [out[k] for k in nms([plain(props)[i] for i in out], keep)]
    assert list(got.source) == [f"proposals:{i}" for i in want]
    check(got, "lesions")
    assert (got.role == "suspicious").all() and (got.score > sigma).all() and list(got.expert) == list(props.expert.iloc[want])


@given(worlds(), number(0, 1), number(0, 1), st.data())
def test_nrm_shrinks_with_sigma_and_forgets_order(world, one, two, data):
    from meld_nb.nrm import suspicious
    lesions, props, *_ = world
    lo, hi = sorted((one, two))
    rows = lambda s, keep: set(suspicious(props, lesions, s, nms=keep).source)
    assert rows(hi, 1.) <= rows(lo, 1.) and rows(hi, .5) <= rows(lo, .5)   # suppression follows the score, so it does not matter
    assert not rows(1., .5)
    props = unique(props)
    o, q = data.draw(st.permutations(range(len(props)))), data.draw(st.permutations(range(len(lesions))))
    text = lambda d: sorted(zip(d.volume_id, d.z, d.score, d.expert))
    assert text(suspicious(props, lesions, lo)) == text(suspicious(props.iloc[o], lesions.iloc[q], lo))


# what mining and stacking refuse, and by which words

GOOD = pd.DataFrame(dict(volume_id=["v", "v"], patient_id="p", z=[3, 4], x1=[0., 20], y1=0., x2=[9., 29], y2=9., score=[.5, .9], expert="lits", lesion_id=["a", "b"], role="annotated"))
EMB = np.zeros((2, 3), np.float32)


def calls(): # name -> function of changed arguments, its tables, the columns that each needs
    from meld_nb.mam import match_missing
    from meld_nb.nrm import suspicious
    from meld_nb.stack import stack
    place = ["volume_id", "z", *BOX2]
    return dict(mam=(lambda lesions=GOOD, proposals=GOOD, lesion_emb=EMB, proposal_emb=EMB, **kw: match_missing(lesions, proposals, lesion_emb, proposal_emb, **kw),
                     dict(lesions=[*place, "patient_id", "lesion_id", "role"], proposals=[*place, "patient_id", "score"])),
                nrm=(lambda lesions=GOOD, proposals=GOOD, **kw: suspicious(proposals, lesions, **kw), dict(lesions=[*place, "role"], proposals=[*place, "patient_id", "score", "expert"])),
                stack=(lambda detections2d=GOOD, **kw: stack(detections2d, **kw), dict(detections2d=[*place, "score"])))


def refuses_bad_tables(name):
    call, needs = calls()[name]
    call()
    for table, columns in needs.items():
        for c in columns:
            with pytest.raises(InputError, match=f"{table}: column '{c}' is missing"): call(**{table: GOOD.drop(columns=c)})
        call(**{table: GOOD[columns].assign(extra=1).sample(frac=1, random_state=1)})
        for c in [c for c in columns if c in (*BOX2, "score", "z")]:
            spoilt = GOOD.astype({c: float}).set_axis([17, 42]); spoilt.loc[42, c] = np.nan
            with pytest.raises(InputError, match=f"{table}, row 42: {c} is nan"): call(**{table: spoilt})
        with pytest.raises(InputError, match=f"{table}, row 42: x2 is 19.0, less than x1, 20.0"): call(**{table: GOOD.assign(x2=[9., 19]).set_axis([17, 42])})


def bounded(name, parameter, lo, hi, open_above=False):
    call, _ = calls()[name]
    for v in [lo, *([hi - TINY] if open_above else [hi])]: call(**{parameter: v})
    for v in (lo - TINY, hi if open_above else hi + TINY, np.nan):
        with pytest.raises(InputError, match=f"^{parameter} is "): call(**{parameter: v})


def test_stack_refuses():
    refuses_bad_tables("stack"); bounded("stack", "iou", 0, 1, open_above=True)
    call, _ = calls()["stack"]
    for z in (3.5, -.25):
        with pytest.raises(InputError, match=f"detections2d, row 42: z is {z}, expected the whole number"): call(detections2d=GOOD.assign(z=[3, z]).set_axis([17, 42]))


def test_nrm_refuses():
    refuses_bad_tables("nrm")
    for p in ("sigma", "iou_known", "nms"): bounded("nrm", p, 0, 1)
    with pytest.raises(InputError, match="experts is 'lits', expected a list"): calls()["nrm"][0](experts="lits")


def test_mam_refuses():
    refuses_bad_tables("mam")
    for p in ("iou_annotated", "nms"): bounded("mam", p, 0, 1)
    call, _ = calls()["mam"]
    for theta in (0, 1e9): call(theta=theta)
    for theta in (-TINY, np.inf, np.nan):
        with pytest.raises(InputError, match="theta is "): call(theta=theta)
    for e in ("lesion_emb", "proposal_emb"):
        for shape in ((3, 3), (1, 3), (2,), (2, 3, 1)):
            with pytest.raises(InputError, match=rf"{e} has shape \({shape[0]}"): call(**{e: np.zeros(shape, np.float32)})
        with pytest.raises(InputError, match="expected the same embedding"): call(**{e: np.zeros((2, 4), np.float32)})
        for v in (np.nan, np.inf):
            with pytest.raises(InputError, match=f"{e}, row 1: the embedding"): call(**{e: np.array([[0, 0, 0], [0, v, 0]], np.float32)})


# targets and sampling

ROLE = ["annotated", "mined", "suspicious", "suspicious_positive", "hard_negative"]


@st.composite
def scenes(draw):
    "gt boxes and role codes of an image, boxes to be labelled; whole numbers, so that thresholds are met exactly."
    box = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10), st.integers(0, 10)).map(lambda b: (b[0], b[1], b[0]+b[2], b[1]+b[3]))
    gt = draw(st.lists(box, min_size=1, max_size=4))
    boxes = draw(st.lists(st.one_of(box, st.sampled_from(gt)), min_size=1, max_size=14))
    return gt, draw(st.lists(st.integers(-1, 4), min_size=len(gt), max_size=len(gt))), boxes, draw(st.sampled_from([0, 0, 4096]))


def labelled(gt, positive, ignored, boxes, valid, fg, bg, best): # by the definition
    o = [[shared(g, b, "iou", False) for b in boxes] for g in gt]
    inner = [[shared(b, g, "iobb", False) for b in boxes] for g in gt]
    top = {i: max([o[i][m] for m in range(len(boxes)) if valid[m]], default=0) for i in positive}
    out = []
    for m in range(len(boxes)):
        mine = max([o[i][m] for i in positive], default=-1)
        if not valid[m]: out.append(-1)
        elif mine >= fg or best and any(o[i][m] == top[i] > 0 for i in positive): out.append(1)
        elif any(o[i][m] >= .3 or inner[i][m] >= .5 for i in ignored): out.append(-1)
        else: out.append(0 if mine < bg else -1)
    return out


@given(scenes(), st.booleans(), st.booleans(), st.booleans())
def test_targets_are_the_definition(scene, mined_in_rpn, border, mined_regression):
    import torch
    from meld_nb.targets import anchor_targets, hard_rois, roi_targets, with_gt
    gt, codes, boxes, shift = scene
    role = [ROLE[c] if c >= 0 else "padding" for c in codes]
    of = lambda *names: [i for i, r in enumerate(role) if r in names]
    t = lambda b: torch.tensor(b, dtype=torch.float32)[None] + shift
    size = 18 + shift
    inside = [border or b[2] <= 18 and b[3] <= 18 for b in boxes]
    mined = of("mined", "suspicious_positive")
    positive, ignored = of("annotated", "hard_negative") + mined*mined_in_rpn, of("suspicious") + mined*(not mined_in_rpn)
    labels, matched, regress = anchor_targets(t(boxes)[0], t(gt), torch.tensor([codes]), torch.tensor([[size, size]]), mined_in_rpn=mined_in_rpn, border=border, mined_regression=mined_regression)
    assert labels[0].tolist() == labelled(gt, positive, ignored, boxes, inside, .7, .3, True)
    rois, valid = t(boxes), torch.tensor([[m % 5 != 3 for m in range(len(boxes))]])
    labels2, matched2, regress2, mask = roi_targets(rois, valid, t(gt), torch.tensor([codes]), mined_regression=mined_regression)
    assert labels2[0].tolist() == labelled(gt, of("annotated") + mined, of("suspicious"), boxes, valid[0].tolist(), .5, .5, False)
    for l, k, reg, pos in ((labels, matched, regress, positive), (labels2, matched2, regress2, of("annotated") + mined)):
        for m in range(len(boxes)):
            if l[0, m] != 1: assert not reg[0, m]; continue
            g = int(k[0, m])                                              # the best of the rows that make positives, and what it may teach
            assert g in pos and shared(gt[g], boxes[m], "iou", False) == max(shared(gt[i], boxes[m], "iou", False) for i in pos)
            assert bool(reg[0, m]) == (role[g] in (["annotated", "mined"] if mined_regression else ["annotated"]))
    assert mask[0].tolist() == [bool(labels2[0, m] == 1 and role[int(matched2[0, m])] == "annotated") for m in range(len(boxes))]
    hard = hard_rois(rois, labels2, t(gt), torch.tensor([codes]))
    assert hard[0].tolist() == [bool(labels2[0, m] == 0 and any(shared(gt[i], boxes[m], "iou", False) >= .5 for i in of("hard_negative"))) for m in range(len(boxes))]
    joined = with_gt([rois[0]], [t(gt)[0]], [torch.tensor(codes)])[0]
    assert joined[len(boxes):].tolist() == t(gt)[0][[i for i, r in enumerate(role) if r not in ("suspicious", "padding")]].tolist() and joined[:len(boxes)].equal(rois[0])


@given(st.lists(st.lists(st.sampled_from([1, 0, -1]), min_size=20, max_size=20), min_size=1, max_size=3), st.integers(0, 20), st.integers(1, 64), st.sampled_from([0., .25, .5, 1.]), st.data())
def test_targets_sampling_takes_what_it_may_and_no_more(labels, m, n, fraction, data):
    import torch
    from meld_nb.targets import sample_boxes
    t = torch.tensor(labels, dtype=torch.int8)[:, :m]
    only = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    first = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=len(labels), max_size=len(labels))))[:, :m]
    image, box = sample_boxes(t, n, fraction, torch.tensor(only), first)
    assert len(set(zip(image.tolist(), box.tolist()))) == len(image)      # nothing twice
    for i, row in enumerate(t.tolist()):
        got = box[image == i].tolist()
        pos, neg = ([k for k in got if row[k] == v] for v in (1, 0))
        assert len(pos) == min(row.count(1), int(n*fraction)) and len(pos) + len(neg) == len(got)          # never -1
        assert len(neg) == (0 if only[i] else min(row.count(0), n - len(pos)))
        for kind, drawn in ((1, pos), (0, neg)):                          # the preferred first
            left = [k for k, v in enumerate(row) if v == kind and k not in drawn and first[i, k]]
            if left: assert all(first[i, k] for k in drawn)


@given(scenes(), st.integers(0, 9))
def test_targets_ignored_are_never_sampled(scene, seed):
    import torch
    from meld_nb.targets import anchor_targets, roi_targets, sample_boxes, with_gt
    gt, codes, boxes, shift = scene
    t = lambda b: torch.tensor(b, dtype=torch.float32)[None] + shift
    suspicious, lesions = ([g for g, c in zip(gt, codes) if c in kinds] for kinds in ((2,), (0, 1, 3, 4)))
    near = lambda b: any(shared(g, b, "iou", False) >= .3 or shared(b, g, "iobb", False) >= .5 for g in suspicious)
    torch.manual_seed(seed)
    rois = with_gt([t(boxes)[0]], [t(gt)[0]], [torch.tensor(codes)])[0][None]
    for labels, found in ((anchor_targets(t(boxes)[0], t(gt), torch.tensor([codes]), torch.tensor([[9999, 9999]]))[0], boxes),
                          (roi_targets(rois, torch.ones(rois.shape[:2], dtype=torch.bool), t(gt), torch.tensor([codes]))[0], (rois[0] - shift).int().tolist())):
        for m in sample_boxes(labels, 999, 1.)[1].tolist():               # everything that may be drawn
            if labels[0, m] == 0: assert not near(found[m])
            else: assert any(shared(g, found[m], "iou", False) > 0 for g in lesions)
