"""The notebooks of nbs/explore in JupyterLab in a real, headless Chromium: every control must do what it says, and no host but this machine is asked.

    make browser                                  # or, with the package and its extra `browser` installed:
    python tests/browser/lab.py [--shots DIR]     # DIR: where pictures of the pages are left

It makes its own small run folder from a phantom; a few minutes, most of it for starting kernels. Needs Debian's packages
chromium and chromium-driver; without them it says so and is skipped.
"""
import argparse, base64, contextlib, io, json, os, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import numpy as np
import pandas as pd
from PIL import Image

from little_run import write_run

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "browser-test"

SETTINGS = {  # JupyterLab without its question for news, and without looking for updates
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}
OWN = '''
import numpy as np, pandas as pd
from meld_nb.viewer import view
from meld_nb.volume import Volume
v = Volume(np.full((5, 40, 60), -1000, np.int16), (.5, 1., 2.))   # a block of air and metal: pixels twice as high as wide
v.hu[2, 26:31, 10:19] = 1000
w = view(v, {"detection": pd.DataFrame([dict(z=2, x1=9.5, x2=18.5, y1=25.5, y2=30.5, score=.9)])}, preset="full")
w
'''
RUN_ALL = '''
window.ran = "";
(async () => {
  const app = window.jupyterapp; await app.restored;
  const panel = app.shell.currentWidget; await panel.context.ready; await panel.sessionContext.ready;
  const kernel = panel.sessionContext.session.kernel; await kernel.info;
  for (let i = 0; i < 600 && kernel.status !== "idle"; i++) await new Promise((r) => setTimeout(r, 100));
  await app.commands.execute("notebook:run-all-cells");
  window.ran = "all cells";
})().catch((e) => { window.ran = "failed: " + e; });
'''


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def copy_notebook(name, folder, run, as_name=None):
    "A notebook of nbs/explore with its parameter `run` changed."
    nb = nbformat.read(ROOT/"nbs"/"explore"/f"{name}.ipynb", 4)
    cell, = (c for c in nb.cells if "parameters" in c.metadata.get("tags", []))
    first, *rest = cell.source.splitlines()
    assert first.startswith("run = "), first
    cell.source = "\n".join([f"run = {str(run)!r}", *rest])
    nbformat.write(nb, folder/f"{as_name or name}.ipynb")


@contextlib.contextmanager
def jupyterlab(folder):
    "A server on `folder`, with settings of its own: yields its address."
    with tempfile.TemporaryDirectory() as tmp:
        for name, values in SETTINGS.items():
            path = Path(tmp)/"settings"/name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        url = f"http://127.0.0.1:{free_port()}"
        env = os.environ | dict(JUPYTER_CONFIG_DIR=f"{tmp}/config", JUPYTER_DATA_DIR=f"{tmp}/data", JUPYTER_RUNTIME_DIR=f"{tmp}/runtime", JUPYTERLAB_SETTINGS_DIR=f"{tmp}/settings", JUPYTERLAB_WORKSPACES_DIR=f"{tmp}/workspaces",
                                JUPYTER_PATH=str(Path(sys.prefix)/"share"/"jupyter"), PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])), MELD_QUIET="1")
        log = open(folder/"jupyter.log", "w")
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={urlparse(url).port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
                                   "--allow-root", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"], env=env, stdout=log, stderr=log)
        try:
            for _ in range(240):
                if server.poll() is not None: raise RuntimeError(f"JupyterLab ended: {(folder/'jupyter.log').read_text()[-2000:]}")
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=5).close()
                    break
                time.sleep(.25)
            yield url
        finally:
            server.terminate()                                   # it ends its kernels
            try: server.wait(20)
            except subprocess.TimeoutExpired: server.kill()
            log.close()


