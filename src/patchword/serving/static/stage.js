// The picture with one or two results over it: the divider between them, and what is under the pointer or the cursor.

import {classAt, painted} from './masks.js';

const FINEST = 2048; // pixels of a layer's longer side that are painted; more would not be seen

/** Pictures of one size on each other, in an element that holds an <img>, two <canvas>, a slider and a cross. */
export class Stage {
  /**
   * @param {HTMLElement} place
   * @param {{pointed: (told: import('./stage.js').Pointed | null) => void, divided: (percent: number) => void}} told
   */
  constructor(place, told) {
    this.place = place;
    this.told = told;
    this.photograph = place.querySelector('img');
    this.layers = [...place.querySelectorAll('canvas')];
    this.divider = place.querySelector('[role=slider]');
    this.cross = place.querySelector('.cross');
    this.results = [];
    this.threshold = 0;
    this.at = null; // where the cursor is, as shares of width and height
    place.addEventListener('pointermove', event => this.point(event));
    place.addEventListener('pointerdown', event => this.point(event));
    place.addEventListener('pointerleave', () => this.told.pointed(null));
    place.addEventListener('keydown', event => { if (event.target === place) this.step(event); });
    place.addEventListener('blur', () => { this.cross.hidden = true; });
    this.divider.addEventListener('pointerdown', event => {
      this.divider.setPointerCapture(event.pointerId);
      this.divider.focus();
      event.preventDefault();
    });
    this.divider.addEventListener('pointermove', event => {
      if (this.divider.hasPointerCapture(event.pointerId)) this.divide(100 * this.share(event).x);
    });
    this.divider.addEventListener('keydown', event => this.slide(event));
  }

  /** Show a picture, without results at first. */
  async open(address, alt) {
    this.photograph.src = address;
    this.photograph.alt = alt;
    this.results = [];
    this.cross.hidden = true;
    for (const layer of this.layers) layer.hidden = true;
    await this.photograph.decode();
    const {naturalWidth: width, naturalHeight: height} = this.photograph;
    this.place.style.setProperty('--ratio', String(width / height));
    this.place.classList.toggle('coarse', Math.max(width, height) < 400); // squares show it better than blur
  }

  /**
   * Paint results over the picture.
   * @param {import('./masks.js').Result[]} results - one, or two to compare
   * @param {object[]} views - how each is painted, see `painted`
   * @param {number} divider - per cent
   */
  paint(results, views, divider) {
    this.results = results;
    this.threshold = views[0]?.threshold ?? 0;
    this.layers.forEach((layer, at) => {
      layer.hidden = !results[at];
      if (!results[at]) return;
      const {width, height, pixels} = painted(results[at], views[at], this.stepOf(results[at]));
      Object.assign(layer, {width, height});
      layer.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
    });
    this.divider.hidden = results.length < 2;
    this.place.classList.toggle('two', results.length > 1);
    this.setDivider(divider);
    if (!this.cross.hidden) this.tell(this.at, true);
  }

  stepOf = ({width, height}) => Math.max(1, Math.ceil(Math.max(width, height) / FINEST));

  setDivider(percent) {
    this.at100 = percent;
    this.place.style.setProperty('--at', `${percent}%`);
    this.divider.ariaValueNow = String(Math.round(percent));
    this.divider.ariaValueText = `${Math.round(percent)} per cent of the picture show the left result`;
  }

  divide(percent) {
    this.setDivider(Math.min(100, Math.max(0, percent)));
    this.told.divided(this.at100);
  }

  slide(event) {
    const far = event.shiftKey ? 10 : 2;
    const to = {ArrowLeft: this.at100 - far, ArrowDown: this.at100 - far, ArrowRight: this.at100 + far, ArrowUp: this.at100 + far,
      PageDown: this.at100 - 10, PageUp: this.at100 + 10, Home: 0, End: 100}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.divide(to);
  }

  share(event) {
    const box = this.photograph.getBoundingClientRect();
    return {x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height};
  }

  point(event) {
    const {x, y} = this.share(event);
    const inside = x >= 0 && x < 1 && y >= 0 && y < 1;
    if (inside && this.results.length) this.tell({x, y}, false);
    else this.told.pointed(null);
  }

  /** Arrows move the cursor by a hundredth of the picture, with Shift by a tenth. */
  step(event) {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!way || !this.results.length) return;
    event.preventDefault();
    const far = event.shiftKey ? 0.1 : 0.01;
    const [x, y] = [this.at?.x ?? 0.5, this.at?.y ?? 0.5].map((value, axis) => Math.min(0.9999, Math.max(0, value + way[axis] * far)));
    this.at = {x, y};
    this.cross.hidden = false;
    this.cross.style.left = `${100 * x}%`;
    this.cross.style.top = `${100 * y}%`;
    this.tell(this.at, true);
  }

  tell({x, y}, byKey) {
    const result = this.results.length > 1 && 100 * x >= this.at100 ? this.results[1] : this.results[0];
    const [column, row] = [Math.floor(x * result.width), Math.floor(y * result.height)];
    const at = row * result.width + column;
    this.told.pointed({column, row, byKey, result, found: classAt(result, at, this.threshold), score: result.confidence[at] / 255, x, y});
  }
}

/**
 * What is under the pointer or the cursor.
 * @typedef {object} Pointed
 * @property {number} column - of the pixel
 * @property {number} row
 * @property {number} x - where that is, as a share of the width
 * @property {number} y
 * @property {boolean} byKey - whether the cursor was moved by keys
 * @property {import('./masks.js').Result} result
 * @property {{name: string, colour: string} | undefined} found - undefined for no class
 * @property {number} score - confidence, 0 to 1
 */
