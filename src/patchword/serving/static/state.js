// The view as a link, as Python and as words: what a person chose, without the picture.

/**
 * @typedef {object} View
 * @property {string[]} classes - "name; synonym; ..."
 * @property {string[]} background - words of what is none of the classes
 * @property {string} model - id of a model
 * @property {string} compare - id of the model on the divider's right; empty for none
 * @property {string} refine - what sharpens edges; empty for the model's own
 * @property {number} opacity
 * @property {number} threshold
 * @property {number} divider - where it is, in per cent
 * @property {string[]} hidden - names of classes
 * @property {string} only - name of the one class that is shown; empty for all
 * @property {Record<string, string>} colours - #rrggbb, by name of a class
 * @property {string} example - id of the example picture; empty for a picture of one's own
 */

/** @type {View} */
export const FIRST = {
  classes: [], background: [], model: '', compare: '', refine: '', opacity: 0.55, threshold: 0, divider: 50,
  hidden: [], only: '', colours: {}, example: '',
};
const LISTS = ['classes', 'background', 'hidden'];
const TEXTS = ['model', 'compare', 'refine', 'only', 'example'];
const NUMBERS = {opacity: [0, 1], threshold: [0, 1], divider: [0, 100]};

/**
 * The view as the part of an address after #; what is as at first is left out.
 * @param {View} view
 */
export function toHash(view) {
  const parts = new URLSearchParams();
  for (const name of LISTS) for (const entry of view[name]) parts.append(name, entry);
  for (const name of [...TEXTS, ...Object.keys(NUMBERS)]) if (view[name] !== FIRST[name]) parts.set(name, view[name]);
  for (const [name, colour] of Object.entries(view.colours)) parts.append('colour', `${colour}${name}`);
  return parts.toString();
}

/**
 * What a link says; nothing that it does not, and nothing that cannot be.
 * @param {string} hash - with or without #
 * @returns {Partial<View>}
 */
export function fromHash(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ''));
  /** @type {any} */
  const found = {};
  for (const name of LISTS) if (parts.has(name)) found[name] = parts.getAll(name).filter(entry => entry.trim());
  for (const name of TEXTS) if (parts.has(name)) found[name] = parts.get(name);
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = parseFloat(parts.get(name) ?? '');
    if (value >= low && value <= high) found[name] = value;
  }
  const colours = parts.getAll('colour').map(entry => /^(#[\da-f]{6})(.+)$/i.exec(entry)).filter(Boolean);
  if (colours.length) found.colours = Object.fromEntries(colours.map(([, colour, name]) => [name, colour.toLowerCase()]));
  return found;
}

/**
 * The classes in what somebody typed or pasted: commas and lines part classes, semicolons the words of one.
 * @param {string} text
 */
export function entriesOf(text) {
  return text.split(/[,\n]/).map(entry => entry.split(';').map(word => word.trim()).filter(Boolean).join('; ')).filter(Boolean);
}

/** The name of a class, which is the first of its words. */
export const nameOf = entry => entry.split(';')[0].trim();

/**
 * The request to segment what the server remembers, or its settings in Python.
 * @param {View} view
 * @returns {Record<string, any>}
 */
export const settingsOf = view => view.refine ? {refine: view.refine} : {};

/**
 * Three lines that give the same mask.
 * @param {View} view
 * @param {{address: string, file: string, first: string}} of - `first`: id of the model that is taken where none is named
 */
export function python(view, {address, file, first}) {
  const settings = {...settingsOf(view), ...(view.threshold && {threshold: view.threshold})};
  const more = [
    ['classes', list(view.classes)],
    view.background.length && ['background', list(view.background)],
    view.model !== first && ['model', quoted(view.model)],
    Object.keys(settings).length && ['settings', `{${Object.entries(settings).map(([name, value]) =>
      `${quoted(name)}: ${typeof value === 'number' ? value : quoted(value)}`).join(', ')}}`],
  ].filter(Boolean).map(([name, value]) => `${name}=${value}`);
  return [
    'import patchword as pw',
    `client = pw.Client(${quoted(address)})`,
    `result = client.segment(${[quoted(file), ...more].join(', ')})`,
  ].join('\n');
}

const list = entries => `[${entries.map(quoted).join(', ')}]`;
const quoted = text => JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029]/g,
  letter => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`);
