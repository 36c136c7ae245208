// The photograph with its masks: zoom and pan, what is pointed at, clicks, boxes and the brush.

import {bitmapOf, covers, stretches} from './rle.js';

const CLOSEST = 40, STEP = 1.25;
const SELECTED = 115, OTHERS = 105, QUIET = 40; // of 255: how strongly masks are painted

/**
 * @typedef {object} Mask
 * @property {string} key
 * @property {number[]} runs
 * @property {number[]} colour - red, green, blue
 * @property {number} area
 * @property {boolean} hidden
 */

/** A photograph in a window that can be moved and enlarged. */
export class Stage {
  /**
   * @param {HTMLElement} place - holds a box with an <img> and a <canvas>, and a cross
   * @param {{picked: (key: string | null) => void, clicked: (point: object) => void, boxed: (box: number[]) => void,
   *   stroked: (bitmap: Uint8Array) => void, zoomed: (scale: number) => void}} told
   */
  constructor(place, told) {
    this.place = place;
    this.told = told;
    this.inner = place.querySelector('.inner');
    this.photograph = place.querySelector('img');
    this.layers = [...place.querySelectorAll('canvas')]; // all masks; above them the one that is selected or drawn
    this.cross = place.querySelector('.cross');
    this.rubber = place.querySelector('.rubber');
    this.ring = place.querySelector('.ring');
    [this.context, this.above] = this.layers.map(layer => layer.getContext('2d'));
    Object.assign(this, {width: 1, height: 1, masks: [], selected: null, draft: null, draftColour: [255, 255, 255],
      points: [], tool: 'select', brush: 12, result: null, shown: 'masks', x: 0, y: 0, scale: 1, cursor: null});
    this.pointers = new Map();
    this.act = null; // what a pressed pointer does
    place.addEventListener('pointerdown', event => this.down(event));
    place.addEventListener('pointermove', event => this.move(event));
    for (const end of ['pointerup', 'pointercancel']) place.addEventListener(end, event => this.up(event));
    place.addEventListener('pointerleave', () => { this.ring.hidden = true; });
    place.addEventListener('wheel', event => this.wheel(event), {passive: false});
    place.addEventListener('keydown', event => { if (event.target === place) this.key(event); });
    place.addEventListener('blur', () => { this.cross.hidden = true; });
    new ResizeObserver(() => this.fit()).observe(place);
  }

  /** Show a photograph of this size. */
  async open(address, alt, {width, height}) {
    Object.assign(this, {width, height, result: null, draft: null, points: [], cursor: null});
    for (const layer of this.layers) Object.assign(layer, {width, height});
    for (const layer of [this.inner, this.photograph, ...this.layers]) {
      layer.style.width = `${width}px`;
      layer.style.height = `${height}px`;
    }
    this.photograph.alt = alt;
    this.photograph.src = address;
    this.fit();
    await this.photograph.decode();
  }

  /** @param {Mask[]} masks */
  show(masks, selected) {
    this.masks = [...masks].sort((one, other) => other.area - one.area); // small ones are painted last
    this.selected = selected;
    this.paint();
  }

  fit() {
    const {clientWidth, clientHeight} = this.place;
    this.least = Math.min(clientWidth / this.width, clientHeight / this.height);
    this.scale = this.least;
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.place_();
  }

  /** Enlarge by a factor around a point of the window, by default its middle. */
  zoom(factor, at = {x: this.place.clientWidth / 2, y: this.place.clientHeight / 2}) {
    const scale = Math.min(CLOSEST, Math.max(this.least, this.scale * factor));
    this.x = at.x - (at.x - this.x) * scale / this.scale;
    this.y = at.y - (at.y - this.y) * scale / this.scale;
    this.scale = scale;
    this.place_();
  }

  pan(right, down) {
    this.x += right;
    this.y += down;
    this.place_();
  }

  place_() {
    const room = (inside, outside, at) => inside <= outside ? (outside - inside) / 2 : Math.min(0, Math.max(outside - inside, at));
    this.x = room(this.width * this.scale, this.place.clientWidth, this.x);
    this.y = room(this.height * this.scale, this.place.clientHeight, this.y);
    this.inner.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.inner.classList.toggle('close', this.scale > 2);
    this.told.zoomed(this.scale / this.least);
    this.marks();
  }

