// Keys for what the buttons do. Pages are complete without this script.
'use strict';

const keyed = new Map();
for (const element of document.querySelectorAll('[data-keys]')) {
  for (const key of element.dataset.keys.split(' ')) keyed.set(key, element);
}

// A small image is shown as the pixels that it is made of; a large one is scaled smoothly.
for (const image of document.images) {
  const size = () => image.classList.toggle('small', image.naturalWidth * 2 <= image.clientWidth);
  if (image.complete) size();
  else image.addEventListener('load', size);
}

// A page that is on its way out takes no more answers, and a key that is held down gives one.
let isLeaving = false;
for (const form of document.forms) {
  form.addEventListener('submit', (event) => {
    if (isLeaving) event.preventDefault();
    isLeaving = true;
  });
}
// The browser may bring a page back as it was left.
window.addEventListener('pageshow', () => { isLeaving = false; });

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  const isWriting = event.target.matches('input, textarea, select');
  if (isWriting) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const element = keyed.get(event.key);
  if (!element) return;
  event.preventDefault();
  if (element.matches('button')) element.click();
  else element.focus();
});
