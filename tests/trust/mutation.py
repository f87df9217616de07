"""Would the tests notice a fault? Faults are drawn by a seeded list of operators over the modules that decide what is trained, mined and counted.

    python tests/trust/mutation.py                               # 200 mutants; exit code 1 if less than 90 % of the real ones are killed
    python tests/trust/mutation.py --mutants 30 --seed 1 --jobs 1 --out mutants.csv

A mutant is the package with one expression or statement changed, and the notebook that defines it changed alike (a notebook runs its own
definitions), in a temporary copy that comes first on the path. It is tried as `nbdev_test` does, up to the first failing cell; what survives
meets the module's properties (test_properties.py). What survives both and changes nothing that a caller can see is listed, with the argument,
in equivalents.csv; any other survivor is a gap. Each mutant is a fork of one process that holds the libraries, so it costs what the notebook costs.
"""
import argparse, ast, csv, json, os, random, resource, shutil, signal, sys, tempfile, time, traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NOTEBOOKS = dict(frames="02_frames", targets="24_targets", mam="30_mam", nrm="31_nrm", stack="32_stack", froc="34_froc")
LEAST = .9              # share of the non-equivalent mutants that must be killed
MEMORY = 6 << 30        # bytes of address space that a mutant may add
EQUIVALENTS = HERE/"equivalents.csv"

# operators: node -> (name, node that takes its place); None: the statement goes

_COMPARE = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,),
            ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,)}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
               ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr}
_TWINS = dict([p for a, b in (("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"), ("floor", "ceil"),
                              ("zeros", "ones"), ("zeros_like", "ones_like"), ("sum", "mean")) for p in ((a, b), (b, a))])
_REDUCE = {"sum", "mean", "min", "max", "amin", "amax", "any", "all", "argmin", "argmax", "cumsum", "norm", "stack", "concatenate", "cat", "topk", "gather", "unbind", "diff", "nonzero"}


def _with(node, **fields): return ast.copy_location(type(node)(**{**{f: getattr(node, f, None) for f in node._fields}, **fields}), node)


def _name(call): return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _replace(items, i, new): return [*items[:i], new, *items[i+1:]]


def comparisons(n):
    if isinstance(n, ast.Compare):
        for i, op in enumerate(n.ops):
            for new in _COMPARE[type(op)]: yield _with(n, ops=_replace(n.ops, i, new()))


def arithmetic(n):
    if isinstance(n, ast.BinOp) and type(n.op) in _ARITHMETIC: yield _with(n, op=_ARITHMETIC[type(n.op)]())


def signs(n):
    if isinstance(n, ast.UnaryOp): yield n.operand


def logic(n):
    if isinstance(n, ast.BoolOp): yield _with(n, op=ast.Or() if isinstance(n.op, ast.And) else ast.And())


def constants(n):
    if isinstance(n, ast.Constant) and isinstance(n.value, (bool, int, float)):
        for v in [not n.value] if isinstance(n.value, bool) else [n.value+1, n.value-1] if isinstance(n.value, int) else [n.value*1.5, n.value/1.5] if n.value else [1.]:
            yield ast.Constant(v)


def axes(n):
    if not isinstance(n, ast.Call) or _name(n) not in _REDUCE: return
    for a in [*n.args, *[k.value for k in n.keywords if k.arg in ("axis", "dim")]]:
        if isinstance(a, ast.Constant) and type(a.value) is int and a.value in (0, 1, 2): yield a, ast.Constant({0: 1, 1: 0, 2: 1}[a.value])


def arguments(n):
    if not isinstance(n, ast.Call) or any(isinstance(a, ast.Starred) for a in n.args): return
    for i in range(len(n.args)-1):
        if ast.dump(n.args[i]) != ast.dump(n.args[i+1]): yield _with(n, args=[*n.args[:i], n.args[i+1], n.args[i], *n.args[i+2:]])


def keywords(n):
    if isinstance(n, ast.Call):
        for i, k in enumerate(n.keywords):
            if k.arg: yield _with(n, keywords=[*n.keywords[:i], *n.keywords[i+1:]])