  /** Paint what there is to see over the photograph. */
  paint() {
    const {context, width, height} = this;
    for (const layer of [context, this.above]) layer.clearRect(0, 0, width, height);
    if (this.shown === 'photograph') return;
    if (this.shown === 'result' && this.result) {
      context.globalAlpha = 0.6;
      context.drawImage(this.result, 0, 0);
      context.globalAlpha = 1;
      return;
    }
    const picture = context.createImageData(width, height);
    const pixels = picture.data;
    const drawing = this.draft !== null;
    for (const mask of this.masks) {
      if (mask.key === this.selected || mask.hidden) continue;
      const [red, green, blue] = mask.colour;
      const alpha = drawing || this.selected !== null ? QUIET : OTHERS;
      stretches(mask.runs, height, (x, y, count) => {
        for (let at = 4 * (y * width + x), row = 0; row < count; row++, at += 4 * width) {
          pixels[at] = red;
          pixels[at + 1] = green;
          pixels[at + 2] = blue;
          pixels[at + 3] = alpha;
        }
      });
    }
    context.putImageData(picture, 0, 0);
    const chosen = this.masks.find(mask => mask.key === this.selected);
    if (drawing) this.paintBitmap(this.draft, this.draftColour);
    else if (chosen) this.paintBitmap(bitmapOf(chosen.runs, this), chosen.colour);
    this.marks();
  }

  /** One mask strongly, with an edge that shows on any ground; the whole, or what is within x0, y0, x1, y1. */
  paintBitmap(bitmap, [red, green, blue], [x0, y0, x1, y1] = [0, 0, this.width, this.height]) {
    const {width, height} = this;
    const edge = Math.max(1, Math.round(1.5 / this.scale));
    const out = (x, y) => x < 0 || y < 0 || x >= width || y >= height || !bitmap[y * width + x];
    const [left, top] = [Math.max(0, Math.floor(x0) - edge), Math.max(0, Math.floor(y0) - edge)];
    const [right, bottom] = [Math.min(width, Math.ceil(x1) + edge), Math.min(height, Math.ceil(y1) + edge)];
    if (right <= left || bottom <= top) return;
    const picture = this.above.createImageData(right - left, bottom - top);
    const pixels = picture.data;
    for (let y = top, at = 0; y < bottom; y++) {
      for (let x = left; x < right; x++, at += 4) {
        if (!bitmap[y * width + x]) continue;
        const border = out(x - edge, y) || out(x + edge, y) || out(x, y - edge) || out(x, y + edge);
        pixels[at] = border ? 255 : red;
        pixels[at + 1] = border ? 255 : green;
        pixels[at + 2] = border ? 255 : blue;
        pixels[at + 3] = border ? 255 : SELECTED;
      }
    }
    this.above.putImageData(picture, left, top);
  }

  /** The points that were clicked, and the cursor of the keyboard. */
  marks() {
    this.place.querySelectorAll('.point').forEach(each => each.remove());
    for (const point of this.points) {
      const mark = document.createElement('span');
      mark.className = `point ${point.inside ? 'in' : 'out'}`;
      mark.textContent = point.inside ? '+' : '−';
      this.put(mark, point);
      this.place.append(mark);
    }
    if (this.cursor) this.put(this.cross, this.cursor);
  }

  put(element, {x, y}) {
    element.style.left = `${this.x + x * this.scale}px`;
    element.style.top = `${this.y + y * this.scale}px`;
  }

  /** Where an event is, in pixels of the photograph. */
  at(event) {
    const box = this.place.getBoundingClientRect();
    return {x: (event.clientX - box.left - this.x) / this.scale, y: (event.clientY - box.top - this.y) / this.scale};
  }

  within = ({x, y}) => x >= 0 && y >= 0 && x < this.width && y < this.height;

  down(event) {
    if (event.button > 1) return;
    this.pointers.set(event.pointerId, event);
    this.place.setPointerCapture(event.pointerId);
    const at = this.at(event);
    if (this.pointers.size > 1) {
      if (this.act?.kind === 'stroke') this.draft.set(this.act.before);
      this.act = {kind: 'pinch', was: this.spread()};
      this.paint();
    } else if (event.button === 1 || event.altKey) this.act = {kind: 'pan', moved: true};
    else if (this.tool === 'brush' || this.tool === 'erase') {
      this.act = {kind: 'stroke', before: this.draft.slice(), last: at};
      this.dab(at, at);
    } else if (this.tool === 'box') this.act = {kind: 'box', from: at};
    else this.act = {kind: 'pan', from: at, moved: false};
    event.preventDefault();
    this.place.focus({preventScroll: true});
  }

