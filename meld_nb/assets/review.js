const VERDICTS = { a: "accept", r: "reject", u: "unsure" };

function render({ model, el }) {
  const set = (changes) => { for (const [k, v] of Object.entries(changes)) model.set(k, v); model.save_changes(); };
  const get = (k) => model.get(k);
  let pairs = new Map(), asked = new Map();

  const side = (name) => {
    const s = { name, caption: element("figcaption"), none: element("div", { className: "meld-none", textContent: "no match" }), step: 0 };
    s.pane = new Pane({ width: 380, height: 380, onWheel: (d) => roll(s, d), onWindow: (w) => { s.window = w; draw(); } });
    s.figure = element("figure", {}, s.pane.canvas, s.none, s.caption);
    return s;
  };
  const sides = [side("annotation"), side("match")];
  const button = (text, className, onclick) => element("button", { type: "button", textContent: text, className, onclick });
  const judges = Object.fromEntries(Object.entries(VERDICTS).map(([key, verdict]) => [verdict, button(`${verdict} (${key})`, "", () => judge(verdict))]));
  const where = element("div", { className: "meld-title", "aria-live": "polite" }), bar = element("div"), summary = element("div", { className: "meld-point meld-summary", "aria-live": "polite" }), error = element("div", { className: "meld-error" });
  const keys = element("div", { className: "meld-quiet", textContent: "Keys: a accept, r reject, u unsure, ← → back and forth, ↑ ↓ slices of both pictures, 1–5 window, 0 as at first. Wheel: slices of one, with Shift zoom. Drag: window." });
  const root = element("div", { className: "meld-review" }, where,
    element("div", { className: "meld-pair" }, ...sides.map((s) => s.figure)), element("div", { className: "meld-bar" }, bar),
    element("div", { className: "meld-buttons" }, button("← back", "", () => go(-1)), ...Object.values(judges), button("forth →", "", () => go(1))), summary, error, keys);

  const go = (d) => set({ item: Math.max(0, Math.min(get("items") - 1, get("item") + d)) });
  function judge(verdict) {
    if (!pairs.has(get("item"))) return; // nobody judges what is not shown
    model.send({ item: get("item"), verdict });
    go(1);
  }
  function roll(s, d) {
    const part = pairs.get(get("item"))?.[s.name];
    if (part) s.step = Math.max(-part.middle, Math.min(part.slices - 1 - part.middle, s.step + d));
    draw();
  }

  function want() {
    const i = get("item"), now = performance.now(), near = [i, i + 1, i - 1].filter((k) => k >= 0 && k < get("items") && !pairs.has(k) && !(now - asked.get(k) < 3000));
    near.forEach((k) => asked.set(k, now));
    if (near.length) model.send({ want: near });
  }

  function drawSide(s, pair) {
    const part = pair?.[s.name], shown = !pair || part;
    s.pane.canvas.style.display = shown ? "block" : "none"; s.none.style.display = shown ? "none" : "grid";
    s.caption.textContent = part ? part.caption + (s.step ? ` · ${Math.abs(s.step)} nearer to the ${s.step > 0 ? "feet" : "head"}` : "") : "";
    if (!shown) return;
    if (part && s.shows !== part) { s.shows = part; s.pane.fit(part.shape, part.spacing); s.window = part.window; }
    s.pane.window = s.window ?? [50, 400];
    s.pane.hu = part ? part.hu.subarray((part.middle + s.step) * part.shape[0] * part.shape[1], (part.middle + s.step + 1) * part.shape[0] * part.shape[1]) : null;
    s.pane.boxes = part && s.step === 0 ? [part.box] : [];
    s.pane.note = "waiting: is the kernel running?";
    s.pane.draw();
  }

  function draw() {
    const i = get("item"), pair = pairs.get(i), verdict = get("verdicts")[i] || "";
    want();
    sides.forEach((s) => drawSide(s, pair));
    where.textContent = get("items") ? `${i + 1} of ${get("items")}` + (verdict ? `: ${verdict}` : "") : "nothing to review";
    Object.entries(judges).forEach(([v, b]) => { b.className = v === verdict ? `meld-verdict-${v}` : ""; b.setAttribute("aria-pressed", String(v === verdict)); });
    bar.style.width = `${(100 * get("verdicts").filter(Boolean).length) / Math.max(1, get("items"))}%`;
    summary.textContent = get("summary"); error.textContent = get("error");
    sides.forEach((s) => s.pane.canvas.setAttribute("aria-label", s.name));
    Object.assign(root.dataset, { item: i, verdict, drawn: pair ? i : "", steps: sides.map((s) => s.step).join(" ") });
  }
  function turn() { sides.forEach((s) => { s.step = 0; }); draw(); }

  function received(message, buffers) {
    const pair = {};
    message.sides.forEach((part, k) => { pair[part.name] = { ...part, hu: int16(buffers[k]) }; });
    pairs.set(message.item, pair);
    if (message.item === get("item")) turn();
  }

  root.addEventListener("pointerdown", (e) => { if (!e.target.matches("button")) root.focus({ preventScroll: true }); });
  takeKeys(root, (key, target) => {
    if (target.matches("button") && (key === " " || key === "Enter" || key === "Tab")) return false;
    const windows = Object.values(get("windows"));
    if (VERDICTS[key]) judge(VERDICTS[key]);
    else if (key === "ArrowRight") go(1);
    else if (key === "ArrowLeft") go(-1);
    else if (key === "ArrowDown" || key === "ArrowUp") sides.forEach((s) => roll(s, key === "ArrowDown" ? 1 : -1));
    else if (key === "0") { sides.forEach((s) => { s.shows = null; }); turn(); }
    else if (windows[key - 1]) { sides.forEach((s) => { s.window = windows[key - 1]; }); draw(); }
    else return false;
  });
  model.on("change:item", turn);
  const changes = ["verdicts", "summary", "error"];
  changes.forEach((k) => model.on(`change:${k}`, draw));
  model.on("msg:custom", received);
  el.append(root);
  turn();
  return () => { model.off("change:item", turn); changes.forEach((k) => model.off(`change:${k}`, draw)); model.off("msg:custom", received); };
}

export default { render };
