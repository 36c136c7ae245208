// A page that this one was opened from is the way back.
const up = new URLSearchParams(location.search).get('up') ?? '';
if (/^(\.\.\/)*[\w-][\w.\/-]*\.html$/.test(up)) {
  const link = document.createElement('a');
  link.href = up;
  link.textContent = 'Overview';
  document.querySelector('nav').prepend(link);
}

// Long names break between their parts, not within them.
for (const place of document.querySelectorAll('tbody th, td.words, .where, .name, figcaption, .legend li')) {
  for (const node of [...place.childNodes].filter(each => each.nodeType === Node.TEXT_NODE)) {
    const parts = node.data.split(/(?<=[\p{L}\d][_\/-]+)(?=[\p{L}\d])/u);
    if (parts.length > 1) node.replaceWith(...parts.flatMap((part, at) => at ? [document.createElement('wbr'), part] : part));
  }
}

// A table that is too wide for its place has blocks for rows, in which each cell names its column.
const widths = new Map();
const fit = new ResizeObserver(entries => {
  for (const {target} of entries) {
    if (widths.get(target) === target.clientWidth) continue;
    widths.set(target, target.clientWidth);
    const table = target.querySelector('table');
    table.classList.remove('stacked');
    table.classList.toggle('stacked', target.scrollWidth > target.clientWidth);
  }
});
for (const place of document.querySelectorAll('.scroll')) {
  const {tHead, tBodies} = place.querySelector('table');
  const names = [...tHead.rows[0].cells].map(cell => cell.textContent);
  for (const row of tBodies[0].rows) [...row.cells].forEach((cell, at) => { cell.dataset.column = names[at]; });
  fit.observe(place);
}

// Tables are sorted by a click on a heading: text by the alphabet, all else by its first number, unknown values last.
for (const heading of document.querySelectorAll('thead th')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = heading.textContent;
  heading.replaceChildren(button);
  button.onclick = () => {
    const falling = heading.ariaSort === 'ascending';
    for (const other of heading.parentNode.children) other.ariaSort = null;
    heading.ariaSort = falling ? 'descending' : 'ascending';
    const text = row => row.cells[heading.cellIndex].textContent.trim();
    const number = row => parseFloat(text(row).replace(/,/g, ''));
    const inWords = heading.classList.contains('words');
    const known = [], unknown = [];
    const body = heading.closest('table').tBodies[0];
    for (const row of body.rows) (inWords ? text(row) : !isNaN(number(row))) ? known.push(row) : unknown.push(row);
    known.sort((a, b) => inWords ? text(a).localeCompare(text(b), 'en', {numeric: true}) : number(a) - number(b));
    body.append(...(falling ? known.reverse() : known), ...unknown);
  };
}

// One handler for every slider, those in the dialog too.
const move = (slider, value) => slider.closest('.compare').style.setProperty('--at', `${value}%`);
document.addEventListener('input', event => {
  if (event.target.matches('.compare input')) move(event.target, event.target.value);
  if (event.target.id === 'all') for (const slider of document.querySelectorAll('.compare input')) {
    slider.value = event.target.value;
    move(slider, slider.value);
  }
});

// A picture, or a pair with its slider, fills the window.
const dialog = document.querySelector('dialog');
document.addEventListener('click', event => {
  const button = event.target.closest('.zoom');
  if (button) {
    const copy = (button.closest('.compare') ?? button.querySelector('img')).cloneNode(true);
    const picture = button.parentNode.querySelector('img');
    copy.querySelector('.zoom')?.remove();
    copy.classList.add('large', ...(button.dataset.natural === undefined ? [] : ['natural']));
    copy.style.setProperty('--ratio', picture.naturalWidth / picture.naturalHeight);
    const told = document.createElement('p');
    told.textContent = picture.alt;
    dialog.querySelector('div').replaceChildren(copy, told);
    dialog.showModal();
  } else if (dialog?.open && !event.target.matches('input')) dialog.close();
});

// Only what has a class is shown.
const filter = document.getElementById('class');
if (filter) filter.onchange = () => {
  let shown = 0;
  for (const part of document.querySelectorAll('[data-classes]')) {
    part.hidden = filter.value !== '' && !part.dataset.classes.includes(` ${filter.value} `);
    if (!part.hidden && part.tagName === 'TR') shown += 1;
  }
  document.getElementById('found').textContent = filter.value === '' ? '' : `${shown} in the table below`;
};
for (const part of document.querySelectorAll('.tools')) part.hidden = false;
