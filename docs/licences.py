"""Licences of everything that meld_nb and its extras need, from the metadata of what is installed here: python docs/licences.py writes docs/licences.md (`make licences`).

Exit code 1 if a requirement of settings.ini is not installed, if a licence is not known, or if one does not go with distribution under Apache-2.0.
"""
import re, sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# what a licence is, by words of its name or of its text; the first that fits
KINDS = [("strong copyleft", r"\bAGPL|Affero|(?<!L)(?<!Lesser )\bGPL|GNU General Public"), ("weak copyleft", r"LGPL|Lesser General Public|MPL|Mozilla Public|EPL|Eclipse Public"),
         ("proprietary", r"NVIDIA.Proprietary|Other/Proprietary"),
         ("permissive", r"Apache|MIT|BSD|ISC|PSF|Python Software Foundation|HPND|Historical Permission|Unlicense|0BSD|Zlib|CC0|MIT-CMU|Boost|BSL-1|\bAFL\b|ZPL|Academic Free|Public Domain|WTFPL|2-clause|3-clause")]
# read in the packages themselves, whose metadata do not say it, or more than is installed
KNOWN = {"docutils": "Public Domain AND BSD-2-Clause AND BSD-3-Clause",   # its COPYING; the GPL is for an Emacs mode that is not in the wheel
         "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}

# under the GPL, and why that does no harm: each is installed by an extra alone, and the page names it
ACCEPTED = {"unidecode": "tcia_utils imports it, to download from The Cancer Imaging Archive. Nobody who does not install that extra has it. Whoever passes on an environment that holds it, an image of a container for instance, has to keep to the GPL for it."}


def licence(dist):
    "Of a distribution: its SPDX expression, else its classifiers, else the first line of its licence field, else that of its licence file."
    m = dist.metadata
    said = [m.get("License-Expression"), " AND ".join(sorted({c.split("::")[-1].strip() for c in m.get_all("Classifier", []) if c.startswith("License ::") and c != "License :: OSI Approved"})),
            next(iter((m.get("License") or "").strip().splitlines()), "")]
    said += [line.strip() for f in dist.files or [] if f.name.upper().startswith("LICEN") and ".dist-info" in str(f) for line in f.read_text().strip().splitlines()[:1]]
    return KNOWN.get(canonicalize_name(dist.name)) or next((s for s in said if s and s.upper() != "UNKNOWN"), "not stated")

def kind(name):
    "Of a licence's name; of a choice (OR) the freest, of a conjunction (AND) the strictest."
    order = ["permissive", "weak copyleft", "proprietary", "strong copyleft", "unknown"]
    one = lambda s: next((k for k, p in KINDS if re.search(p, s)), "unknown")
    return min((max((one(a) for a in o.split(" AND ")), key=order.index) for o in re.split(r" OR ", name)), key=order.index)

def extras():
    "name of an extra (\"\": of every installation) -> requirements, from settings.ini."
    parser = ConfigParser(delimiters=["="]); parser.read(ROOT/"settings.ini", encoding="utf-8")
    return {k.removesuffix("requirements").removesuffix("_"): [Requirement(r) for r in v.split()] for k, v in parser["DEFAULT"].items() if k.endswith("requirements")}

def behind(names, seen=None):
    "Distributions that requirements pull in, with theirs: canonical name -> distribution; what is not installed here (another system's) is left out."
    seen = {} if seen is None else seen
    for r in names:
        name = canonicalize_name(r.name)
        if r.marker and not any(r.marker.evaluate({"extra": e}) for e in ("", *r.extras)) or name in seen and not r.extras: continue
        try: dist = metadata.distribution(r.name)
        except metadata.PackageNotFoundError: continue
        seen[name] = dist
        needs = [Requirement(s) for s in dist.requires or []]
        behind([n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in ("", *r.extras))], seen)
    return seen

def table(header, rows): return "\n".join(["| " + " | ".join(header) + " |", "|" + " --- |"*len(header), *("| " + " | ".join(v.replace("|", "\\|") for v in r) + " |" for r in rows)])

