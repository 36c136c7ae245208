// PNG files of one channel, to the last bit: a canvas may change values, and knows no 16 bits.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0, PALETTE = 3;

/**
 * The values of a grey or palette picture of 8 or 16 bits, not interlaced.
 * @param {Uint8Array} bytes - the file
 * @returns {Promise<{width: number, height: number, values: Uint8Array | Uint16Array}>}
 */
export async function decode(bytes) {
  if (!SIGNATURE.every((value, at) => bytes[at] === value)) throw new Error('not a PNG file');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let width = 0, height = 0, depth = 0;
  for (let at = 8; at < bytes.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') {
      [width, height, depth] = [view.getUint32(at + 8), view.getUint32(at + 12), data[8]];
      if (![8, 16].includes(depth) || ![GREY, PALETTE].includes(data[9]) || data[12]) throw new Error('not such a PNG');
    }
    if (kind === 'IDAT') parts.push(data);
    at += length + 12;
  }
  const rows = unfiltered(await through(new DecompressionStream('deflate'), parts), {width: width * depth / 8, height, depth});
  return {width, height, values: depth === 8 ? rows : sixteen(rows)};
}

/**
 * A palette picture of 8 bits, or without a palette a grey one of 16.
 * @param {{width: number, height: number, values: Uint8Array | Uint16Array, palette?: number[][]}} picture
 * @returns {Promise<Uint8Array>}
 */
export async function encode({width, height, values, palette}) {
  const size = palette ? 1 : 2;
  const rows = new Uint8Array(height * (width * size + 1)); // each begins with 0: no filter
  for (let row = 0, at = 0; row < height; row++) {
    at++;
    for (let column = 0; column < width; column++) {
      const value = values[row * width + column];
      if (size === 2) rows[at++] = value >> 8;
      rows[at++] = value & 255;
    }
  }
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8 * size, palette ? PALETTE : GREY], 8);
  const chunks = [chunk('IHDR', head)];
  if (palette) chunks.push(chunk('PLTE', Uint8Array.from(palette.flat())));
  chunks.push(chunk('IDAT', await through(new CompressionStream('deflate'), [rows])), chunk('IEND', new Uint8Array()));
  return joined([Uint8Array.from(SIGNATURE), ...chunks]);
}

async function through(stream, parts) {
  const source = new Blob(parts).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(source).arrayBuffer());
}

/** Undo the filters of the rows, in place of which each value has what its neighbours foretell. */
function unfiltered(data, {width, height, depth}) {
  const rows = new Uint8Array(width * height);
  const step = depth / 8;
  for (let row = 0; row < height; row++) {
    const from = row * (width + 1), to = row * width;
    const filter = data[from];
    for (let column = 0; column < width; column++) {
      const left = column >= step ? rows[to + column - step] : 0;
      const above = row ? rows[to + column - width] : 0;
      const corner = row && column >= step ? rows[to + column - width - step] : 0;
      const expected = [0, left, above, (left + above) >> 1][filter] ?? nearest(left, above, corner);
      rows[to + column] = data[from + 1 + column] + expected;
    }
  }
  return rows;
}

/** Paeth's choice: that of the three that is nearest to left + above - corner. */
function nearest(left, above, corner) {
  const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

function sixteen(bytes) {
  const values = new Uint16Array(bytes.length / 2);
  for (let at = 0; at < values.length; at++) values[at] = bytes[2 * at] << 8 | bytes[2 * at + 1];
  return values;
}

const TABLE = Uint32Array.from({length: 256}, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? value >>> 1 ^ 0xedb88320 : value >>> 1;
  return value;
});

function chunk(kind, data) {
  const whole = new Uint8Array(data.length + 12);
  const view = new DataView(whole.buffer);
  view.setUint32(0, data.length);
  whole.set([...kind].map(letter => letter.charCodeAt(0)), 4);
  whole.set(data, 8);
  let sum = 0xffffffff;
  for (const byte of whole.subarray(4, data.length + 8)) sum = TABLE[(sum ^ byte) & 255] ^ sum >>> 8;
  view.setUint32(data.length + 8, ~sum);
  return whole;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