class Page:
    "A notebook in the browser."
    def __init__(self, driver, shots): self.driver, self.shots, self.hosts = driver, shots, set()

    def js(self, script, *args): return self.driver.execute_script(script, *args)

    def open(self, url, name):
        self.driver.get(f"{url}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
        self.until(lambda: self.js("return !!window.jupyterapp && !!document.querySelector('.jp-Notebook')"), f"{name} did not open", 90)
        self.run_all()

    def run_all(self):
        self.js(RUN_ALL)
        status = self.until(lambda: self.js("return window.ran"), "the cells did not run", 300)
        assert status == "all cells", status

    def until(self, met, what, seconds=20):
        "Wait for something to become true; AssertionError if it does not."
        end, last = time.time() + seconds, None
        while time.time() < end:
            try:
                if last := met(): return last
            except Exception as e:
                if type(e).__module__.split(".")[0] != "selenium": raise
            time.sleep(.05)
        self.shot("failed")
        for entry in self.driver.get_log("browser"):
            if entry["level"] == "SEVERE": print("console:", entry["message"][:300], flush=True)
        raise AssertionError(f"{what} (last: {last!r})")

    def find(self, css): return self.driver.find_element("css selector", css)

    def data(self, css): return dict(self.js("return Object.assign({}, document.querySelector(arguments[0])?.dataset)", css) or {})

    def number(self, css, key): return int(self.data(css).get(key) or -1)

    def picture(self, css): return self.js("return document.querySelector(arguments[0]).toDataURL()", css)

    def text(self, css): return self.js("return document.querySelector(arguments[0]).textContent", css)

    def cells(self): return self.js("return [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(c => c.className.match(/jp-(Code|Markdown|Raw)Cell/)[0])")

    def shot(self, name, css=None):
        if not self.shots: return
        if css: self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'start'})", css); time.sleep(.3)
        self.driver.save_screenshot(str(self.shots/f"{name}.png"))

    def keys(self, css, *keys):
        from selenium.webdriver.common.action_chains import ActionChains
        self.find(css).click() if css else None
        ActionChains(self.driver).send_keys(*keys).perform()

    def wheel(self, css, down):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
        self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
        ActionChains(self.driver).scroll_from_origin(ScrollOrigin.from_element(self.find(css)), 0, 120 if down else -120).perform()

    def asked(self):
        "Hosts that the pages have asked so far."
        for entry in self.driver.get_log("performance"):
            m = json.loads(entry["message"])["message"]
            url = {"Network.requestWillBeSent": m["params"].get("request", {}).get("url"), "Network.webSocketCreated": m["params"].get("url")}.get(m["method"])
            if url and urlparse(url).scheme in ("http", "https", "ws", "wss"): self.hosts.add(urlparse(url).hostname)
        return self.hosts


