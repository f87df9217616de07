"""The documentation site, from the notebooks: python docs/build.py [--run data/runs/demo]; `make docs` calls it.

The sources of the site are a copy of the repository's own tree, so that the links in it hold as they are: pages in Markdown,
library notebooks executed (kept by the digest of what they depend on), chapters as a run executed them, and pages made here.
Ends with exit code 1 if Sphinx warns of anything, or a link, an image or a name leads nowhere.
"""
import argparse, ast, csv, hashlib, html.parser, io, json, os, re, shutil, subprocess, sys, tokenize
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent
LIB, STUDY = ROOT/"nbs"/"lib", ROOT/"nbs"/"study"
PAGES = ["README.md", "CHANGELOG.md", "data/README.md", "nbs/study/PROTOCOL.md", "nbs/study/DEVLOG.md"]   # and all of docs/*.md
SKIPPED = ("slow", "gpu", "notest")       # directives of cells that a plain test passes over
markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


# ---- library notebooks: what they define and import ----

def directive(cell, *names): return cell.cell_type == "code" and re.search(rf"(?m)^#\|\s*({'|'.join(names)})\b", cell.source)

def plain(source):
    "Python of a cell: without magics and shell lines."
    return re.sub(r"(?m)^\s*[%!].*$", "", source)

class Library:
    "All library notebooks: `path`, `title`, `text` by module; public `names` by module; `uses`: modules that a notebook imports."
    def __init__(self):
        self.path, self.text, self.names, self.exported = {}, {}, {}, {}
        for path in sorted(LIB.glob("*.ipynb")):
            nb = nbformat.read(path, 4)
            module = "meld_nb." + next(m[1] for c in nb.cells if (m := re.search(r"#\|\s*default_exp\s+(\S+)", c.source)))
            self.path[module], self.text[module] = path, "\n".join(plain(c.source) for c in nb.cells if c.cell_type == "code")
            self.exported[module] = "\n".join(plain(c.source) for c in nb.cells if directive(c, "export"))
            self.names[module] = dict(top_level(ast.parse(self.exported[module])))

    def imports(self, source):
        "name -> module, of `from meld_nb.x import name` and `import meld_nb.x`."
        found = {}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module in self.path: found |= {a.asname or a.name: node.module for a in node.names}
            if isinstance(node, ast.Import): found |= {a.name: a.name for a in node.names if a.name in self.path}
        return found

    def behind(self, source, seen=()):
        "Modules that a source depends on, directly or through others."
        seen = set(seen)
        for m in set(self.imports(source).values()) - seen: seen |= {m} | self.behind(self.exported[m], seen | {m})
        return seen

    def digest(self, module):
        "Of all that the outputs of a notebook depend on: its cells, the modules behind it, whether real files are there."
        behind = sorted(self.behind(self.text[module]) - {module})
        parts = [self.text[module], *(self.exported[m] for m in behind), str("MELD_REALDATA" in os.environ), sys.version]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

def top_level(tree):
    "(name, node) of what a module defines at its top level."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield node.name, node
        for t in getattr(node, "targets", []):
            for n in ast.walk(t):
                if isinstance(n, ast.Name): yield n.id, node


def executed(path, digest, cache):
    "The notebook with its outputs, from the cache if it was executed before; None if a cell fails, which is printed."
    kept = cache/f"{path.stem}-{digest}.ipynb"
    if not kept.is_file():
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
        print(f"executing {path.name}", flush=True)
        nb = nbformat.read(path, 4)
        sources = [c.source for c in nb.cells]
        for c in nb.cells:
            if directive(c, *SKIPPED) or re.search(r"#\|\s*eval:\s*false", c.source): c.source = ""
        try: NotebookClient(nb, timeout=1200, kernel_name="python3", extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": str(path.parent)}}).execute()
        except CellExecutionError as e: return print(f"{path.name} failed:\n" + re.sub(r"\x1b\[[\d;]*m", "", str(e)))
        for c, s in zip(nb.cells, sources): c.source = s
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{path.stem}-*.ipynb"): old.unlink()
        nbformat.write(nb, kept.with_suffix(".tmp")); kept.with_suffix(".tmp").rename(kept)
    return nbformat.read(kept, 4)


# ---- a library notebook as a page ----

def prose(text):
    "A docstring or comment as Markdown: code stays code, everything else is text."
    return "".join(p if i % 2 else re.sub(r"([\\*_$<\[\]|~])", r"\\\1", p) for i, p in enumerate(re.split(r"(`[^`]*`)", text)))

def comments(source):
    "line -> comment of a source."
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}

