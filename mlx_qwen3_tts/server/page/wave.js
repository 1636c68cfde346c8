// The picture of what has come: bars, those that were heard in another colour.

const BAR = 3; // pixels, with the gap
const STEP = 960; // samples of a value: 40 ms

export class Wave {
  #peaks = [];
  #read = 0; // parts
  #largest = 0; // of the step under way
  #steps = 0; // samples of the step under way

  constructor(canvas) {
    this.canvas = canvas;
  }

  clear() {
    this.#peaks = [];
    this.#read = this.#largest = this.#steps = 0;
  }

  // parts: all samples so far. heard: samples.
  draw(parts, heard) {
    for (; this.#read < parts.length; this.#read++) this.#add(parts[this.#read]);
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const [rest, accent] = [style.getPropertyValue("--rest"), style.getPropertyValue("--accent")];
    const bars = Math.floor(width / BAR);
    const perBar = Math.max(1, Math.ceil(this.#peaks.length / bars));
    for (let i = 0; i * perBar < this.#peaks.length; i++) {
      const peak = Math.max(...this.#peaks.slice(i * perBar, (i + 1) * perBar));
      const size = Math.max(2, peak ** 0.75 * height);
      context.fillStyle = i * perBar * STEP < heard ? accent : rest;
      context.fillRect(i * BAR, (height - size) / 2, BAR - 1, size);
    }
  }

  #add(samples) {
    for (const sample of samples) {
      this.#largest = Math.max(this.#largest, Math.abs(sample));
      if (++this.#steps === STEP) {
        this.#peaks.push(this.#largest / 32768);
        this.#largest = this.#steps = 0;
      }
    }
  }
}