  move(event) {
    const at = this.at(event);
    this.ringAt(event);
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.act) return;
    const right = event.clientX - before.clientX, down = event.clientY - before.clientY;
    if (this.act.kind === 'pan') {
      this.act.travelled = (this.act.travelled ?? 0) + Math.hypot(right, down);
      this.act.moved ||= this.act.travelled > 5;
      if (this.act.moved) this.pan(right, down);
    }
    this.pointers.set(event.pointerId, event);
    if (this.act.kind === 'pinch') {
      const now = this.spread();
      this.zoom(now.far / this.act.was.far, now.middle);
      this.pan(now.middle.x - this.act.was.middle.x, now.middle.y - this.act.was.middle.y);
      this.act.was = now;
    } else if (this.act.kind === 'stroke') {
      this.dab(this.act.last, at);
      this.act.last = at;
    } else if (this.act.kind === 'box') this.stretch(this.act.from, at);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size || !this.act) return;
    const act = this.act, at = this.at(event);
    this.act = null;
    this.rubber.hidden = true;
    if (event.type === 'pointercancel') return;
    if (act.kind === 'stroke') this.told.stroked(this.draft);
    else if (act.kind === 'box') this.told.boxed(this.boxOf(act.from, at));
    else if (act.kind === 'pan' && !act.moved && this.within(at)) this.click(at, !event.shiftKey);
  }

  /** A click in a photograph, or Space at the cursor. */
  click(at, inside) {
    const x = Math.floor(at.x), y = Math.floor(at.y);
    if (this.tool === 'point') {
      this.told.clicked({x: x + 0.5, y: y + 0.5, inside});
      return;
    }
    const under = this.masks.filter(mask => !mask.hidden && covers(mask.runs, this.height, x, y)).reverse();
    const next = under[(under.findIndex(mask => mask.key === this.selected) + 1) % Math.max(1, under.length)];
    this.told.picked(next?.key ?? null); // again at the same place: the one below
  }

  spread() {
    const box = this.place.getBoundingClientRect();
    const [one, other] = this.pointers.values();
    return {
      far: Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY)),
      middle: {x: (one.clientX + other.clientX) / 2 - box.left, y: (one.clientY + other.clientY) / 2 - box.top},
    };
  }

  /** Draw or erase along a line. */
  dab(from, to) {
    const radius = this.brush / 2, value = this.tool === 'brush' ? 1 : 0;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, radius / 2)));
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [from.x + (to.x - from.x) * step / steps, from.y + (to.y - from.y) * step / steps];
      for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(this.height, Math.ceil(y + radius)); row++) {
        for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(this.width, Math.ceil(x + radius)); column++) {
          if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= Math.max(0.71, radius)) this.draft[row * this.width + column] = value;
        }
      }
    }
    const [x0, y0, x1, y1] = this.dirty ?? [Infinity, Infinity, -Infinity, -Infinity];
    this.dirty = [Math.min(x0, from.x - radius, to.x - radius), Math.min(y0, from.y - radius, to.y - radius),
      Math.max(x1, from.x + radius, to.x + radius), Math.max(y1, from.y + radius, to.y + radius)];
    this.later ??= requestAnimationFrame(() => { // only what changed: photographs may be large
      if (this.shown === 'masks' && this.draft) this.paintBitmap(this.draft, this.draftColour, this.dirty);
      this.later = this.dirty = null;
    });
  }

  boxOf(from, to) {
    const clamp = (value, most) => Math.min(most, Math.max(0, value));
    const [x0, x1] = [from.x, to.x].map(x => clamp(x, this.width)).sort((one, other) => one - other);
    const [y0, y1] = [from.y, to.y].map(y => clamp(y, this.height)).sort((one, other) => one - other);
    return [x0, y0, x1, y1];
  }

  stretch(from, to) {
    const [x0, y0, x1, y1] = this.boxOf(from, to);
    this.put(this.rubber, {x: x0, y: y0});
    this.rubber.style.width = `${(x1 - x0) * this.scale}px`;
    this.rubber.style.height = `${(y1 - y0) * this.scale}px`;
    this.rubber.hidden = false;
  }

  /** The size of the brush under the pointer. */
  ringAt(event) {
    this.ring.hidden = !['brush', 'erase'].includes(this.tool);
    if (this.ring.hidden) return;
    this.put(this.ring, this.at(event));
    const across = Math.max(3, this.brush * this.scale);
    Object.assign(this.ring.style, {width: `${across}px`, height: `${across}px`});
  }

  wheel(event) {
    event.preventDefault();
    const box = this.place.getBoundingClientRect();
    this.zoom(STEP ** (-event.deltaY / 100), {x: event.clientX - box.left, y: event.clientY - box.top});
  }

  /** Arrows move a cursor, with Shift by a pixel; Space clicks there, with Shift outside the thing. */
  key(event) {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (way) {
      event.preventDefault();
      event.stopPropagation();
      const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(this.width, this.height) / 40));
      const from = this.cursor ?? {x: this.width / 2, y: this.height / 2};
      const [x, y] = [from.x + way[0] * far, from.y + way[1] * far];
      this.cursor = {x: Math.min(this.width - 1, Math.max(0, x)), y: Math.min(this.height - 1, Math.max(0, y))};
      this.cross.hidden = false;
      this.marks();
    } else if (event.key === ' ' && this.cursor) {
      event.preventDefault();
      event.stopPropagation();
      if (this.tool === 'brush' || this.tool === 'erase') {
        this.dab(this.cursor, this.cursor);
        this.told.stroked(this.draft);
      } else this.click(this.cursor, !event.shiftKey);
    }
  }
}
