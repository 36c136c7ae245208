// Pictures that are larger than the server takes are made smaller before they are sent.

const CANVAS = 2 ** 24; // pixels that every browser can draw
const FORM = 4096; // bytes of a request around the file
const TRIES = 6;

/**
 * The size that a picture is sent in: its own, or the largest of its shape that keeps to the limits.
 * @param {{width: number, height: number}} size
 * @param {{pixels: number, side: number}} limits
 */
export function fitting({width, height}, {pixels, side}) {
  const scale = Math.min(1, side / Math.max(width, height), width * height > pixels ? Math.sqrt(Math.min(pixels, CANVAS) / (width * height)) : 1);
  const shorter = length => Math.max(1, Math.floor(length * scale));
  return scale < 1 ? {width: shorter(width), height: shorter(height)} : {width, height};
}

/**
 * A picture's file, or a smaller JPEG of it where the server would refuse it.
 * @param {HTMLImageElement} image - that shows it
 * @param {File} file
 * @param {{bytes: number, pixels: number, side: number}} limits
 * @returns {Promise<{file: File, size: {width: number, height: number} | null}>} `size` of a smaller one
 */
export async function shrunk(image, file, limits) {
  const own = {width: image.naturalWidth, height: image.naturalHeight};
  const most = limits.bytes - FORM;
  let size = fitting(own, limits);
  if (size.width === own.width && size.height === own.height && file.size <= most) return {file, size: null};
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const canvas = Object.assign(document.createElement('canvas'), size);
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#fff'; // behind what is transparent, as on the server
    pen.fillRect(0, 0, size.width, size.height);
    pen.drawImage(image, 0, 0, size.width, size.height);
    const blob = await new Promise(done => canvas.toBlob(done, 'image/jpeg', 0.95));
    if (!blob) break;
    if (blob.size <= most) return {file: new File([blob], file.name, {type: blob.type}), size};
    size = fitting(own, {...limits, pixels: 0.7 * size.width * size.height});
  }
  throw new Error(`${file.name} is larger than the server takes, and this browser cannot make it smaller.`);
}
