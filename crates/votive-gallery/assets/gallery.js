// Keyboard, filters and zoom. The page is complete without this script, which only adds movement.
'use strict';

const items = [...document.querySelectorAll('.item')];
const filters = document.getElementById('filters');
const zoom = document.getElementById('zoom');
const help = document.getElementById('help');
let current = null;
// The dialog returns the focus to where it was opened, so what it shows is remembered apart.
let zoomed = null;

const shown = (item) => !item.hidden;
const isCell = (item) => item.matches('td');

// One stop of the Tab key for the whole gallery, on the current item; the arrow keys do the rest.
function setCurrent(item) {
  if (current) current.tabIndex = -1;
  current = item;
  if (current) current.tabIndex = 0;
}

function goTo(item) {
  if (!item) return;
  if (zoom.open) fillZoom(item);
  else item.focus({ preventScroll: true });
  item.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

const inWindow = (item) => {
  const box = item.getBoundingClientRect();
  return box.bottom > 0 && box.top < window.innerHeight;
};

// The current item if it is in sight, else the first one from the top of the window: where the reader is looking.
function startingPoint() {
  if (current && shown(current) && inWindow(current)) return current;
  const candidates = items.filter(shown);
  return candidates.find((item) => item.getBoundingClientRect().top >= 0) ?? candidates[0];
}

// Cells move within their row or column, cards along all cards.
function neighbour(item, direction) {
  const cell = isCell(item);
  const upright = direction === 'up' || direction === 'down';
  if (upright && !cell) return null;
  const line = items.filter((other) => shown(other) && isCell(other) === cell
    && (!cell || (upright ? other.dataset.column === item.dataset.column : other.dataset.row === item.dataset.row)));
  return line[line.indexOf(item) + (direction === 'right' || direction === 'down' ? 1 : -1)];
}

function move(direction) {
  const focused = zoom.open ? zoomed : document.activeElement?.closest('.item');
  if (focused) {
    goTo(neighbour(focused, direction));
    return zoom.open || isCell(focused) || direction === 'left' || direction === 'right';
  }
  if (direction === 'up' || direction === 'down') return false;
  goTo(startingPoint());
  return true;
}

function fillZoom(item) {
  zoomed = item;
  const copies = [...item.children].map((child) => child.cloneNode(true));
  const content = zoom.querySelector('.content');
  content.replaceChildren(...copies);
  content.className = isCell(item) ? 'content sample' : 'content';
}

function openZoom(item) {
  fillZoom(item);
  zoom.showModal();
  return true;
}

function applyFilters() {
  const verdicts = new FormData(filters).getAll('verdict');
  const category = filters.elements.category.value;
  const cards = items.filter((item) => !isCell(item));
  for (const card of cards) {
    card.hidden = !verdicts.includes(card.dataset.verdict) || (category !== '' && card.dataset.category !== category);
  }
  document.getElementById('shown').textContent = `${cards.filter(shown).length} of ${cards.length} shown`;
  if (current && !shown(current)) setCurrent(items.find(shown) ?? null);
}

const actions = {
  ArrowRight: () => move('right'),
  ArrowLeft: () => move('left'),
  ArrowDown: () => move('down'),
  ArrowUp: () => move('up'),
  j: () => move('right'),
  k: () => move('left'),
  f: () => {
    if (!filters || zoom.open) return false;
    filters.querySelector('input').focus();
    return true;
  },
  Enter: () => {
    const item = document.activeElement?.closest('.item');
    return Boolean(item) && !zoom.open && openZoom(item);
  },
  Escape: () => {
    if (!filters?.contains(document.activeElement)) return false;
    goTo(startingPoint());
    return true;
  },
  '?': () => {
    if (!zoom.open) help.showModal();
    return !zoom.open;
  },
};

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  // Controls keep the keys that they need themselves.
  const control = event.target.closest('input, select, button, summary');
  if (control && !zoom.open && event.key !== 'Escape' && event.key !== '?') return;
  if (actions[event.key]?.()) event.preventDefault();
});

document.addEventListener('click', (event) => {
  if (event.target === zoom || event.target === help) event.target.close();
  const item = event.target.closest('.item');
  if (!item) return;
  setCurrent(item);
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (plain && event.target.closest('.picture')) {
    event.preventDefault();
    openZoom(item);
  }
});

zoom.addEventListener('close', () => zoomed.focus());

for (const item of items) {
  item.tabIndex = -1;
  item.querySelectorAll('.picture').forEach((link) => { link.tabIndex = -1; });
  item.addEventListener('focus', () => setCurrent(item));
}
setCurrent(items[0] ?? null);
document.querySelectorAll('.scripted').forEach((element) => { element.hidden = false; });
if (filters) {
  filters.hidden = false;
  filters.addEventListener('change', applyFilters);
  filters.addEventListener('submit', (event) => event.preventDefault());
  document.getElementById('keys').addEventListener('click', () => help.showModal());
  applyFilters();
}
