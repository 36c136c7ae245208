// What all pages share: small pieces of a page, and talk with the server.

/**
 * An element. Attributes that are functions are listeners; those that are undefined or false are left out.
 * @param {string} tag
 * @param {Record<string, any>} attributes - `text` is its text
 * @param {...(Node | string)} children
 * @returns {any} so that inputs, buttons and the like need no cast
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') element.textContent = value;
    else if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}

/** A drawing of the page's <symbol> with that name; what it means stands beside it or in a label. */
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const drawing = document.createElementNS(space, 'svg');
  drawing.setAttribute('class', 'icon');
  drawing.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(space, 'use');
  use.setAttribute('href', `/static/icons.svg#${name}`);
  drawing.append(use);
  return drawing;
}

/** @template T; @param {string} id; @returns {any} */
export const byId = id => document.getElementById(id);

/** A request that the server refused. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} reason
   * @param {number} wait - seconds after which to try again; 0 where that is no use
   */
  constructor(status, reason, wait = 0) {
    super(reason);
    this.status = status;
    this.wait = wait;
  }
}

const TOKEN = 'patchword-token';
let asking = null; // one dialog for all requests that wait for the token

/**
 * Ask the server; where it wants a token, ask the person first.
 * @param {string} path
 * @param {RequestInit & {json?: any}} options - `json` becomes the body of a POST
 * @returns {Promise<Response>} a good answer
 */
export async function ask(path, {json, ...options} = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = {...(token && {Authorization: `Bearer ${token}`}), ...(json && {'Content-Type': 'application/json'})};
    const answer = await reach(path, {...(json && {method: 'POST', body: JSON.stringify(json)}), ...options, headers});
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await refusal(answer);
    asking ??= askForToken(Boolean(token)).finally(() => { asking = null; });
    await asking;
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, 'The server does not answer. Is it still running?');
  }
}

async function refusal(answer) {
  let reason = `The server answered ${answer.status}.`;
  try {
    reason = (await answer.json()).error.reason;
  } catch { /* what answers so is not this server */ }
  return new Refused(answer.status, reason, Number(answer.headers.get('Retry-After')));
}

function askForToken(wrong) {
  const field = make('input', {type: 'password', autocomplete: 'current-password', required: true});
  const form = make('form', {method: 'dialog'},
    make('h2', {text: 'This server asks for a token', id: 'token-title'}),
    make('p', {text: wrong ? 'The token was wrong.' : 'Who started the server can tell it. It is kept until you close this tab.'}),
    make('label', {text: 'Token'}, field),
    make('button', {class: 'primary', text: 'Go on'}));
  const dialog = make('dialog', {'aria-labelledby': 'token-title'}, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise(done => dialog.addEventListener('close', () => {
    sessionStorage.setItem(TOKEN, field.value);
    dialog.remove();
    done();
  }));
}

/** Give the person a file. */
export function save(content, name) {
  const link = make('a', {href: URL.createObjectURL(content), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Put a text into the clipboard, and say so on the button for a moment. */
export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Select and copy it yourself';
  }
  setTimeout(() => { button.textContent = before; }, 2000);
}

/** Run a function once, some milliseconds after it was last asked for. */
export function later(run, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}

export const percent = share => share > 0 && share < 0.001 ? '<0.1 %' : `${(100 * share).toFixed(1)} %`;
