// The start: who one is, then the page of the address.

import { h, fill } from './dom.js';
import { connection } from './api.js';
import { place, show } from './router.js';
import { empty, fail, head } from './ui.js';
import * as session from './session.js';
import * as jobs from './jobs.js';
import * as job from './job.js';
import * as form from './form.js';
import * as comparisons from './comparisons.js';
import * as comparison from './comparison.js';
import * as files from './files.js';
import * as checkpoint from './checkpoint.js';
import * as dataset from './dataset.js';
import * as workers from './workers.js';
import * as docs from './docs.js';
import { showTransfers } from './uploads.js';

const RETRY = 2000;

const AREAS = [['jobs', 'Jobs'], ['comparisons', 'Comparisons'], ['checkpoints', 'Checkpoints'], ['datasets', 'Datasets'], ['workers', 'Workers'], ['docs', 'API']];

const view = document.getElementById('view');
const account = document.getElementById('account');
const areas = document.getElementById('areas');
const offline = document.getElementById('offline');

/** The page of each area, and of one thing in it. */
const PAGES = {
  jobs: [{ title: 'Jobs', show: jobs.show }, { title: 'Job', show: job.show }],
  new: [{ title: 'New job', show: form.show }],
  comparisons: [{ title: 'Comparisons', show: comparisons.show }, { title: 'Comparison', show: comparison.show }],
  checkpoints: [{ title: 'Checkpoints', show: files.checkpoints }, { title: 'Checkpoint', show: checkpoint.show }],
  datasets: [{ title: 'Datasets', show: files.datasets }, { title: 'Dataset', show: dataset.show }],
  workers: [{ title: 'Workers', show: workers.show }],
  docs: [{ title: 'API', show: docs.show }],
};

function find({ parts: [area, ...rest] }) {
  return PAGES[area]?.[rest.length] ?? { title: 'Not found', show: (root) => fill(root, head('Not found'), empty('There is no such page', h('a.button', { href: '#/jobs' }, 'Show the jobs'))) };
}

function showAreas() {
  const { parts } = place();
  const current = parts[0] === 'new' ? 'jobs' : parts[0];
  fill(areas, AREAS.map(([area, title]) => h('a', { href: `#/${area}`, 'aria-current': area === current ? 'page' : null }, title)));
  // On a narrow screen the areas scroll; the current one is never out of sight.
  const here = areas.querySelector('[aria-current]');
  if (here) areas.scrollLeft = here.offsetLeft + here.offsetWidth / 2 - areas.clientWidth / 2;
}

function render(options) {
  showAreas();
  session.showAccount(account, start);
  if (session.isSignedOut()) show(view, () => ({ title: 'Sign in', show: session.signIn(start) }), { keepFocus: true });
  else show(view, find, options);
}

async function start() {
  try {
    await session.load();
  } catch (error) {
    fail(view, error);
    setTimeout(start, RETRY);
    return;
  }
  render({ keepFocus: true });
}

connection.addEventListener('change', () => {
  offline.hidden = connection.reachable;
  fill(offline, connection.reachable ? null : 'The server does not answer. This page tries again until it does.');
});
connection.addEventListener('unauthorized', () => {
  if (!session.isSignedOut()) start();
});
window.addEventListener('hashchange', () => render());
// The hash is the address of the page, so this link must not become one.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  view.focus();
});
showTransfers(document.querySelector('.top'));
showAreas();
start();
