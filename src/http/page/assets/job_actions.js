// What can be done with a job.

import { h } from './dom.js';
import { send, v1 } from './api.js';
import { busy, confirm, toast } from './ui.js';
import { hasEnded } from './events.js';
import { go, link } from './router.js';

/** The buttons for `job`; `reload` reads it again. */
export function actions(job, reload) {
  const again = h('a.button', { href: link(['new'], { from: job.id }), title: 'Opens the form with the fields of this job' }, 'Use as a start');
  if (!hasEnded(job.state)) return [again, cancelButton(job, reload)];
  return [retryButton(job), again, deleteButton(job)];
}

function cancelButton(job, reload) {
  const ask = () => confirm('Cancel this job?', 'It stops where it is. It can be run again later, from its last checkpoint.', 'Cancel the job', async () => {
    await send('POST', v1('jobs', job.id, 'cancel'));
    toast('The job is being cancelled.');
    await reload();
  });
  return h('button.button.danger', { type: 'button', onclick: ask, disabled: job.state === 'cancelling' }, 'Cancel');
}

function retryButton(job) {
  const button = h('button.button', { type: 'button', title: 'Queues a new job like this one, which goes on from the last checkpoint' }, 'Retry');
  button.addEventListener('click', () => busy(button, async () => {
    const answer = await send('POST', v1('jobs', job.id, 'retry'), { headers: { 'idempotency-key': crypto.getRandomValues(new Uint32Array(4)).join('-') } });
    const next = await answer.json();
    toast('A new job was queued.');
    go(link(['jobs', next.id]));
  }));
  return button;
}

function deleteButton(job) {
  const ask = async () => {
    const done = await confirm('Delete this job?', 'Its history and its results, the fused model among them, are deleted with it.', 'Delete', () => send('DELETE', v1('jobs', job.id)));
    if (done) go('#/jobs');
  };
  return h('button.button.danger', { type: 'button', onclick: ask }, 'Delete');
}