def described(node, said):
    "(name, comment) of each parameter that has one (those of one line share it), and the comment of what is returned; `said`: line -> comment."
    args = [*node.args.posonlyargs, *node.args.args, *filter(None, [node.args.vararg]), *node.args.kwonlyargs, *filter(None, [node.args.kwarg])]
    default = dict(zip([a.arg for a in [*node.args.posonlyargs, *node.args.args]][::-1], node.args.defaults[::-1])) | {a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults) if d}
    ends = {a.arg: max(a.end_lineno, default[a.arg].end_lineno if a.arg in default else 0) for a in args}
    after = node.body[0].lineno
    closing = max([node.lineno, *ends.values(), *([node.returns.end_lineno] if node.returns else [])])
    closing += node.returns is None and closing > node.lineno   # the bracket's own line: the comment before it is of the last parameter
    closing = next((l for l in range(closing, after) if l in said), closing)
    rows, lines = [], sorted(set(ends.values()))
    for line in lines:
        if line == closing: continue
        upto = min([l for l in lines if l > line] + [closing])
        text = " ".join(said[l] for l in range(line, upto) if l in said)
        if text: rows += [(a, text) for a, l in ends.items() if l == line]
    return rows, said.get(closing, "") if after > closing or len(node.body) == 1 else ""

def entry(node, said, module, depth=3):
    "Markdown of a function or class in Sphinx's Python domain: signature, docstring, each parameter's comment."
    fence, own = ":"*(9 - depth), isinstance(node, ast.ClassDef)
    doc = ast.get_docstring(node) or ""
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)] if own else []
    init = next((n for n in methods if n.name == "__init__"), None)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)] if own else []
    marks = [ast.unparse(d) for d in node.decorator_list]
    if own and init:
        args, (rows, returned) = ast.unparse(init.args), described(init, said)
        returned, args = "", re.sub(r"^self(, )?", "", args)
        if not rows and ast.get_docstring(init): doc += "\n\n" + ast.get_docstring(init)
    elif own: args, rows, returned = ", ".join(ast.unparse(f) for f in fields), [(f.target.id, said[f.end_lineno]) for f in fields if f.end_lineno in said], ""
    else: args, (rows, returned) = ast.unparse(node.args), described(node, said)
    kind = "class" if own else "function" if depth == 3 else "property" if any("property" in m for m in marks) else "classmethod" if "classmethod" in marks else "staticmethod" if "staticmethod" in marks else "method"
    if kind in ("method", "classmethod", "property"): args = re.sub(r"^(self|cls)(, )?", "", args)
    gives = f" -> {ast.unparse(node.returns)}" if not own and node.returns is not None and kind != "property" else ""
    out = [f"{fence}{{py:{kind}}} {node.name}" + ("" if kind == "property" else f"({args}){gives}")]
    if kind == "property" and node.returns is not None: out.append(f":type: {ast.unparse(node.returns)}")
    out += ["", *(prose(line) for line in doc.splitlines()), "", *(f":param {n}: {prose(t)}" for n, t in rows), *([f":returns: {prose(returned)}"] if returned else []), ""]
    for n in methods:
        if not n.name.startswith("_") or n.name == "__call__": out += [entry(n, said, module, depth + 1), ""]
    return "\n".join([*out, fence])

def linked(text, names, here):
    "Backticked names that the notebook defines or imports, as links to their entries; not in headings, links or code blocks."
    def one(m):
        name = m[1].removesuffix("()")
        if name.startswith("meld_nb."): return f"{{py:obj}}`{m[1]} <{name}>`"
        return f"{{py:obj}}`{m[1]} <{names[name]}.{name}>`" if name in names and name != here else m[0]
    parts = re.split(r"(?ms)(^```.*?^```[ \t]*$|^#.*?$|^> .*?$|^    .*?$|\[[^\]\n]*\]\([^)\n]*\)|\$[^$\n]+\$)", text)
    return "".join(p if i % 2 else re.sub(r"(?<![`}\w])`([\w.]+(?:\(\))?)`(?!`)", one, p) for i, p in enumerate(parts))