def check_viewer(page, url, run):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select
    from meld_nb.viewer import open_run, point_text
    root, canvas = ".meld-viewer", ".meld-viewer canvas"
    made = open_run(run)
    position = lambda: page.number(root, "position")
    drawn = lambda what: page.until(lambda: page.data(root).get("drawn") == page.data(root).get("position"), f"{what}: the slice was not drawn")

    def changes(act, what, to=None):
        "`act` must move the slice (to `to`) and change the picture."
        before, image = position(), page.picture(canvas)
        act()
        page.until(lambda: position() != before if to is None else position() == to(before), f"{what}: the slice stayed {before}")
        drawn(what)
        page.until(lambda: page.picture(canvas) != image, f"{what}: the picture stayed")

    page.open(url, "viewer")
    page.until(lambda: page.data(root).get("drawn"), "the viewer did not draw", 90)
    page.shot("viewer", root)
    cells = page.cells()
    page.keys(canvas, Keys.HOME); page.until(lambda: position() == 0, "Home: not the first slice"); drawn("Home")
    changes(lambda: page.wheel(canvas, True), "wheel down", lambda p: p + 1)
    changes(lambda: page.wheel(canvas, False), "wheel up", lambda p: p - 1)
    changes(lambda: page.find(".meld-slice").send_keys(Keys.ARROW_RIGHT*3), "slice slider", lambda p: p + 3)
    changes(lambda: page.keys(canvas, Keys.ARROW_DOWN), "arrow down", lambda p: p + 1)
    yield "wheel, slider and arrows change the slice and the picture"

    shown = page.text(f"{root} .meld-title")
    own = made.boxes["detection"][made.boxes["detection"].volume_id == shown]
    stacks = own.drop_duplicates("stack_id").score
    counted = lambda: page.text(".meld-kind[data-kind=detection] output").split(" of ")[0]
    slider = page.find(".meld-threshold")
    points = []
    for key, threshold in ((Keys.HOME, 0.), (Keys.END, 1.)):
        slider.send_keys(key)
        want = point_text(made.froc, threshold, "sub-volume")
        page.until(lambda: page.text(".meld-point") == want, f"threshold {threshold}: expected {want!r}, found {page.text('.meld-point')!r}")
        page.until(lambda: counted() == str((stacks >= threshold).sum()), f"threshold {threshold}: expected {(stacks >= threshold).sum()} detections, found {counted()}")
        points.append((page.text(".meld-point"), page.number(root, "visible")))
    assert points[0] != points[1] and points[0][1] - points[1][1] == len(own) - (own.score >= 1).sum(), points
    page.keys(canvas, "[" * 25)                                                      # half way down
    want = point_text(made.froc, .5, "sub-volume")
    page.until(lambda: page.text(".meld-point") == want, f"[: expected {want!r}")
    assert counted() == str((stacks >= .5).sum()), counted()
    yield "the threshold changes the boxes and the operating point, as computed outside"

    page.keys(canvas, Keys.HOME); page.until(lambda: position() == 0, "Home")
    visited = []
    for _ in range(4):
        page.keys(None, "n")
        page.until(lambda: page.number(root, "finding") not in [f for f, _ in visited] and page.number(root, "finding") >= 0, "n: no other finding")
        drawn("n"); visited.append((page.number(root, "finding"), position()))
        assert page.number(root, "boxes") > 0, "n: the slice of a finding shows no box"
    assert len({p for _, p in visited}) > 1 and visited == sorted(visited), visited
    page.shot("viewer_finding", root)
    page.keys(None, "p")
    page.until(lambda: (page.number(root, "finding"), position()) == visited[-2], "p: not the finding before")
    page.find(".meld-panel button[title=n]").click()
    page.until(lambda: (page.number(root, "finding"), position()) == visited[-1], "the button: not the next finding")
    yield "n, p and the buttons jump to findings"

    image = page.picture(canvas)
    page.keys(canvas, "1"); page.until(lambda: page.picture(canvas) != image and "-600" in page.text(f"{root} .meld-panel"), "1: not the lung window")
    page.shot("viewer_lung", root)
    boxes = page.number(root, "visible")
    page.find(".meld-kind[data-kind=detection] input").click(); page.until(lambda: page.number(root, "visible") == boxes - (own.score >= .5).sum(), "the box of a kind: its boxes stayed")
    page.keys(canvas, "h"); page.until(lambda: page.number(root, "boxes") == 0, "h: boxes stayed"); page.keys(None, "h")
    yield "windows and kinds switch"

    before = shown
    Select(page.find(".widget-dropdown select")).select_by_index(1)
    page.until(lambda: page.text(f"{root} .meld-title") != before, "another volume was picked, but not shown"); drawn("another volume")
    yield "another volume is shown"
    page.keys(canvas, "a", "r", "d", "d", "x", "b")
    time.sleep(.5)
    assert page.cells() == cells, "JupyterLab took keys that were the viewer's"
    yield "JupyterLab does not take its keys"


