// One CT slice on a canvas: int16 HU in, windowed here. Boxes are in pixels of the slice, and 0 is the centre of the first pixel.
const MIN_BOX = 3; // CSS px: a smaller box is drawn this large

function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) k in e ? (e[k] = v) : e.setAttribute(k, v);
  e.append(...children);
  return e;
}

const int16 = (view) => new Int16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)); // a copy begins where an int16 may

// Keys belong to the element while it has the focus: without this, JupyterLab takes "a" for "new cell" and "r" for "raw cell".
function takeKeys(root, act) {
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("select, input[type=text]")) return;
    e.stopPropagation();
    if (act(e.key, e.target) !== false) e.preventDefault();
  });
}

class Pane {
  constructor({ width, height, onWheel = () => {}, onWindow = () => {}, onHover = () => {} }) {
    Object.assign(this, { most: [width, height], hu: null, boxes: [], window: [50, 400], zoom: 1, middle: [0.5, 0.5], note: "" });
    this.canvas = element("canvas", { className: "meld-ct", role: "img" });
    this.picture = document.createElement("canvas");
    const c = this.canvas;
    c.addEventListener("wheel", (e) => {
      e.preventDefault(); e.stopPropagation();
      if (e.ctrlKey || e.shiftKey) this.zoomAt(e, (e.deltaY || e.deltaX) < 0 ? 1.25 : 0.8);
      else { // a notch of a wheel is a step; a touchpad's many small ones add up to it
        this.rolled = (this.rolled ?? 0) + e.deltaY * (e.deltaMode ? 33 : 1);
        if (Math.abs(this.rolled) >= 50) { onWheel(Math.sign(this.rolled)); this.rolled = 0; }
      }
    }, { passive: false });
    c.addEventListener("pointerdown", (e) => { this.drag = [e.clientX, e.clientY, ...this.window, ...this.middle]; c.setPointerCapture(e.pointerId); });
    c.addEventListener("pointerup", () => { this.drag = null; });
    c.addEventListener("pointermove", (e) => {
      onHover(...this.pixel(e));
      if (!this.drag) return;
      const [x0, y0, centre, span, mx, my] = this.drag, dx = e.clientX - x0, dy = e.clientY - y0;
      if (e.shiftKey) { this.middle = [mx - dx / (this.css[0] * this.zoom), my - dy / (this.css[1] * this.zoom)]; this.draw(); }
      else if (Math.abs(dx) + Math.abs(dy) > 2) onWindow([Math.round(centre + dy * 2), Math.max(1, Math.round(span + dx * 4))]);
    });
    c.addEventListener("pointerleave", () => onHover(null, null));
    this.fit([1, 1], [1, 1]);
  }

  // shape [x,y] in pixels, spacing [x,y] in mm: the picture is as wide and high as the body is, whatever the pixels are
  fit(shape, spacing) {
    Object.assign(this, { shape, spacing, hu: null, zoom: 1, middle: [0.5, 0.5] });
    const mm = [shape[0] * spacing[0], shape[1] * spacing[1]], scale = Math.min(this.most[0] / mm[0], this.most[1] / mm[1]);
    this.css = mm.map((v) => Math.max(1, Math.round(v * scale)));
    const dense = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = this.css.map((v) => Math.round(v * dense));
    [this.canvas.style.width, this.canvas.style.height] = this.css.map((v) => v + "px");
    [this.picture.width, this.picture.height] = shape;
  }

  scale() { return [0, 1].map((k) => (this.css[k] * this.zoom) / this.shape[k]); } // CSS px a pixel
  place(x, y) { // pixel coordinates, 0 is the first one's centre -> CSS px
    const s = this.scale();
    return [[x, 0], [y, 1]].map(([v, k]) => (v + 0.5 - this.middle[k] * this.shape[k]) * s[k] + this.css[k] / 2);
  }
  pixel(e) { // the pixel under the pointer
    const s = this.scale();
    return [[e.offsetX, 0], [e.offsetY, 1]].map(([v, k]) => Math.floor((v - this.css[k] / 2) / s[k] + this.middle[k] * this.shape[k]));
  }
  at(x, y) { return this.hu && x !== null && x >= 0 && y >= 0 && x < this.shape[0] && y < this.shape[1] ? this.hu[y * this.shape[0] + x] : null; } // HU
  zoomAt(e, factor) { // what is under the pointer stays there
    const to = Math.min(16, Math.max(1, this.zoom * factor)), at = [e.offsetX / this.css[0] - 0.5, e.offsetY / this.css[1] - 0.5];
    this.middle = to === 1 ? [0.5, 0.5] : this.middle.map((m, k) => m + at[k] / this.zoom - at[k] / to);
    this.zoom = to;
    this.draw();
  }