def functions(n):
    if isinstance(n, ast.Attribute) and n.attr in _TWINS: yield _with(n, attr=_TWINS[n.attr])
    if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in _TWINS: yield _with(n, func=ast.Name(_TWINS[n.func.id]))
    if isinstance(n, ast.Constant) and n.value in ("left", "right"): yield ast.Constant({"left": "right", "right": "left"}[n.value])


def conditions(n):
    if isinstance(n, (ast.If, ast.IfExp, ast.While)): yield n.test, ast.UnaryOp(ast.Not(), n.test)
    if isinstance(n, ast.comprehension):
        for t in n.ifs: yield t, ast.UnaryOp(ast.Not(), t)


def bounds(n):
    if isinstance(n, ast.Slice):
        for side in ("lower", "upper"):
            if getattr(n, side): yield _with(n, **{side: None})


def statements(n):
    gone = isinstance(n, (ast.AugAssign, ast.Raise, ast.Continue)) or isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)
    if gone or isinstance(n, ast.Assign) and not isinstance(n.targets[0], (ast.Name, ast.Tuple)): yield ast.Pass()
    if isinstance(n, ast.If) and not n.orelse and isinstance(n.body[0], (ast.Return, ast.Raise)): yield ast.Pass()


OPERATORS = dict(comparison=comparisons, arithmetic=arithmetic, sign=signs, logic=logic, constant=constants, axis=axes, argument=arguments, keyword=keywords,
                 function=functions, condition=conditions, bound=bounds, statement=statements)


def _code(node):
    "Nodes that run: no annotations, messages, docstrings, imports or decorators."
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"): continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom)): continue
            if isinstance(child, ast.Assign) and getattr(child.targets[0], "id", "") == "__all__": continue
            yield child
            yield from _code(child)


def mutants(module):
    "Every mutant of a module: dict(module, operator, row, line, mutant), `row` from 1, `line` and `mutant` the source lines before and after."
    source = (ROOT/"meld_nb"/f"{module}.py").read_text(encoding="utf-8")
    lines, out, seen = source.splitlines(), [], set()
    for node in _code(ast.parse(source)):
        for operator, f in OPERATORS.items():
            for got in f(node):
                old, new = got if isinstance(got, tuple) else (node, got)
                text = ast.unparse(new)
                if isinstance(new, ast.expr) and not isinstance(new, (ast.Constant, ast.Name, ast.Call, ast.Attribute, ast.Slice)): text = f"({text})"
                first, last = old.lineno-1, old.end_lineno-1
                head, tail = lines[first].encode()[:old.col_offset].decode(), lines[last].encode()[old.end_col_offset:].decode()
                after = head + text + tail
                if (first, last, after) in seen or "\n" in text: continue
                seen.add((first, last, after))
                try: ast.parse("\n".join([*lines[:first], after, *lines[last+1:]]))
                except SyntaxError: continue
                out.append(dict(module=module, operator=operator, row=first+1, rows=last-first+1, line="\n".join(lines[first:last+1]), mutant=after))
    return out


# a mutant in a folder of its own

def cell_of(text, row):
    "Id of the notebook cell that a row (from 1) of a module comes from."
    return next(l.rsplit("#", 1)[1].strip() for l in reversed(text.splitlines()[:row]) if l.startswith("# %% ../nbs"))