def check_place(page, url):
    "A metal block in air, with its box: both must lie on the same pixels of the screen."
    canvas = ".meld-viewer canvas"
    page.open(url, "own")
    page.until(lambda: page.data(".meld-viewer").get("drawn"), "the viewer did not draw", 90)
    page.shot("own", ".meld-viewer")
    rgb = np.array(Image.open(io.BytesIO(base64.b64decode(page.picture(canvas).split(",")[1]))).convert("RGB")).astype(int)
    h, w, _ = rgb.shape
    assert abs(w/h - 30/40) < .01, f"60 x 40 pixels of 0.5 x 1 mm are drawn as {w} x {h}"
    # the pixels of the block, 10 to 18 and 26 to 30, reach from 9.5 to 18.5 and from 25.5 to 30.5; edges are half a pixel off centres
    want = np.array([10/60*w, 19/60*w, 26/40*h, 31/40*h])
    pink = (rgb[:, :, 0] - rgb[:, :, 1] > 60) & (rgb[:, :, 2] - rgb[:, :, 1] > 30)
    def edges(count): lines = np.flatnonzero(count > .5*count.max()); return [lines[lines < lines.mean()].mean() + .5, lines[lines > lines.mean()].mean() + .5]
    got = np.array([*edges(pink.sum(0)), *edges(pink.sum(1))])
    assert np.abs(got - want).max() <= 1, f"the box is drawn at {got}, its block is at {want}"
    across, down = rgb[int(want[2:].mean()), :, 1], rgb[:, int(want[:2].mean()), 1]   # of the smoothed block, which fades over the width of a pixel
    for line, lo, hi, px in ((across, *want[:2], w/60), (down, *want[2:], h/40)):
        assert (line[int(lo+px):int(hi-px)] > 100).all() and (line[:int(lo-px)] < 30).all() and (line[int(hi+px):] < 30)[:int(3*px)].all(), "the block is not inside its box"
    yield "pixel centres and aspect are right"


def check_review(page, url, run):
    from selenium.webdriver.common.keys import Keys
    from meld_nb.review import draw, precision, read_verdicts
    from meld_nb.tables import read_table
    root, file = ".meld-review", Path(run)/"review"/"40_mined_seed_0.csv"
    canvases = [f"{root} figure:nth-child({k}) canvas" for k in (1, 2)]
    drawn = draw(read_table(Path(run)/"40"/"mined.parquet", "lesions"))
    item = lambda: page.number(root, "item")
    ready = lambda: page.until(lambda: page.data(root).get("drawn") == page.data(root).get("item"), "the pair was not drawn")
    written = lambda: dict(zip(read_verdicts(file).lesion_id, read_verdicts(file).verdict)) if file.exists() else {}
    expect = {}

    def judge(key, verdict):
        i, images = item(), [page.picture(c) for c in canvases]
        page.keys(None, key)
        expect[drawn.lesion_id[i]] = verdict
        page.until(lambda: written() == expect, f"{key}: the file has {written()}, expected {expect}")
        page.until(lambda: item() == i + 1, f"{key}: not the next pair"); ready()
        page.until(lambda: page.picture(canvases[1]) != images[1], f"{key}: the picture stayed")

    page.open(url, "review")
    page.until(lambda: page.data(root).get("drawn"), "the review sheet did not draw", 90)
    page.shot("review", root)
    cells = page.cells()
    page.find(f"{root} .meld-title").click(); page.find(canvases[1]).click()
    for key, verdict in (("a", "accept"), ("r", "reject"), ("u", "unsure"), ("a", "accept")): judge(key, verdict)
    yield "a, r and u write the file and go on"
    page.keys(None, Keys.ARROW_LEFT*3); page.until(lambda: item() == 1 and page.data(root)["verdict"] == "reject", "arrows: not back at the second pair"); ready()
    judge("a", "accept")
    page.keys(None, Keys.ARROW_RIGHT*2); page.until(lambda: item() == 4, "arrows: not forth")
    p = precision(read_verdicts(file)).iloc[0]
    want = f"4 of {len(drawn)} judged: 3 accepted, 0 rejected, 1 unsure · precision {100*p.precision:.1f} % (95 % interval {100*p.low:.1f} to {100*p.high:.1f})"
    page.until(lambda: page.text(f"{root} .meld-summary") == want, f"expected {want!r}, found {page.text(f'{root} .meld-summary')!r}")
    yield "arrows go back and forth, a second verdict replaces the first, the precision is shown"
    ready(); images = [page.picture(c) for c in canvases]
    page.keys(None, Keys.ARROW_DOWN); page.until(lambda: all(page.picture(c) != i for c, i in zip(canvases, images)), "arrow down: a picture stayed")
    image = page.picture(canvases[1])
    page.wheel(canvases[1], True); page.until(lambda: page.picture(canvases[1]) != image, "wheel: the picture stayed")
    page.find(f"{root} button:nth-of-type(3)").click()                                # reject, by mouse
    expect[drawn.lesion_id[4]] = "reject"
    page.until(lambda: written() == expect, "the button wrote nothing")
    assert page.cells() == cells, "JupyterLab took keys that were the sheet's"
    page.shot("review_judged", root)
    yield "slices roll, buttons judge, JupyterLab does not take its keys"
    page.run_all()
    page.until(lambda: page.data(root).get("drawn") == "5" == page.data(root).get("item"), f"opened again, the sheet does not go on at the sixth pair but at {page.data(root)}", 60)
    assert page.text(f"{root} .meld-summary").startswith("5 of"), page.text(f"{root} .meld-summary")
    page.until(lambda: file.with_suffix(".parquet").exists(), "the last cell wrote no table", 60)
    mined = pd.read_parquet(Path(run)/"40"/"mined.parquet")
    page.until(lambda: len(pd.read_parquet(file.with_suffix(".parquet"))) == len(mined) - 1, "the table for training still has what was rejected")
    yield "a sheet opened again goes on; the table for training lacks what was rejected"