  draw() {
    const g = this.canvas.getContext("2d"), dense = this.canvas.width / this.css[0], [W, H] = this.css;
    g.setTransform(dense, 0, 0, dense, 0, 0);
    g.fillStyle = "#000"; g.fillRect(0, 0, W, H);
    g.font = "12px sans-serif"; g.textBaseline = "middle"; g.textAlign = "center";
    if (!this.hu) { g.fillStyle = "#ccc"; g.fillText(this.note, W / 2, H / 2); return; }
    const [n, m] = this.shape, image = new ImageData(n, m), low = this.window[0] - this.window[1] / 2, gain = 255 / this.window[1];
    const grey = new Uint32Array(image.data.buffer);
    for (let i = 0; i < grey.length; i++) {
      const v = Math.max(0, Math.min(255, Math.round((this.hu[i] - low) * gain)));
      grey[i] = 0xff000000 | (v << 16) | (v << 8) | v;
    }
    this.picture.getContext("2d").putImageData(image, 0, 0);
    const [sx, sy] = this.scale(), [x0, y0] = this.place(-0.5, -0.5);
    g.imageSmoothingEnabled = true; g.imageSmoothingQuality = "high";
    g.drawImage(this.picture, x0, y0, n * sx, m * sy);
    for (const b of this.boxes) this.drawBox(g, b);
    this.drawSides(g, W, H);
  }

  drawBox(g, b) {
    let [x1, y1] = this.place(b.x1, b.y1), [x2, y2] = this.place(b.x2, b.y2);
    const [gx, gy] = [x2 - x1, y2 - y1].map((size) => Math.max(0, (MIN_BOX - size) / 2));
    x1 -= gx; x2 += gx; y1 -= gy; y2 += gy;
    const frame = (colour, width, alpha, dash) => {
      Object.assign(g, { strokeStyle: colour, lineWidth: width, globalAlpha: alpha });
      g.setLineDash(dash); g.strokeRect(x1, y1, x2 - x1, y2 - y1);
    };
    frame("#000", b.strong ? 4.5 : 3, 0.55, []); // a dark rim: seen on bone too
    frame(b.colour, b.strong ? 2.5 : 1.5, 1, b.dashed ? [5, 4] : []);
    g.setLineDash([]);
    const write = (text, y) => {
      Object.assign(g, { textAlign: "left", lineWidth: 3, strokeStyle: "#000", fillStyle: b.colour });
      const x = Math.max(2, Math.min(x1, this.css[0] - g.measureText(text).width - 2));
      g.strokeText(text, x, y); g.fillText(text, x, y);
    };
    if (b.above) write(b.above, y1 > 16 ? y1 - 8 : y1 + 9);
    if (b.below) write(b.below, y2 < this.css[1] - 16 ? y2 + 10 : y2 - 9);
  }

  drawSides(g, W, H) { // radiological: the patient's right is on the left; and a bar of 1, 2 or 5 times a power of ten mm
    const write = (text, x, y, align) => { g.textAlign = align; g.lineWidth = 3; g.strokeStyle = "#000"; g.fillStyle = "#ffe9a8"; g.strokeText(text, x, y); g.fillText(text, x, y); };
    g.font = "bold 13px sans-serif";
    write("R", 6, H / 2, "left"); write("L", W - 6, H / 2, "right"); write("A", W / 2, 10, "center"); write("P", W / 2, H - 10, "center");
    const mm = W / (this.scale()[0] / this.spacing[0]), power = 10 ** Math.floor(Math.log10(mm / 3)), bar = Math.max(...[1, 2, 5].map((k) => k * power).filter((v) => v <= mm / 3));
    const length = (bar * W) / mm;
    g.fillStyle = "#000"; g.fillRect(7, H - 12, length + 2, 5); g.fillStyle = "#ffe9a8"; g.fillRect(8, H - 11, length, 3);
    g.font = "11px sans-serif"; write(`${bar} mm`, 8, H - 20, "left");
    g.font = "12px sans-serif";
  }
}
