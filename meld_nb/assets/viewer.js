const KEPT = 300; // slices that are kept here

function render({ model, el }) {
  let info = {}, slices = new Map(), asked = new Map();
  const set = (changes) => { for (const [k, v] of Object.entries(changes)) model.set(k, v); model.save_changes(); };
  const get = (k) => model.get(k);

  const pane = new Pane({ width: 540, height: 540, onWheel: (d) => move(d), onWindow: (w) => set({ window: w }), onHover: hover });
  const slider = (label, attributes) => {
    const input = element("input", { type: "range", "aria-label": label, ...attributes }), text = element("output");
    return { input, text, row: element("label", { className: "meld-row" }, element("span", { textContent: label }), input, text) };
  };
  const slice = slider("slice", { className: "meld-slice", min: 0, step: 1 }), score = slider("score ≥", { className: "meld-threshold", step: "any" });
  const windows = element("div", { className: "meld-buttons meld-windows", role: "group", "aria-label": "window" }), windowText = element("div", { className: "meld-quiet" });
  const point = element("div", { className: "meld-point", "aria-live": "polite" }), kinds = element("div", { className: "meld-kinds" });
  const button = (text, title, onclick) => element("button", { type: "button", textContent: text, title, onclick });
  const which = element("div", { className: "meld-finding", "aria-live": "polite" }), under = element("div", { className: "meld-quiet meld-under" }), title = element("div", { className: "meld-title" });
  const jumps = element("div", { className: "meld-buttons" }, button("◀ previous finding", "p", () => jump(-1)), button("next finding ▶", "n", () => jump(1)));
  const keys = element("div", { className: "meld-quiet", textContent: "Keys: ↑ ↓ slice, n p finding, 1–5 window, [ ] score, h boxes on or off, 0 whole picture. Wheel: slices, with Shift zoom. Drag: window, with Shift move." });
  const root = element("div", { className: "meld-viewer" }, title,
    element("div", { className: "meld-columns" }, element("div", {}, pane.canvas, under),
      element("div", { className: "meld-panel" }, slice.row, windows, windowText, score.row, point, kinds, jumps, which, keys)));
  let hideAll = false;
  under.at = [null, null];

  const last = () => info.n - 1;
  const move = (d) => go(get("position") + d);
  const go = (to) => {
    const p = Math.max(0, Math.min(last(), to)), f = info.findings[get("finding")];
    set({ position: p, finding: f && f.first <= p && p <= f.last ? get("finding") : -1 });
  };
  const thresholded = (b) => info.kinds[b.kind].thresholded;
  const visible = (b) => !get("hidden").includes(b.kind) && !(thresholded(b) && b.score < get("threshold"));

  function jump(d) { // to the next finding with a visible box, in the order from head to feet
    const seen = new Set(get("boxes").filter(visible).map((b) => b.finding)), order = info.findings.map((f, i) => i).filter((i) => seen.has(i));
    if (!order.length) return;
    const here = get("finding"), p = get("position");
    const next = here >= 0 ? order.filter((i) => (d > 0 ? i > here : i < here)) : order.filter((i) => (d > 0 ? info.findings[i].position >= p : info.findings[i].position <= p));
    const to = next.length ? (d > 0 ? next[0] : next[next.length - 1]) : d > 0 ? order[0] : order[order.length - 1]; // round again
    hideAll = false;
    set({ finding: to, position: info.findings[to].position });
  }

  function hover(x, y) { // what lies under the pointer, also when the slice changes under it
    under.at = [x, y];
    const s = info.z?.[get("position")], hu = pane.at(x, y);
    if (hu === null) { under.textContent = ""; return; }
    const m = info.native, v = [x, y, last() - get("position"), 1], at = [0, 1, 2].map((k) => Math.round(m[k].reduce((t, c, i) => t + c * v[i], 0) * 10) / 10);
    under.textContent = `x ${at[0]}, y ${at[1]}, z ${s ?? at[2]} of the tables: ${hu} HU`;
  }

  // The slice that is asked for, and those next to it, so that the wheel finds them here.
  function want() {
    const p = get("position"), now = performance.now();
    const near = [0, 1, -1, 2, -2, 3, -3].map((d) => p + d).filter((q) => q >= 0 && q <= last() && !slices.has(q) && !(now - asked.get(q) < 3000));
    if (!near.length) return;
    near.forEach((q) => asked.set(q, now));
    model.send({ want: near, series: info.series });
  }

  function draw() {
    if (get("info") !== info) return start();
    const p = get("position"), boxes = get("boxes").filter((b) => b.first <= p && p <= b.last);
    want();
    const shown = hideAll ? [] : boxes.filter(visible);
    pane.hu = slices.get(p) ?? null;
    pane.note = `waiting for slice ${info.z?.[p] ?? p}: is the kernel running?`;
    pane.window = get("window");
    pane.boxes = shown.map((b) => ({ ...b, ...info.kinds[b.kind], strong: b.finding === get("finding"), above: thresholded(b) ? b.score.toFixed(2) : "", below: b.finding === get("finding") ? b.kind : "" }));
    pane.draw();
    hover(...under.at);
    slice.input.value = p;
    slice.text.textContent = `${p + 1} of ${info.n}` + (info.z ? `, z = ${info.z[p]}` : "");
    score.input.value = get("threshold"); score.text.textContent = get("threshold").toFixed(3);
    point.textContent = get("point");
    const [centre, width] = get("window");
    windowText.textContent = `window: centre ${centre} HU, width ${width} HU`;
    [...windows.children].forEach((b) => b.setAttribute("aria-pressed", String(info.windows[b.textContent][0] === centre && info.windows[b.textContent][1] === width)));
    const f = info.findings[get("finding")], all = get("boxes").filter(visible);
    for (const row of kinds.children) {
      const own = get("boxes").filter((b) => b.kind === row.dataset.kind), kept = own.filter((b) => !(thresholded(b) && b.score < get("threshold")));
      row.querySelector("input").checked = !get("hidden").includes(row.dataset.kind);
      row.querySelector("output").textContent = `${new Set(kept.map((b) => b.finding)).size}` + (kept.length < own.length ? ` of ${new Set(own.map((b) => b.finding)).size}` : "");
    }
    which.textContent = f ? f.text : `findings shown: ${new Set(all.map((b) => b.finding)).size}`;
    // for screen readers, and for tests: what is drawn
    pane.canvas.setAttribute("aria-label", `slice ${p + 1} of ${info.n}, ${shown.length} boxes`);
    Object.assign(root.dataset, { position: p, drawn: pane.hu ? p : "", boxes: shown.length, visible: all.length, finding: get("finding") });
  }

  function start() { // a volume, and later another one
    info = get("info"); slices = new Map(); asked = new Map(); hideAll = false;
    pane.fit(info.shape, info.spacing);
    title.textContent = info.title;
    slice.input.max = last();
    [score.input.min, score.input.max] = info.scores;
    windows.replaceChildren(...Object.keys(info.windows).map((name) => button(name, "", () => set({ window: info.windows[name] }))));
    kinds.replaceChildren(...Object.entries(info.kinds).map(([kind, look]) => {
      const swatch = element("span", { className: "meld-swatch" });
      Object.assign(swatch.style, { borderColor: look.colour, borderStyle: look.dashed ? "dashed" : "solid" });
      const box = element("input", { type: "checkbox", onchange: () => set({ hidden: get("hidden").includes(kind) ? get("hidden").filter((k) => k !== kind) : [...get("hidden"), kind] }) });
      return element("label", { className: "meld-kind", "data-kind": kind }, box, swatch, element("span", { textContent: kind }), element("output"));
    }));
    score.row.hidden = point.hidden = !Object.values(info.kinds).some((k) => k.thresholded);
    jumps.hidden = which.hidden = !info.findings.length;
    draw();
  }

  function received(message, buffers) {
    if (message.series !== info.series) return; // of the volume before
    slices.set(message.position, int16(buffers[0]));
    if (slices.size > KEPT) slices.delete([...slices.keys()].reduce((a, b) => (Math.abs(a - get("position")) > Math.abs(b - get("position")) ? a : b)));
    if (message.position === get("position")) draw();
  }

  slice.input.oninput = () => go(+slice.input.value);
  score.input.oninput = () => set({ threshold: +score.input.value });
  root.addEventListener("pointerdown", (e) => { if (!e.target.matches("input, button, label *")) root.focus({ preventScroll: true }); });
  takeKeys(root, (key, target) => {
    if (target.matches("input[type=range], input[type=checkbox], button") && (key.startsWith("Arrow") || key === " " || key === "Enter" || key === "Tab" || key === "Home" || key === "End")) return false;
    const names = Object.keys(info.windows), step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 5, PageUp: -5 }[key];
    if (step) move(step);
    else if (key === "Home") go(0);
    else if (key === "End") go(last());
    else if (key === "n" || key === "p") jump(key === "n" ? 1 : -1);
    else if (key === "[" || key === "]") {
      const [low, high] = info.scores, step = (high - low) / 50;
      set({ threshold: Math.max(low, Math.min(high, get("threshold") + (key === "]" ? step : -step))) });
    }
    else if (key === "h") { hideAll = !hideAll; draw(); }
    else if (key === "0") { pane.zoom = 1; pane.middle = [0.5, 0.5]; draw(); }
    else if (names[key - 1]) set({ window: info.windows[names[key - 1]] });
    else return false;
  });
  const changes = ["info", "boxes", "position", "window", "threshold", "hidden", "finding", "point"];
  changes.forEach((k) => model.on(`change:${k}`, draw));
  model.on("msg:custom", received);
  el.append(root);
  draw();
  return () => { changes.forEach((k) => model.off(`change:${k}`, draw)); model.off("msg:custom", received); };
}

export default { render };
