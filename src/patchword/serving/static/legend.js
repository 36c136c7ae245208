// The table of classes: colour, share, confidence, and which of them are shown.

import {icon, make, percent} from './common.js';

/** Rows for the classes of a result, or of two that are compared. */
export class Legend {
  /**
   * @param {HTMLTableElement} table
   * @param {{recolour: (name: string, colour: string) => void, only: (name: string) => void, hide: (name: string) => void}} told
   */
  constructor(table, told) {
    this.table = table;
    this.told = told;
    this.names = [];
    this.rows = new Map();
  }

  /**
   * @param {{name: string, colour: string, shown: boolean, hidden: boolean, only: boolean}[]} classes - in the order of the rows
   * @param {{of: Map<string, {share: number, confidence: number | null}>, none: number}[]} results - one or two
   */
  show(classes, results) {
    const names = [String(results.length), ...classes.map(each => each.name)];
    if (names.join('\n') !== this.names.join('\n')) this.build(classes, results);
    this.names = names;
    for (const {name, colour, shown, hidden, only} of classes) {
      const row = this.rows.get(name);
      row.colour.value = colour;
      row.only.ariaPressed = String(only);
      row.hide.ariaPressed = String(hidden);
      row.line.classList.toggle('off', !shown);
      row.line.style.setProperty('--colour', colour);
      row.line.style.setProperty('--share', `${100 * results[0].of.get(name).share}%`);
      results.forEach(({of}, at) => fill(row.cells[at], of.get(name)));
    }
    results.forEach(({none}, at) => fill(this.none.cells[at], {share: none}));
    this.none.line.hidden = results.every(({none}) => !none);
  }

  /** Mark the row of a class, or none. */
  point(name) {
    for (const [other, {line}] of this.rows) line.classList.toggle('pointed', other === name);
  }

  build(classes, results) {
    const titles = results.length > 1 ? ['left', 'right'] : ['share', 'confidence'];
    const head = make('tr', {}, ...['class', ...titles].map(text => make('th', {scope: 'col', text})),
      make('th', {scope: 'col'}, make('span', {class: 'unseen', text: 'show'})));
    this.rows = new Map(classes.map(({name}) => [name, this.row(name, results.length)]));
    const cells = measures(results.length);
    this.none = {cells, line: make('tr', {}, make('th', {scope: 'row'}, make('span', {class: 'what'}, make('i', {class: 'swatch hatched'}), 'no class')),
      ...cells.flatMap(each => each.cells), make('td'))};
    this.table.tHead.replaceChildren(head);
    this.table.tBodies[0].replaceChildren(...[...this.rows.values(), this.none].map(({line}) => line));
  }

  row(name, count) {
    const button = (kind, text) => make('button', {class: 'plain', type: 'button', title: text, 'aria-label': `${text}: ${name}`,
      'aria-pressed': 'false', click: () => this.told[kind](name)}, icon(kind));
    const colour = make('input', {type: 'color', 'aria-label': `Colour of ${name}`, title: 'Colour', input: () => this.told.recolour(name, colour.value)});
    const [only, hide] = [button('only', 'Show only this'), button('hide', 'Hide')];
    const cells = measures(count);
    const line = make('tr', {}, make('th', {scope: 'row'}, make('span', {class: 'what'}, colour, make('span', {text: name}))),
      ...cells.flatMap(each => each.cells), make('td', {class: 'acts'}, make('span', {}, only, hide)));
    return {line, colour, only, hide, cells};
  }
}

/** Share and confidence: a cell each, or of two results a cell each with both. */
function measures(count) {
  return Array.from({length: count}, () => {
    const [share, confidence] = [make('span'), make('span', {class: count > 1 ? 'small' : ''})];
    const cells = count > 1 ? [make('td', {}, share, confidence)] : [make('td', {}, share), make('td', {}, confidence)];
    return {share, confidence, cells};
  });
}

function fill({share, confidence}, found) {
  share.textContent = percent(found.share);
  confidence.textContent = found.confidence === undefined ? '' : found.confidence?.toFixed(2) ?? '–';
}
