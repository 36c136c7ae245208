// COCO's run lengths, down the columns: what masks are sent in.

/**
 * The runs of a mask, outside first; read from COCO's compressed text.
 * @param {string} text
 * @returns {number[]}
 */
export function runsOf(text) {
  const runs = [];
  let value = 0, shift = 0;
  for (let at = 0; at < text.length; at++) {
    const bits = text.charCodeAt(at) - 48;
    value += (bits & 31) * 2 ** shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16) value -= 2 ** shift;
    runs.push(value + (runs.length > 2 ? runs[runs.length - 2] : 0));
    value = shift = 0;
  }
  return runs;
}

/**
 * Do something with every stretch of a mask within one column.
 * @param {number[]} runs
 * @param {number} height
 * @param {(x: number, y: number, count: number) => void} act
 */
export function stretches(runs, height, act) {
  let at = 0;
  runs.forEach((run, number) => {
    let left = number % 2 ? run : 0;
    let place = at;
    while (left > 0) {
      const y = place % height;
      const count = Math.min(left, height - y);
      act((place - y) / height, y, count);
      place += count;
      left -= count;
    }
    at += run;
  });
}

/** A mask as one byte a pixel, row after row. */
export function bitmapOf(runs, {width, height}) {
  const bitmap = new Uint8Array(width * height);
  stretches(runs, height, (x, y, count) => {
    for (let row = y; row < y + count; row++) bitmap[row * width + x] = 1;
  });
  return bitmap;
}

/** Whether a mask covers a pixel. */
export function covers(runs, height, x, y) {
  const place = x * height + y;
  let end = 0;
  for (let number = 0; number < runs.length; number++) {
    end += runs[number];
    if (place < end) return number % 2 === 1;
  }
  return false;
}

/** A bitmap as uncompressed run lengths, as the server takes them. */
export function encode(bitmap, {width, height}) {
  const counts = [];
  let inside = 0, run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++, run++) {
      if (bitmap[y * width + x] === inside) continue;
      counts.push(run);
      inside ^= 1;
      run = 0;
    }
  }
  counts.push(run);
  return {size: [height, width], counts};
}