def main():
    wanted, wrong = extras(), []
    direct = {canonicalize_name(r.name): (r, e) for e, rs in reversed(wanted.items()) for r in rs}
    for name, (r, e) in direct.items():
        try: metadata.distribution(name)
        except metadata.PackageNotFoundError: wrong.append(f"{name} (extra {e or 'none'}) is not installed: pip install -e '.[{','.join(filter(None, wanted))}]'")
    all_of = {e: behind(rs) for e, rs in wanted.items()}
    everything = {n: d for found in all_of.values() for n, d in found.items()}
    kinds = {n: kind(licence(d)) for n, d in everything.items()}
    for n, k in kinds.items():
        if k == "unknown" or k == "strong copyleft" and (n not in ACCEPTED or n in all_of[""]): wrong.append(f"{n} {everything[n].version}: {k}: {licence(everything[n])}")
    row = lambda n, *more: (n, everything[n].version, licence(everything[n])[:70], *more)
    by = lambda n: ", ".join(e or "every installation" for e, found in all_of.items() if n in found)
    text = ["# Licences", "meld_nb is under Apache-2.0 (`LICENSE`). It contains no code of others and is distributed without its requirements: pip installs them, each under its own licence. "
            "This page is made by `docs/licences.py` from the metadata of the installed versions, which are those that the project was tested with; it stops if a licence is unknown, or if one does not go with distribution under Apache-2.0. Data sets have licences of their own: [data](../data/README.md).",
            "## What the project asks for", "A requirement of an extra is installed only by `pip install -e \".[extra]\"`."]
    for e, rs in wanted.items():
        text += [f"### {'Every installation' if not e else f'Extra `{e}`'}", table(["package", "version", "licence", "what it is"], [row(n, re.sub(r"\s+", " ", everything[n].metadata.get("Summary") or "")) for n in sorted({canonicalize_name(r.name) for r in rs}) if n in everything])]
    text += ["## What they bring along", "Everything else that pip installs with them on Linux, and by whom it is asked for.", table(["package", "version", "licence", "for"], [row(n, by(n)) for n in sorted(everything) if n not in direct])]
    strong, weak = ([n for n in sorted(everything) if kinds[n] == k] for k in ("strong copyleft", "weak copyleft"))
    closed = [n for n in sorted(everything) if kinds[n] == "proprietary"]
    text += ["## Copyleft", f"Of {len(everything)} packages {len(strong) or 'none'} is under the GPL or the AGPL" + ("".join(f": `{n}`, only of the extra `{by(n)}`. {ACCEPTED[n]} " for n in strong) or ". ") + (f"{len(weak)} are under a weak copyleft (LGPL, MPL), which binds changes to these packages themselves, not what imports them; they are separate packages that are imported at run time, unchanged:" if weak else "None is under a weak copyleft."),
             table(["package", "licence", "for"], [(n, licence(everything[n])[:70], by(n)) for n in weak]) if weak else "",
             (f"{len(closed)} are proprietary: NVIDIA's libraries, which PyTorch's default wheel for Linux brings along; its CPU build needs none of them." if closed else "None is proprietary here: these are the packages of PyTorch's CPU build. Its default wheel for Linux also brings NVIDIA's libraries, under NVIDIA's own terms."),
             "Wheels also hold compiled libraries of others. Among those of numpy and scipy are GCC's runtime libraries, under the GPL with its runtime library exception, which leaves programs that use them alone; each wheel's own licence file lists what it holds.",
             "## Vulnerabilities", "`pip-audit` compares installed versions with public databases of advisories: `pip install pip-audit && pip-audit`. It needs these databases within reach and is no part of the tests. They could not be reached where this release was prepared, so nothing is claimed here: run it where you install."]
    for w in wrong: print(w)
    if not wrong: (ROOT/"docs"/"licences.md").write_text("\n\n".join(filter(None, text)) + "\n", encoding="utf-8"); print(f"docs/licences.md: {len(everything)} packages, {len(weak)} of weak copyleft")
    return int(bool(wrong))


if __name__ == "__main__": sys.exit(main())
