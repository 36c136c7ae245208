// A list of words as chips: typed or pasted in, edited, removed, all by keyboard too.

import {entriesOf, nameOf} from './state.js';
import {icon, make} from './common.js';

/** Chips inside an element that has an <ul> and, under it, an <input>. */
export class Chips {
  /**
   * @param {HTMLElement} place
   * @param {(entries: string[]) => void} changed - called with all entries when the person changed them
   */
  constructor(place, changed) {
    this.list = place.querySelector('ul');
    this.field = place.querySelector('input');
    this.changed = changed;
    this.entries = [];
    this.colours = {};
    this.editing = false; // a chip: what is typed must not be shown away
    this.field.addEventListener('keydown', event => this.typed(event));
    this.field.addEventListener('input', () => { if (/[,\n]/.test(this.field.value)) this.add(); });
    this.field.addEventListener('blur', () => this.add());
    this.field.addEventListener('paste', event => {
      event.preventDefault(); // an input would make one line of several
      this.field.setRangeText(event.clipboardData.getData('text').replaceAll('\n', ','), this.field.selectionStart, this.field.selectionEnd, 'end');
      if (this.field.value.includes(',')) this.add();
    });
    this.list.addEventListener('keydown', event => this.moved(event));
  }

  /** Show these entries, with the colours of their names. */
  show(entries, colours = this.colours) {
    const same = entries.join() === this.entries.join();
    if (same && (this.editing || JSON.stringify(colours) === JSON.stringify(this.colours))) return;
    const focused = [...this.list.children].findIndex(chip => chip.contains(document.activeElement));
    this.entries = entries;
    this.colours = colours;
    this.list.replaceChildren(...entries.map((entry, at) => this.chip(entry, at)));
    this.list.hidden = !entries.length;
    if (focused >= 0) this.focus(focused);
  }

  chip(entry, at) {
    const swatch = make('i', {class: 'swatch'});
    const colour = this.colours[nameOf(entry)];
    swatch.hidden = !colour;
    if (colour) swatch.style.background = colour;
    return make('li', {},
      make('button', {class: 'word', type: 'button', tabindex: at ? -1 : 0, 'aria-label': `${entry}: edit`, click: () => this.edit(at)},
        swatch, make('span', {text: entry})),
      make('button', {class: 'plain', type: 'button', tabindex: -1, 'aria-label': `Remove ${entry}`, click: () => this.remove(at)}, icon('cross')));
  }

  typed(event) {
    if (event.key === 'Enter' && !event.isComposing) {
      event.preventDefault();
      this.add();
    } else if (event.key === 'Backspace' && !this.field.value && this.entries.length) {
      event.preventDefault();
      this.focus(this.entries.length - 1);
    }
  }

  add() {
    const more = entriesOf(this.field.value);
    this.field.value = '';
    if (more.length) this.set([...this.entries, ...more]);
  }

  /** Keys on a chip: arrows go on, Delete and Backspace remove; Enter, a click of the button, edits. */
  moved(event) {
    const at = [...this.list.children].indexOf(event.target.closest('li'));
    if (event.target.tagName === 'INPUT' || at < 0) return;
    const last = this.entries.length - 1;
    const to = {ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: last}[event.key];
    if (event.key === 'Delete' || event.key === 'Backspace') this.remove(at);
    else if (event.key === 'F2') this.edit(at);
    else if (to > last) this.field.focus();
    else if (to !== undefined) this.focus(Math.max(0, to));
    else return;
    event.preventDefault();
  }

  focus(at) {
    const words = [...this.list.querySelectorAll('.word')];
    words.forEach((word, position) => { word.tabIndex = position === at ? 0 : -1; });
    (words[at] ?? words.at(-1) ?? this.field).focus();
  }

  edit(at) {
    const chip = this.list.children[at];
    const field = make('input', {'aria-label': `Edit ${this.entries[at]}`, value: this.entries[at], size: this.entries[at].length + 2});
    this.editing = true;
    const finish = keep => {
      if (!this.editing) return;
      this.editing = false;
      const here = document.activeElement === field;
      chip.replaceWith(this.chip(this.entries[at], at));
      if (keep) this.set(this.entries.toSpliced(at, 1, ...entriesOf(field.value)));
      if (here) this.focus(at);
    };
    field.addEventListener('keydown', event => {
      if (event.isComposing || !['Enter', 'Escape'].includes(event.key)) return;
      event.preventDefault();
      finish(event.key === 'Enter');
    });
    field.addEventListener('blur', () => finish(true));
    chip.replaceChildren(field);
    field.select();
  }

  remove(at) {
    this.set(this.entries.toSpliced(at, 1));
    this.focus(Math.min(at, this.entries.length - 1));
  }

  /** Show entries, and tell of them where they are others; of two with one name the first stays. */
  set(entries) {
    const before = this.entries;
    const names = entries.map(entry => nameOf(entry).toLowerCase());
    this.show(entries.filter((_, at) => names.indexOf(names[at]) === at));
    if (before.join() !== this.entries.join()) this.changed(this.entries);
  }
}
