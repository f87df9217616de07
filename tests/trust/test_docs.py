"""The documentation: every page and API entry is built with warnings as errors, links and names are checked, and the checks find what is broken."""
import ast, csv, re, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT/"docs"))
pytest.importorskip("myst_nb")
import build

@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The site without outputs and code cells."
    out = tmp_path_factory.mktemp("docs")
    assert build.main(["--quick", "--out", str(out)]) == 0
    return out/"html"

def test_pages(site):
    pages = {str(p.relative_to(site)) for p in site.rglob("*.html")}
    for want in ("index", "docs/tasks", "docs/limits", "reference/commands", "reference/paper_map", "reference/speed", "CHANGELOG", "data/README", "nbs/study/PROTOCOL", *(str(p.relative_to(ROOT).with_suffix("")) for p in [*build.LIB.glob("*.ipynb"), *build.STUDY.glob("*.ipynb")])):
        assert f"{want}.html" in pages, want
    text = (site/"nbs"/"lib"/"32_stack.html").read_text(encoding="utf-8")
    assert 'id="meld_nb.stack.stack"' in text and "boxes of consecutive slices are linked if their IoU is greater" in text   # a parameter's comment
    for p in build.LIB.glob("*.ipynb"):                                                                                        # equations are equations
        assert not re.search(r"\$\s*<math|</math>\s*\$", (site/"nbs"/"lib"/p.with_suffix(".html").name).read_text(encoding="utf-8")), p
    text = (site/"reference"/"paper_map.html").read_text(encoding="utf-8")
    row = next(r for r in re.findall(r"(?s)<tr.*?</tr>", text) if ">Table 1<" in r)
    assert "70_ablation" in row and "tab1_ablation.csv" in row

def test_speed_is_what_was_released(site):
    rows = [[re.sub("<.*?>", "", c).strip() for c in re.findall(r"(?s)<td.*?</td>", r)] for r in re.findall(r"(?s)<tr.*?</tr>", (site/"reference"/"speed.html").read_text(encoding="utf-8"))]
    with open(ROOT/"figures"/"bench"/"95_benchmarks.csv", encoding="utf-8") as f: released = list(csv.DictReader(f))
    assert released
    for r in released:
        shown = next(c for c in rows if c and c[0] == r["number"] and c[1].replace("\u2019", "'") == r["what"] and c[2].replace("\u2019", "'") == r["alternative"])
        assert float(shown[3] or shown[5].split()[0]) == pytest.approx(float(r["ratio"] or r["median"]), rel=.01) and shown[7] == r["met"]

@pytest.mark.parametrize("link, says", [("docs/nowhere.html", "no such file"), ("docs/tasks.html#nothing-of-that-kind", "no such place"), ("_images/none.png", "no such file")])
def test_broken_links_are_found(site, tmp_path, link, says):
    assert list(build.broken_links(site)) == []
    page = site/"search.html"
    sound = page.read_text(encoding="utf-8")
    try:
        page.write_text(sound.replace("</body>", f'<img src="{link}"></body>' if link.endswith("png") else f'<a href="{link}">x</a></body>'), encoding="utf-8")
        found = list(build.broken_links(site))
        assert len(found) == 1 and link in found[0] and says in found[0]
    finally: page.write_text(sound, encoding="utf-8")

def test_what_no_build_wrote_is_not_removed(tmp_path, monkeypatch):
    class Began(Exception): "The work itself, which this test is not about."
    def begin(): raise Began
    monkeypatch.setattr(build, "Library", begin)
    for name in ("source", "html"):
        theirs = tmp_path/name/name/"thesis.tex"; theirs.parent.mkdir(parents=True); theirs.write_text("mine")
        with pytest.raises(SystemExit, match=f"{name}: is there, and not of an earlier call, so it is not written over"): build.main(["--quick", "--out", str(tmp_path/name)])
        assert theirs.read_text() == "mine"
    for again in range(2):                                            # a build's own is replaced
        with pytest.raises(Began): build.main(["--quick", "--out", str(tmp_path/"new")])
        assert not (tmp_path/"new"/"source").exists()
        (tmp_path/"new"/"source").mkdir()
    monkeypatch.setattr(build, "ROOT", tmp_path); (tmp_path/"_docs"/"source").mkdir(parents=True)   # in the clone's own folder, of a version before this one
    with pytest.raises(Began): build.main(["--quick", "--out", str(tmp_path/"_docs")])
    with pytest.raises(SystemExit, match="thesis.tex"): build.main(["--quick", "--out", str(theirs)])

def test_unknown_names_are_found():
    library = build.Library()
    said = dict(page="`meld_nb.froc`, `meld_nb.froc.froc(...)` and `meld_nb.forc`, `meld_nb.froc.fork`")
    assert [w.split(": ")[1] for w in build.unknown_names(said, library)] == ["`meld_nb.forc`", "`meld_nb.froc.fork`"]

def test_a_part_of_the_paper_that_is_not_there(monkeypatch):
    monkeypatch.setattr(build, "mentions", lambda text: {"Table 9"})
    with pytest.raises(SystemExit, match="Table 9 is not in data/paper/contents.csv"): build.paper_map()

def test_mentions():
    assert build.mentions("(§3.2, Fig. 4) and Table 1, §4.2-4.3, Figs. 2 and 8, §7.") == {"§3.2", "Fig. 4", "Table 1", "§4.2", "§4.3", "Fig. 2", "Fig. 8", "§7"}

def test_described():
    import ast
    source = 'def f(\n    a,      # [N] ones,\n            # and more\n    b, c=3, # both\n    *, d:int=3, # last\n) -> int: # sum\n    "Doc."\n    return 1\n'
    rows, gives = build.described(ast.parse(source).body[0], build.comments(source))
    assert rows == [("a", "[N] ones, and more"), ("b", "both"), ("c", "both"), ("d", "last")] and gives == "sum"

def test_versions_agree():
    "Of settings.ini, CITATION.cff and the newest entry of CHANGELOG.md; and licences.md has every requirement."
    settings = (ROOT/"settings.ini").read_text(encoding="utf-8")
    version = re.search(r"(?m)^version = (.+)$", settings)[1]
    assert re.search(r"(?m)^version: (.+)$", (ROOT/"CITATION.cff").read_text(encoding="utf-8"))[1] == version
    assert re.search(r"(?m)^## (\S+)", (ROOT/"CHANGELOG.md").read_text(encoding="utf-8"))[1] == version
    page = (ROOT/"docs"/"licences.md").read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^\w*requirements = (.+)$", settings):
        for r in line.split():
            name = re.match(r"[\w.-]+", r)[0].lower().replace("_", "-")
            assert f"| {name} |" in page, f"{name}: run `make licences`"


def test_a_comment_belongs_to_its_parameter_or_to_what_is_returned():
    for text, rows, returned in (("def f(\n    a:int, # first\n    b=1,   # last\n): # made\n    'x'\n", [("a", "first"), ("b", "last")], "made"),
                                 ("def f(\n    a:int, # first\n    b=1,   # last\n):\n    'x'\n", [("a", "first"), ("b", "last")], ""),
                                 ("def f(a): # made\n    'x'\n", [], "made"),
                                 ("def f(\n    a, # first\n) -> int: # made\n    'x'\n", [("a", "first")], "made")):
        assert build.described(ast.parse(text).body[0], build.comments(text)) == (rows, returned), text
