// The arithmetic of a result: what a threshold leaves, how much of each class there is, and its pixels' colours.

/**
 * A result of the server, decoded.
 * @typedef {object} Result
 * @property {number} width
 * @property {number} height
 * @property {{name: string, words: string[], colour: string}[]} classes
 * @property {Uint8Array | Uint16Array} labels - index of each pixel's class
 * @property {Uint8Array} confidence - of each pixel, 0 to 255
 * @property {number} none - the index that stands for no class
 * @property {Uint32Array} tally - see `tally`
 */

/** The colour of "no class" in a saved mask, as in those that `patchword segment` writes. */
export const NO_CLASS = [224, 224, 192];

/**
 * How many pixels of each class have each confidence, so that a threshold needs no look at the pixels.
 * @param {Uint8Array | Uint16Array} labels
 * @param {Uint8Array} confidence
 * @param {number} count - of classes
 * @returns {Uint32Array} [class][confidence], flat
 */
export function tally(labels, confidence, count) {
  const counts = new Uint32Array(count * 256);
  for (let at = 0; at < labels.length; at++) if (labels[at] < count) counts[labels[at] * 256 + confidence[at]]++;
  return counts;
}

/** The least confidence, 0 to 255, that a threshold of 0 to 1 lets through. */
export const least = threshold => Math.ceil(threshold * 255 - 1e-9);

/**
 * Share of the pixels and mean confidence of every class, and of what has none.
 * @param {Result} result
 * @param {number} threshold
 * @returns {{classes: {pixels: number, share: number, confidence: number | null}[], none: number}}
 */
export function shares({tally: counts, classes, labels}, threshold) {
  const first = least(threshold);
  let left = labels.length;
  const found = classes.map((_, index) => {
    let pixels = 0, sum = 0;
    for (let value = first; value < 256; value++) {
      pixels += counts[index * 256 + value];
      sum += value * counts[index * 256 + value];
    }
    left -= pixels;
    return {pixels, share: pixels / labels.length, confidence: pixels ? sum / pixels / 255 : null};
  });
  return {classes: found, none: left / labels.length};
}

/** The class of a pixel under a threshold; undefined where there is none. */
export function classAt({labels, confidence, classes}, at, threshold) {
  return confidence[at] < least(threshold) ? undefined : classes[labels[at]];
}

/**
 * The labels under a threshold.
 * @param {Result} result
 * @param {number} threshold
 */
export function thresholded({labels, confidence, none}, threshold) {
  const first = least(threshold);
  return labels.map((label, at) => confidence[at] < first ? none : label);
}

/**
 * The layer over a picture, RGBA; pixels without a class are hatched as in the overlays of `patchword segment`.
 * @param {Result} result
 * @param {object} view
 * @param {string[]} view.colours - #rrggbb of each class
 * @param {boolean[]} view.shown - whether each class is
 * @param {number} view.opacity
 * @param {number} view.threshold
 * @param {number} step - every how manieth row and column is painted
 * @returns {{width: number, height: number, pixels: Uint8ClampedArray}}
 */
export function painted({width, height, classes, labels, confidence}, {colours, shown, opacity, threshold}, step = 1) {
  const wide = Math.ceil(width / step), high = Math.ceil(height / step);
  const bytes = new ArrayBuffer(wide * high * 4);
  const pixels = new Uint32Array(bytes);
  const paint = Uint32Array.from(classes, (_, index) => shown[index] ? packed(rgb(colours[index]), Math.round(255 * opacity)) : 0);
  const [black, white] = [packed([0, 0, 0], 255), packed([255, 255, 255], 255)];
  const first = least(threshold);
  const line = Math.max(1, Math.round(Math.min(wide, high) / 250));
  for (let row = 0, to = 0; row < high; row++) {
    for (let column = 0, at = row * step * width; column < wide; column++, at += step, to++) {
      const label = labels[at];
      if (label < paint.length && confidence[at] >= first) pixels[to] = paint[label];
      else {
        const position = (row + column) % (8 * line);
        if (position < line) pixels[to] = black;
        else if (position < 2 * line) pixels[to] = white;
      }
    }
  }
  return {width: wide, height: high, pixels: new Uint8ClampedArray(bytes)};
}

/** @param {string} colour - #rrggbb */
export const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

const LITTLE = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
const packed = ([red, green, blue], alpha) =>
  (LITTLE ? alpha << 24 | blue << 16 | green << 8 | red : red << 24 | green << 16 | blue << 8 | alpha) >>> 0;

/**
 * COCO's run lengths of a class, down the columns, beginning with pixels outside.
 * @param {Uint8Array | Uint16Array} labels
 * @param {{width: number, height: number, index: number}} of
 */
export function runLengths(labels, {width, height, index}) {
  const counts = [];
  let inside = false, run = 0;
  for (let column = 0; column < width; column++) {
    for (let row = 0; row < height; row++, run++) {
      if ((labels[row * width + column] === index) === inside) continue;
      counts.push(run);
      [inside, run] = [!inside, 0];
    }
  }
  return {size: [height, width], counts: [...counts, run]};
}