def tidy(nb, links):
    "A copy of a notebook for the site: cells that are shown, names linked, no metadata of its execution."
    out = []
    for c in nb.cells:
        c = nbformat.from_dict(c)
        c.metadata = nbformat.from_dict({"tags": list(c.metadata.get("tags", []))})
        if c.cell_type == "markdown": c.source = links(c.source)
        for o in c.get("outputs", []): o.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        out.append(c)
    nb.cells = out
    nb.metadata = nbformat.from_dict({"kernelspec": nb.metadata.get("kernelspec", {"name": "python3", "display_name": "Python", "language": "python"}), "language_info": {"name": "python"}})
    return nb

def title_of(nb):
    "Title and the line below it."
    lines = [l for l in nb.cells[0].source.splitlines() if l.strip()]
    return lines[0].lstrip("# "), lines[1].lstrip("> ") if len(lines) > 1 and lines[1].startswith(">") else ""

def library_page(nb, module, library):
    "Exported cells become API entries with the source folded below; hidden cells go."
    public = {n: m for m, names in library.names.items() for n, node in names.items() if not n.startswith("_") and isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not is_command(node)}
    imported = library.imports(library.text[module])
    names = {n: module for n, m in public.items() if n in library.names[module] and not n.startswith("_")} | {n: m for n, m in imported.items() if n in library.names[m] and public.get(n)}
    names = {n: m for n, m in names.items() if n in library.names[m] and isinstance(library.names[m][n], (ast.FunctionDef, ast.ClassDef)) and not is_command(library.names[m][n])}
    nb, cells = tidy(nb, lambda s: linked(s, names, None)), []
    for c in nb.cells:
        if directive(c, "default_exp"):
            cells.append(markdown(f"```{{py:module}} {module}\n```\n\nModule `{module}`, exported from `nbs/lib/{library.path[module].name}`."))
            continue
        if directive(c, "hide"): continue
        exported = directive(c, "export")
        skipped = directive(c, *SKIPPED)
        c.source = re.sub(r"(?m)^#\|.*\n?", "", c.source)
        if exported:
            said, tree = comments(c.source), ast.parse(plain(c.source))
            entries = [entry(n, said, module) for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_") and not is_command(n)]
            if entries: cells.append(markdown("\n\n".join(entries)))
            c.metadata["tags"] += ["hide-input"]
        elif skipped: cells.append(markdown("*Not executed here: " + {"slow": "slow", "gpu": "needs a GPU", "notest": "no test"}[skipped[1]] + ".*"))
        if c.source.strip() or c.cell_type != "code": cells.append(c)
    nb.cells = cells
    return nb

def is_command(node): return any("cli." in ast.unparse(d) or "click." in ast.unparse(d) for d in getattr(node, "decorator_list", []))


# ---- chapters ----

def jobs_of(run, stem):
    "Folders of a chapter in a run, below it: the whole run's, or one for each arm, shard or point."
    planned = run/"logs"/"jobs.json"
    if not planned.is_file(): return []
    return [f for f, name in json.loads(planned.read_text()).items() if name == stem and (run/f/f"{stem}.ipynb").is_file()]

def chapter_page(path, run, library):
    "A chapter as the run executed it, or as it is in the repository if the run has none."
    jobs = sorted(jobs_of(run, path.stem)) if run else []
    shown = next((j for j in jobs if j.endswith("/both")), jobs[0] if jobs else None)
    nb = nbformat.read(run/shown/f"{path.stem}.ipynb" if shown else path, 4)
    source = "\n".join(plain(c.source) for c in nb.cells if c.cell_type == "code")
    names = {n: m for n, m in library.imports(source).items() if isinstance(library.names[m].get(n), (ast.FunctionDef, ast.ClassDef))}
    nb = tidy(nb, lambda s: linked(s, names, None))
    if shown:
        record = json.loads((run/"run.json").read_text())
        others = [j.split("/")[1] for j in jobs if j != shown]
        text = f"As the run `{run.name}` (profile `{record['profile']}`, seed {record['study']['seed']}) executed it" + (f", for `{shown.split('/')[1]}`; the run has it also for " + ", ".join(f"`{o}`" for o in others) if "/" in shown else "") + "."
        if record["study"].get("world"): text += " Everything in it was measured on phantoms, not on patients."
    else: text = "Not executed: the run that this site was made from does not have this chapter." if run else "Not executed: this site was made without a run."
    nb.cells[1:1] = [markdown(f":::{{note}}\n{text}\n:::")]
    return nb


# ---- pages made here ----

def table(header, rows): return "\n".join(["| " + " | ".join(header) + " |", "|" + " --- |"*len(header), *("| " + " | ".join(str(v).replace("|", "\\|") for v in r) + " |" for r in rows)])

def contents_page(title, text, folder, notebooks):
    "A page that lists notebooks with their subtitles, and holds their toctree."
    rows = [(f"[{p.stem}](/{folder}/{p.name})", *title_of(nb)) for p, nb in notebooks]
    return f"# {title}\n\n{text}\n\n" + table(["notebook", "title", "what it is about"], rows) + "\n\n```{toctree}\n:hidden:\n" + "".join(f"/{folder}/{p.stem}\n" for p, _ in notebooks) + "```\n"

def mentions(text): return {m[1].rstrip(".") if m[1] else f"{'Fig.' if m[2].startswith('Fig') else m[2]} {m[3]}" for m in re.finditer(r"(§\d+(?:\.\d+)*)|\b(Table|Figs?\.|Figure|Eq\.) (\d+)", text)} | \
                         {f"Fig. {n}" for m in re.finditer(r"\bFigs\. (\d+(?:(?:, | and )\d+)+)", text) for n in re.findall(r"\d+", m[1])} | {f"§{n}" for m in re.finditer(r"§(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text) for n in m.groups()}

def paper_map():
    "From the paper's sections, tables and figures to notebooks: where a notebook names one, and which result files are made for it."
    items = {r["item"]: r["title"] for r in csv.DictReader(open(ROOT/"data"/"paper"/"contents.csv", encoding="utf-8"))}
    makes = {}
    for name, files in re.findall(r'(?m)^(?:if .*?: )?chapter\("(\d\d_\w+)", (.*)$', (STUDY/"Snakefile").read_text(encoding="utf-8")):
        for f, kind, number in re.findall(r"\b((tab|fig)(\d+)_\w+\.\w+)", files): makes.setdefault(f"{'Table' if kind == 'tab' else 'Fig.'} {number}", []).append((name, f))
    named = {}
    for p in [*sorted(LIB.glob("*.ipynb")), *sorted(STUDY.glob("*.ipynb"))]:
        nb = nbformat.read(p, 4)
        text = "\n".join(c.source for c in nb.cells)
        first = nb.cells[0].source
        for item in mentions(text): named.setdefault(item, []).append((p, item in mentions(first)))
    if unknown := sorted(k for k in named if k not in items): raise SystemExit("\n".join(f"{', '.join(p.name for p, _ in named[k])}: {k} is not in data/paper/contents.csv" for k in unknown))
    link = lambda p, strong: ("**{}**" if strong else "{}").format(f"[{p.stem}](/{p.relative_to(ROOT)})")
    where = lambda item, folder: ", ".join(link(p, s) for p, s in named.get(item, []) if p.parent == folder)
    made = lambda item: ", ".join(f"[{c}](/nbs/study/{c}.ipynb): `{f}`" for c, f in makes.get(item, []))
    sections = [(k, t, where(k, STUDY), where(k, LIB)) for k, t in items.items() if k.startswith("§")]
    rest = [(k, t, made(k), where(k, STUDY), where(k, LIB)) for k, t in items.items() if not k.startswith("§")]
    return ("# The paper and the notebooks\n\nWhich notebook carries out which part of arXiv 2005.13753. This page is made from the notebooks: it lists those that name a section, table or figure, in **bold** where the notebook's own title does.\n\n"
            "## Sections\n\n" + table(["section", "title", "chapters", "library"], sections) + "\n\n## Tables, figures, equations\n\n" + table(["item", "title", "made by", "chapters", "library"], rest) + "\n")

def speed_page():
    "What the released `make bench` measured."
    of = lambda name: list(csv.DictReader(open(ROOT/"figures"/"bench"/f"95_{name}.csv", encoding="utf-8")))
    record = json.loads((ROOT/"figures"/"bench"/"run.json").read_text(encoding="utf-8"))
    chapter, p = "/nbs/study/95_benchmarks.ipynb", record["parameters"]["95_benchmarks"]
    short = lambda v: f"{float(v):.3g}" if v else ""
    typed = lambda v: f"`{v}`" if v.startswith(("meld ", "import ")) else v          # as text, two hyphens become a dash
    rows = [(r["number"], typed(r["what"]), r["alternative"], short(r["ratio"]), f"{short(r['ratio_low'])} to {short(r['ratio_high'])}" if r["ratio"] else "", "" if r["ratio"] else f"{short(r['median'])} {r['unit']}", r["goal"], r["met"], "" if r["met"] == "yes" else r["note"]) for r in of("benchmarks")]
    ways = [(r["way"], short(r["times_faster"]), f"{float(r['maps_apart']):.2%}", f"{float(r['boxes_again']):.1%}", short(r["scores_apart"])) for r in of("precision")]
    grown = [(r["step"], f"{float(r['size']):,.0f}", *map(short, (r["median"], r["min"], r["max"]))) for r in of("growth")]
    return (f"# Speed\n\nWhat each step costs beside a stated alternative, as `make bench` found it at commit `{record['commit'][:7]}`{' (with changes)' if record['dirty'] else ''}, on {record['hardware']['cores']} cores without a GPU. The two take turns for {p['repeats']} rounds, after one that does not count; processor seconds of one core (loading and starting: on the clock). The full-size detector has random weights; counts are the paper's. "
            f"[Chapter 95]({chapter}) says how each is measured, what dominated, what helped, and which test holds each fast path to the plain one.\n\nA ratio with `>=` is the alternative's time over ours, one with `<=` ours over the alternative's.\n\n"
            + table(["#", "what", "beside", "ratio", "range", "or value", "goal", "met", "if not: what bounds it"], rows) + "\n\n## Cost against size\n\n![Processor seconds of FROC, matching and stacking against size](/figures/bench/95_cost_size.svg)\n\n" + table(["step", "size", "median (s)", "least", "most"], grown)
            + f"\n\n## Half precision on a processor\n\nOne slice of {p['px']} px by the full-size detector. `--precision bf16` of `meld detect`. Maps apart: root mean square of the difference over their deviation.\n\n" + table(["way", "times faster", "maps apart", "boxes again", "scores apart, at most"], ways) + "\n")

def commands_page():
    "`--help` of `meld` and of each of its commands."
    from click.testing import CliRunner
    from meld_nb.cli import cli
    helped = lambda *args: CliRunner().invoke(cli, [*args, "--help"], prog_name="meld", catch_exceptions=False).output
    return "# The command `meld`\n\nWhat `--help` says. [Tasks](/docs/tasks.md) has examples.\n\n```text\n" + helped() + "```\n\n" + "\n".join(f"## meld {name}\n\n```text\n{helped(name)}```\n" for name in cli.commands)


# ---- links ----

class Refs(html.parser.HTMLParser):
    "ids, links and images of a page."
    def __init__(self, text): super().__init__(); self.ids, self.refs = set(), set(); self.feed(text)
    def handle_starttag(self, tag, attrs):
        for k, v in attrs:
            if k in ("id", "name") and v: self.ids.add(v)
            if k in ("href", "src") and v is not None: self.refs.add(v)

def broken_links(site):
    "Links and images of the HTML pages below `site` that lead to no file, or to no place in a page."
    site = Path(site).resolve()
    pages = {p: Refs(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    for page, refs in pages.items():
        for ref in sorted(refs.refs):
            url = urlsplit(ref)
            if url.scheme or url.netloc: continue
            to = (page.parent/unquote(url.path)).resolve() if url.path else page
            if not to.is_file(): yield f"{page.relative_to(site)}: {ref}: no such file"
            elif url.fragment and to in pages and unquote(url.fragment) not in pages[to].ids: yield f"{page.relative_to(site)}: {ref}: no such place in that page"

def unknown_names(texts, library):
    "Backticked `meld_nb.x` and `meld_nb.x.y` in texts (name -> text) that no module has."
    for name, text in texts.items():
        for full in sorted(set(re.findall(r"`(meld_nb\.[\w.]+)", text))):
            parts = full.rstrip(".").split(".")
            module = ".".join(parts[:2])
            if module not in library.path or len(parts) > 2 and parts[2] not in library.names[module]: yield f"{name}: `{full}`: no such module or name"

def linked_files(source, path):
    "Copy what a Markdown page links to and the site does not have: files of the repository."
    for to in re.findall(r"\]\(([^)\s#]+)[^)]*\)", (source/path).read_text(encoding="utf-8")):
        if urlsplit(to).scheme: continue
        rel = Path(os.path.normpath(to.lstrip("/") if to.startswith("/") else Path(path).parent/to))
        if (ROOT/rel).is_file() and not (source/rel).exists():
            (source/rel).parent.mkdir(parents=True, exist_ok=True); shutil.copy(ROOT/rel, source/rel)


# ---- all of it ----

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", type=Path, help="run folder with executed chapters; default: none, chapters without outputs")
    ap.add_argument("--out", type=Path, default=ROOT/"_docs", help="where the site (html), its sources and the executed library notebooks go")
    ap.add_argument("--quick", action="store_true", help="a check of pages, API entries and links: nothing is executed, and notebooks are without code cells")
    ap.add_argument("--workers", type=int, default=2, help="library notebooks that are executed at a time")
    args = ap.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")   # several kernels at a time
    if args.run and not (args.run/"run.json").is_file(): raise SystemExit(f"{args.run}: no run folder; make one with `meld run --profile demo`")
    out, source, site = args.out.resolve(), args.out.resolve()/"source", args.out.resolve()/"html"
    from meld_nb.core import InputError, claim
    from meld_nb.study import check_run
    try:
        if args.run: check_run(args.run)            # the site must not show chapters of different parameters as one run
        if out != (ROOT/"_docs").resolve(): claim(out, ["source", "html", "doctrees", "executed"])   # what is replaced
    except (InputError, OSError) as e: raise SystemExit(str(e))
    os.environ |= {"IN_TEST": "1", "MELD_QUIET": "1", "JUPYTER_PATH": os.pathsep.join([str(Path(sys.prefix)/"share"/"jupyter"), *filter(None, [os.environ.get("JUPYTER_PATH")])])}
    shutil.rmtree(source, ignore_errors=True)
    library = Library()

    with ThreadPoolExecutor(args.workers) as pool:
        done = dict(zip(library.path, pool.map(lambda m: nbformat.read(library.path[m], 4) if args.quick else executed(library.path[m], library.digest(m), out/"executed"), library.path)))
    if not all(done.values()): return 1
    chapters = sorted(STUDY.glob("*.ipynb"))
    books = {library.path[m]: library_page(nb, m, library) for m, nb in done.items()} | {p: chapter_page(p, args.run, library) for p in chapters}
    for p, nb in books.items():
        to = source/p.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        if args.quick: nb.cells = [c for c in nb.cells if c.cell_type == "markdown"]
        for c in nb.cells: c.pop("id", None)
        nb.nbformat_minor = 4
        nbformat.write(nb, to)

    made = {"reference/library.md": contents_page("Library", "A notebook a module, in reading order: each explains, defines, shows and tests. Sources are folded below the entries.", "nbs/lib", [(p, nb) for p, nb in books.items() if p.parent == LIB]),
            "reference/chapters.md": contents_page("Chapters of the study", "Thin notebooks that call the library; `meld run` executes them in order. See also [the paper and the notebooks](/reference/paper_map.md).", "nbs/study", [(p, nb) for p, nb in books.items() if p.parent == STUDY]),
            "reference/paper_map.md": paper_map(), "reference/commands.md": commands_page(), "reference/speed.md": speed_page(),
            "reference/results.md": "# Results\n\n```{include} ../README.md\n:start-after: \"## What came out\"\n:end-before: \"## Reading and editing\"\n```\n"}
    pages = [*PAGES, *(str(p.relative_to(ROOT)) for p in sorted((ROOT/"docs").glob("*.md")))]
    texts = {p: (ROOT/p).read_text(encoding="utf-8") for p in pages} | made
    for p, text in texts.items():
        p = "index.md" if p == "docs/index.md" else p
        (source/p).parent.mkdir(parents=True, exist_ok=True); (source/p).write_text(text, encoding="utf-8")
    for p in texts: linked_files(source, "index.md" if p == "docs/index.md" else p)

    shutil.rmtree(site, ignore_errors=True)
    code = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "auto", "-b", "html", "-d", str(out/"doctrees"), "-c", str(ROOT/"docs"), str(source), str(site)]).returncode
    said = texts | {str(p.relative_to(ROOT)): "\n".join(c.source for c in nbformat.read(p, 4).cells if c.cell_type == "markdown") for p in books}
    wrong = [*unknown_names(said, library), *(broken_links(site) if site.is_dir() else [])]
    for w in wrong: print(w)
    if not code and not wrong: print(f"{len(list(site.rglob('*.html')))} pages: {site/'index.html'}")
    return int(bool(code or wrong))


if __name__ == "__main__": sys.exit(main())