def copy_with(m, tmp):
    "The package and the notebook in `tmp`, with mutant `m` (None: as they are): path of the notebook."
    shutil.copytree(ROOT/"meld_nb", tmp/"meld_nb")             # with __pycache__, whose dates still fit
    (tmp/"nbs"/"lib").mkdir(parents=True)
    for p in ("nbs/study", "data", "settings.ini"): (tmp/p).symlink_to(ROOT/p)
    name = NOTEBOOKS[m["module"]]
    nb = json.loads((ROOT/"nbs"/"lib"/f"{name}.ipynb").read_text(encoding="utf-8"))
    if "mutant" in m:
        path = tmp/"meld_nb"/f"{m['module']}.py"
        text = path.read_text(encoding="utf-8")
        rows = text.splitlines()
        rows[m["row"]-1 : m["row"]-1+m["rows"]] = [m["mutant"]]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        cell = next(c for c in nb["cells"] if c["id"] == cell_of(text, m["row"]))
        before = "".join(cell["source"])
        at = m["row"] - 1 - max(i for i, l in enumerate(text.splitlines()[:m["row"]]) if l.startswith("# %% ../nbs")) - 1   # row within the cell
        own = before.splitlines()
        at += sum(l.startswith("#|") for l in own)
        assert "\n".join(own[at:at+m["rows"]]) == m["line"], f"{m['module']}.py, row {m['row']} is not what {name} says; run nbdev_export"
        own[at:at+m["rows"]] = [m["mutant"]]
        cell["source"] = "\n".join(own).splitlines(keepends=True)
    out = tmp/"nbs"/"lib"/f"{name}.ipynb"
    out.write_text(json.dumps(nb), encoding="utf-8")
    return out


def attempt(m, tmp, seconds, properties):
    "In a child process: exit code 0 if the mutant survives, 10 if the notebook kills it, 11 if the properties do."
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds+5))
    used = int(Path("/proc/self/statm").read_text().split()[0])*resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,)*2)
    out = os.open(tmp/"out.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1); os.dup2(out, 2)
    notebook = copy_with(m, tmp)
    sys.path.insert(0, str(tmp))
    from nbdev.test import test_nb
    if not test_nb(notebook, skip_flags=["notest", "slow", "gpu"])[0]: return 10
    if not properties: return 0
    import meld_nb, pytest
    assert Path(meld_nb.__file__).parent == tmp/"meld_nb"
    os.chdir(tmp)
    return {0: 0, 1: 11, 2: 11}[pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(HERE/"test_properties.py"), "-k", m["module"]])]   # 2: it cannot be imported


def run_all(waiting, jobs, seconds, properties, say):
    "Every mutant with `fate` (notebook, properties, timeout, survived, error) and `cpu` (s)."
    running, waiting, done = {}, list(waiting), []
    while waiting or running:
        while waiting and len(running) < jobs:
            m, tmp = waiting.pop(0), Path(tempfile.mkdtemp(prefix="mutant-"))
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                code = 1
                try: code = attempt(m, tmp, seconds[m["module"]], properties)
                except BaseException: traceback.print_exc()
                finally: os._exit(code)
            running[pid] = m, tmp, time.time()
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        late = [p for p, (m, _, start) in running.items() if time.time() - start > 20*seconds[m["module"]]]
        for p in late: os.kill(p, signal.SIGKILL)           # waits without computing
        if not pid: time.sleep(.02); continue
        m, tmp, _ = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        fate = "timeout" if code < 0 else {0: "survived", 10: "notebook", 11: "properties"}.get(code, "error")   # error: of this script
        done.append(m | dict(fate=fate, cpu=usage.ru_utime + usage.ru_stime, out=(tmp/"out.txt").read_text(errors="replace") if (tmp/"out.txt").exists() else ""))
        shutil.rmtree(tmp, ignore_errors=True)
        say(done[-1])
    return done


def load_libraries():
    "What notebooks and tests import, once for all mutants; nothing of meld_nb."
    os.environ |= dict(OMP_NUM_THREADS="1", MPLBACKEND="agg", MELD_QUIET="1", IN_TEST="1")
    import fastcore.test, hypothesis, matplotlib.pyplot, nbdev.test, pandas, pandera.pandas, pydicom, pytest, scipy.ndimage, SimpleITK, torch, torchvision.models.detection  # noqa: F401
    import execnb.shell, IPython.core.interactiveshell  # noqa: F401
    torch.set_num_threads(1)
    assert "meld_nb" not in sys.modules


key = lambda m: tuple(" ".join(m[c].split()) for c in ("module", "operator", "line", "mutant"))