def check_missing(page, url):
    page.open(url, "missing")
    page.until(lambda: "make demo" in page.text(".jp-Notebook .jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"), "a missing run folder is not explained", 60)
    yield "a missing run folder: the command that makes it is named"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    args = ap.parse_args()
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        print("SKIPPED: no chromium and chromedriver on this machine; Debian's packages are chromium and chromium-driver\n\n0 passed, 0 failed, 1 skipped")
        return 0
    from selenium import webdriver
    options, start = webdriver.ChromeOptions(), time.time()
    options.binary_location = chromium
    for a in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000"):
        options.add_argument(a)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "SEVERE"})
    if args.shots: args.shots.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        folder, run = Path(tmp)/"lab", Path(tmp)/"run"
        folder.mkdir(); write_run(run)
        print(f"a run folder in {time.time()-start:.0f} s", flush=True)
        for name in ("viewer", "review"): copy_notebook(name, folder, run)
        copy_notebook("viewer", folder, Path(tmp)/"none", "missing")
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(OWN)], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))), folder/"own.ipynb")
        with jupyterlab(folder) as url:
            driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))
            try:
                page = Page(driver, args.shots)
                for check in (check_viewer(page, url, run), check_place(page, url), check_review(page, url, run), check_missing(page, url)):
                    begun = time.time()
                    try:
                        for said in check:
                            passed += 1; print(f"passed in {time.time()-begun:.1f} s: {said}", flush=True); begun = time.time()
                    except Exception as e: failed += 1; print(f"FAILED: {type(e).__name__}: {e}", flush=True)   # the browser's errors too
                strange = page.asked() - {"127.0.0.1"}
                ok = not strange and "127.0.0.1" in page.hosts
                passed, failed = passed + ok, failed + (not ok)
                print("passed: no host but 127.0.0.1 was asked" if ok else f"FAILED: hosts that were asked: {', '.join(sorted(page.hosts)) or 'none'}")
            finally: driver.quit()
    print(f"{time.time()-start:.0f} s\n\n{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__": sys.exit(main())
