// Draws an image with its mask: opacity, classes, a divider, zoom and pan, and a pixel readout.

export class Viewer {
  constructor(stage, canvas, onPixel) {
    this.stage = stage;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onPixel = onPixel;
    this.opacity = 0.6;
    this.divider = 0;
    this.item = null;
    this.cursor = null;
    this.mask = document.createElement("canvas");
    this.listen();
    new ResizeObserver(() => this.fit()).observe(stage);
  }

  show(item) {
    this.item = item;
    this.cursor = null;
    this.stage.style.aspectRatio = `${item.width} / ${item.height}`;
    this.paintMask();
    this.fit();
  }

  // Colors of the visible classes; the labels are class indices, 255 is ignored.
  paintMask() {
    if (!this.item) return;
    const { labels, width, height, classes, visible } = this.item;
    this.mask.width = width;
    this.mask.height = height;
    const context = this.mask.getContext("2d");
    const pixels = context.createImageData(width, height);
    const table = new Uint32Array(256);
    const bytes = new Uint8Array(table.buffer);
    classes.forEach(({ color }, index) => {
      if (visible[index]) bytes.set([...color, 255], 4 * index);
    });
    const target = new Uint32Array(pixels.data.buffer);
    for (let i = 0; i < labels.length; i += 1) target[i] = table[labels[i]];
    context.putImageData(pixels, 0, 0);
    this.draw();
  }

  fit() {
    if (!this.item) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.stage.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.stage.clientHeight * ratio));
    const { width, height } = this.item;
    this.scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    this.left = (this.canvas.width - width * this.scale) / 2;
    this.top = (this.canvas.height - height * this.scale) / 2;
    this.draw();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (!this.item) return;
    const scale = Math.min(Math.max(this.scale * factor, 0.02), 64);
    this.left = x - (x - this.left) * (scale / this.scale);
    this.top = y - (y - this.top) * (scale / this.scale);
    this.scale = scale;
    this.draw();
  }

  draw() {
    if (!this.item) return;
    const { context, canvas, left, top, scale } = this;
    const { width, height, bitmap } = this.item;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = scale < 1;
    const size = [left, top, width * scale, height * scale];
    if (bitmap) context.drawImage(bitmap, ...size);
    context.save();
    context.beginPath();
    context.rect(left + width * scale * this.divider, top, width * scale * (1 - this.divider), height * scale);
    context.clip();
    context.globalAlpha = this.opacity;
    context.drawImage(this.mask, ...size);
    context.restore();
    if (this.divider > 0 && this.divider < 1) {
      context.fillStyle = "#fff";
      context.fillRect(left + width * scale * this.divider - 1, top, 2, height * scale);
    }
    if (this.cursor) {
      const [x, y] = this.cursor;
      context.lineWidth = 3;
      for (const [style, grow] of [["#000", 2], ["#fff", 0]]) {
        context.strokeStyle = style;
        context.strokeRect(left + x * scale - grow, top + y * scale - grow, scale + 2 * grow, scale + 2 * grow);
      }
    }
  }

  // The pixel at a position of the page, or null outside the image.
  pixelAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const x = Math.floor(((event.clientX - box.left) * ratio - this.left) / this.scale);
    const y = Math.floor(((event.clientY - box.top) * ratio - this.top) / this.scale);
    return x >= 0 && y >= 0 && x < this.item.width && y < this.item.height ? [x, y] : null;
  }

  moveCursor(dx, dy) {
    const { width, height } = this.item;
    const [x, y] = this.cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
    this.cursor = [
      Math.min(Math.max(x + dx, 0), width - 1),
      Math.min(Math.max(y + dy, 0), height - 1),
    ];
    this.draw();
    this.onPixel(this.cursor);
  }

  listen() {
    const { stage } = this;
    let drag = null;
    stage.addEventListener("pointerdown", (event) => {
      if (!this.item) return;
      drag = [event.clientX - this.left / this.ratio(), event.clientY - this.top / this.ratio()];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.item) return;
      if (drag && event.buttons) {
        this.left = (event.clientX - drag[0]) * this.ratio();
        this.top = (event.clientY - drag[1]) * this.ratio();
        this.draw();
      }
      this.onPixel(this.pixelAt(event));
    });
    stage.addEventListener("pointerup", () => { drag = null; });
    stage.addEventListener("pointerleave", () => this.item && this.onPixel(this.cursor));
    stage.addEventListener("wheel", (event) => {
      if (!this.item) return;
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) * this.ratio();
      const y = (event.clientY - box.top) * this.ratio();
      this.zoom(Math.exp(-event.deltaY / 400), x, y);
    }, { passive: false });
    stage.addEventListener("keydown", (event) => {
      if (!this.item || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 10 : 1;
      const actions = {
        ArrowLeft: () => this.moveCursor(-step, 0),
        ArrowRight: () => this.moveCursor(step, 0),
        ArrowUp: () => this.moveCursor(0, -step),
        ArrowDown: () => this.moveCursor(0, step),
        "+": () => this.zoom(1.25), "=": () => this.zoom(1.25),
        "-": () => this.zoom(0.8), 0: () => this.fit(),
      };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  ratio() {
    return this.canvas.width / this.canvas.getBoundingClientRect().width;
  }
}