def equivalents():
    "Key of a mutant -> why nothing that a caller can see changes."
    if not EQUIVALENTS.is_file(): return {}
    with open(EQUIVALENTS, newline="", encoding="utf-8") as f: return {key(r): r["why"] for r in csv.DictReader(f)}


def table(done):
    "Print a line for each module and one for all: mutants, killed by notebook, properties and timeout, equivalent, survived, share. Returns all's numbers by name."
    rows = []
    for module in [*dict.fromkeys(m["module"] for m in done), "all"]:
        n = Counter(m["fate"] for m in done if module in (m["module"], "all"))
        killed = n["notebook"] + n["properties"] + n["timeout"]
        real = killed + n["survived"]
        rows.append((module, real + n["equivalent"], n["notebook"], n["properties"], n["timeout"], n["equivalent"], n["survived"], killed/real if real else 1.))
    head = ("module", "mutants", "notebook", "properties", "timeout", "equivalent", "survived", "killed")
    print("".join(f"{h:>11}" for h in head))
    for r in rows: print("".join(f"{c:>11}" for c in r[:-1]) + f"{r[-1]:>10.1%}")
    return dict(zip(head, rows[-1]))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--mutants", type=int, default=200, help="how many are drawn")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--jobs", type=int, default=2, help="processes at a time")
    ap.add_argument("--modules", nargs="+", choices=list(NOTEBOOKS), default=list(NOTEBOOKS))
    ap.add_argument("--notebooks-only", action="store_true", help="without the properties")
    ap.add_argument("--out", type=Path, help="CSV of every mutant and its fate")
    ap.add_argument("--show", action="store_true", help="print what each mutant's tests said")
    args = ap.parse_args()
    load_libraries()
    start, every = time.time(), [m for n in args.modules for m in mutants(n)]
    drawn = random.Random(args.seed).sample(every, min(args.mutants, len(every)))
    as_is = run_all([dict(module=n) for n in args.modules], args.jobs, dict.fromkeys(NOTEBOOKS, 600), not args.notebooks_only, lambda m: print(f"{m['module']}: as it is {m['fate']}, {m['cpu']:.1f} s", flush=True))
    if bad := [m for m in as_is if m["fate"] != "survived"]: print(bad[0]["out"]); return "the tests fail without a mutant"
    known, count = equivalents(), 0

    def say(m):
        nonlocal count
        count += 1
        if m["fate"] == "survived" and key(m) in known: m["fate"] = "equivalent"
        print(f"{count}/{len(drawn)} {m['fate']:10} {m['module']}:{m['row']} {m['operator']}, {m['cpu']:.1f} s" + ("" if m["fate"] not in ("survived", "equivalent") else f"\n    - {m['line'].strip()}\n    + {m['mutant'].strip()}"), flush=True)
        if args.show: print(m["out"])

    done = run_all(drawn, args.jobs, {m["module"]: 15 + int(8*m["cpu"]) for m in as_is}, not args.notebooks_only, say)
    if bad := [m for m in done if m["fate"] == "error"]: print(bad[0]["out"]); return "this script failed on a mutant"
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as f:
            w = csv.DictWriter(f, ["module", "operator", "row", "line", "mutant", "fate", "cpu"], extrasaction="ignore")
            w.writeheader(); w.writerows(sorted(done, key=lambda m: (m["module"], m["row"])))
    print(f"\n{len(every)} mutants can be drawn; {len(done)} were, with seed {args.seed}, in {time.time()-start:.0f} s ({sum(m['cpu'] for m in done)/max(1, len(done)):.1f} s of processor time each)")
    n = table(done)
    print(f"{n['mutants']} faults: {n['mutants'] - n['equivalent'] - n['survived']} noticed, {n['equivalent']} equivalent, {n['survived']} not noticed; {n['killed']:.1%} of those that change something are noticed (at least {LEAST:.0%})")
    return int(n["killed"] < LEAST)


if __name__ == "__main__": sys.exit(main())
