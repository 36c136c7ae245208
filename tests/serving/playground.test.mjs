// The arithmetic of the playground, without a browser. tests/serving/test_static.py puts this file beside the modules.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {classAt, painted, runLengths, shares, tally, thresholded} from './masks.js';
import {decode, encode} from './png.js';
import {fitting} from './shrink.js';
import {entriesOf, FIRST, fromHash, nameOf, python, toHash} from './state.js';

const classes = [{name: 'car', words: ['car'], colour: '#ff0000'}, {name: 'boat', words: ['boat', 'ship'], colour: '#0000ff'}];

/** Four pixels wide and two high. */
function result() {
  const labels = Uint8Array.of(0, 0, 0, 1, 1, 1, 255, 0);
  const confidence = Uint8Array.of(255, 128, 127, 51, 204, 102, 0, 127);
  return {width: 4, height: 2, classes, labels, confidence, none: 255, tally: tally(labels, confidence, 2)};
}

test('shares are those of the pixels that a threshold leaves', () => {
  const whole = shares(result(), 0);
  assert.deepEqual(whole.classes.map(each => each.share), [0.5, 0.375]);
  assert.equal(whole.none, 0.125);
  assert.ok(Math.abs(whole.classes[1].confidence - (51 + 204 + 102) / 3 / 255) < 1e-12);
  for (const threshold of [0, 0.2, 0.4, 0.5, 0.502, 0.9, 1]) {
    const found = shares(result(), threshold);
    const {labels, confidence} = result();
    found.classes.forEach(({pixels, confidence: mean}, index) => {
      const left = [...labels.keys()].filter(at => labels[at] === index && confidence[at] / 255 >= threshold - 1e-12);
      assert.equal(pixels, left.length);
      if (left.length) assert.ok(Math.abs(mean - left.reduce((sum, at) => sum + confidence[at], 0) / left.length / 255) < 1e-12);
      else assert.equal(mean, null);
    });
    assert.ok(Math.abs(found.none + found.classes[0].share + found.classes[1].share - 1) < 1e-12);
  }
});

test('a pixel, the saved mask and the picture agree on the threshold', () => {
  const found = result();
  const view = {colours: ['#ff0000', '#0000ff'], shown: [true, false], opacity: 0.4, threshold: 0.5};
  const labels = thresholded(found, 0.5);
  assert.deepEqual([...labels], [0, 0, 255, 255, 1, 255, 255, 255]);
  const {pixels} = painted(found, view);
  labels.forEach((label, at) => {
    assert.equal(classAt(found, at, 0.5)?.name, classes[label]?.name);
    const pixel = [...pixels.slice(4 * at, 4 * at + 4)];
    if (label === 0) assert.deepEqual(pixel, [255, 0, 0, 102]);
    if (label === 1) assert.deepEqual(pixel, [0, 0, 0, 0]);
    if (label === 255) assert.ok([0, 255].includes(pixel[0]) && pixel[0] === pixel[2]);
  });
  const small = painted(found, view, 2);
  assert.deepEqual([small.width, small.height], [2, 1]);
  assert.deepEqual([...small.pixels.slice(0, 4)], [...pixels.slice(0, 4)]);
  assert.deepEqual([...small.pixels.slice(4, 7)], [255, 255, 255]);
});

test('run lengths go down the columns and begin outside', () => {
  const {labels, width, height} = result();
  assert.deepEqual(runLengths(labels, {width, height, index: 0}), {size: [2, 4], counts: [0, 1, 1, 1, 1, 1, 2, 1]});
  assert.deepEqual(runLengths(labels, {width, height, index: 7}), {size: [2, 4], counts: [8]});
});

test('masks of 8 and of 16 bits come back as they were', async () => {
  const few = Uint8Array.from({length: 35}, (_, at) => at * 7 % 256);
  const many = Uint16Array.from({length: 35}, (_, at) => at * 1931 % 65536);
  const palette = Array.from({length: 256}, (_, at) => [at, 255 - at, 0]);
  assert.deepEqual(await decode(await encode({width: 7, height: 5, values: few, palette})), {width: 7, height: 5, values: few});
  assert.deepEqual(await decode(await encode({width: 5, height: 7, values: many})), {width: 5, height: 7, values: many});
  await assert.rejects(decode(Uint8Array.of(1, 2, 3)), /not a PNG/);
});

test('every filter of a PNG is undone', async () => {
  for (const {bytes, width, height, values} of JSON.parse(process.env.FILTERED)) {
    const found = await decode(Uint8Array.from(atob(bytes), letter => letter.charCodeAt(0)));
    assert.deepEqual({...found, values: [...found.values]}, {width, height, values});
  }
});

test('a link keeps the view, and what cannot be is left out', () => {
  const view = {...FIRST, classes: ['car', 'boat; ship', 'café & #1 + =?'], background: ['sky'], model: 'model-2', threshold: 0.25, opacity: 1,
    hidden: ['car'], only: 'boat', colours: {'boat': '#00ff00', 'a=b&c': '#123456'}, divider: 12.5, example: 'toytown-1', refine: 'none'};
  assert.deepEqual({...FIRST, ...fromHash(`#${toHash(view)}`)}, view);
  assert.equal(toHash(FIRST), '');
  assert.deepEqual(fromHash('#threshold=2&opacity=x&colour=red&classes=&nonsense=1'), {classes: []});
});

test('what is typed becomes classes', () => {
  assert.deepEqual(entriesOf(' car,boat ;ship;; \n, tree'), ['car', 'boat; ship', 'tree']);
  assert.deepEqual(entriesOf(' ; '), []);
  assert.equal(nameOf('boat; ship'), 'boat');
});

test('the lines of Python name what differs from the server\'s own', () => {
  const of = {address: 'http://127.0.0.1:8000', file: 'a "b".png', first: 'default'};
  const view = {...FIRST, classes: ['car', 'boat; ship'], model: 'default'};
  assert.equal(python(view, of), [
    'import patchword as pw', 'client = pw.Client("http://127.0.0.1:8000")',
    'result = client.segment("a \\"b\\".png", classes=["car", "boat; ship"])'].join('\n'));
  assert.match(python({...view, model: 'model-2', background: ['sky'], threshold: 0.3, refine: 'none'}, of),
    /, background=\["sky"\], model="model-2", settings=\{"refine": "none", "threshold": 0.3\}\)$/);
});

test('pictures keep their shape and fit the limits; those that fit stay as they are', () => {
  const limits = {pixels: 24_000_000, side: 16_384};
  for (const [width, height] of [[4000, 3000], [8000, 6000], [16_385, 10], [100_000, 1], [1, 30_000], [6000, 4001], [30_000, 20_000]]) {
    const found = fitting({width, height}, limits);
    assert.ok(found.width * found.height <= limits.pixels && Math.max(found.width, found.height) <= limits.side);
    if (width * height <= limits.pixels && Math.max(width, height) <= limits.side) assert.deepEqual(found, {width, height});
    else assert.ok(Math.abs(found.width - found.height * width / height) <= 1 + width / height || Math.min(found.width, found.height) === 1);
  }
});
