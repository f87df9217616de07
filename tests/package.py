"""What `pip install` gives: sdist and wheel are built, the wheel is installed into an empty environment, and used outside of the clone.

    python tests/package.py        # `make test` runs it too
"""
import os, shutil, subprocess, sys, tarfile, tempfile, zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*args, cwd=None, code=0, **env):
    "Output of a command that ends with this exit code."
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MELD_STUDY")}
    done = subprocess.run(list(map(str, args)), cwd=cwd, env=kept | env, capture_output=True, text=True)
    assert done.returncode == code, f"{' '.join(map(str, args))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def build(tmp):
    "The sdist of what git has, and the wheel that it makes."
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    clone = tmp/"clone"
    for f in filter(None, files): (clone/f).parent.mkdir(parents=True, exist_ok=True); shutil.copyfile(ROOT/f, clone/f)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp/"dist", cwd=clone)
    sdist, = (tmp/"dist").glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", sdist, "-w", tmp/"dist")
    wheel, = (tmp/"dist").glob("*.whl")
    ours = {f for f in files if f.startswith("meld_nb/")}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert ours <= inside, f"not in the wheel: {sorted(ours - inside)}"
    assert {f.split('/')[0] for f in inside} == {"meld_nb", wheel.name.split("-py3")[0] + ".dist-info"}, "the wheel holds more than the package"
    names = {n.split("/", 1)[-1] for n in tarfile.open(sdist).getnames()}
    assert ours | {"setup.py", "settings.ini", "LICENSE", "README.md", "CHANGELOG.md"} <= names, "the sdist is not complete"
    return wheel


def main():
    tmp = Path(tempfile.mkdtemp())
    try:
        wheel = build(tmp)
        run(sys.executable, "-m", "venv", tmp/"venv")
        python, away = tmp/"venv"/"bin"/"python", tmp/"away"
        away.mkdir()
        import torch, torchvision                      # the same builds: others might be gigabytes of CUDA
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"torch=={torch.__version__.split('+')[0]}", f"torchvision=={torchvision.__version__.split('+')[0]}", wheel)
        meld = tmp/"venv"/"bin"/"meld"
        print(run(meld, "--version", cwd=away).strip())
        assert str(tmp/"venv") in run(python, "-c", "import meld_nb; print(meld_nb.__file__)", cwd=away)

        scan = Path(os.environ.get("MELD_REALDATA", ""))/"ct_totalsegmentator"/"example_ct.nii.gz"
        if not scan.is_file():
            print("MELD_REALDATA is not set: a phantom stands in for the real scan")
            run(meld, "phantom", "world", cwd=away)
            scan = sorted(away.glob("world/lits/volume-*.nii*"))[0]
        said = run(meld, "detect", scan, "--out", "found", "--format", "csv,json,nifti,html", cwd=away, MELD_QUIET="1")
        assert "trained on phantoms" in said and all((away/"found"/f).exists() for f in ("detections.csv", "detections.json", "labels", "pages")), said
        print(said.strip().splitlines()[-1])

        (away/"d.csv").write_text("volume_id,x1,y1,z1,x2,y2,z2,score\nv,10,10,3,20,20,5,.9\nv,50,50,3,60,60,5,.8\n")
        (away/"t.csv").write_text("volume_id,z,x1,y1,x2,y2\nv,4,10,10,20,20\nw,2,30,30,40,40\n")
        (away/"i.csv").write_text("volume_id\nv\nw\n")
        assert "average        0.500" in run(meld, "froc", "d.csv", "t.csv", "--images", "i.csv", cwd=away)
        print(run(python, "-c", """
import numpy as np, pandas as pd
from meld_nb.mam import match_missing
box = dict(x1=10., y1=10., x2=20., y2=20.)
lesions = pd.DataFrame([dict(lesion_id="a", volume_id="v", patient_id="p", z=4, role="annotated", **box)])
proposals = pd.DataFrame([dict(volume_id="w", patient_id=p, z=7, score=.9, expert="deeplesion", **box) for p in "pq"])
mined = match_missing(lesions, proposals, np.eye(4, dtype=np.float32)[:1], np.eye(4, dtype=np.float32)[[0, 0]])
assert mined.matched_lesion_id.tolist() == ["a"] and mined.patient_id.tolist() == ["p"]
print("match_missing: 1 of 2 proposals matched")
""", cwd=away).strip())
        print(run(meld, "run", cwd=away, code=2).strip())      # the study needs the clone, and says so
    finally: shutil.rmtree(tmp)


if __name__ == "__main__": main()
