// Who one is: a key that the server keeps in a cookie, which no script can read.

import { h, fill } from './dom.js';
import { get, send } from './api.js';
import { problem } from './ui.js';

let session = { key_required: false, tenant: null, scope: null };

/** Asks the server who one is. */
export async function load() {
  session = await get('/session');
  return session;
}

/** Whether the server wants a key that it has not got. */
export function isSignedOut() {
  return session.key_required && session.tenant === null;
}

/** Whether one may change anything. */
export function canWrite() {
  return session.scope === 'write' || session.scope === 'admin';
}

/** Whether what belongs to `tenant` is one's own. */
export function owns(tenant) {
  return session.tenant === tenant;
}

/** Whether the server wants keys. */
export function wantsKey() {
  return session.key_required;
}

/** Shows who one is, and a way out, in `root`. */
export function showAccount(root, leave) {
  if (!session.key_required || session.tenant === null) {
    fill(root);
    return;
  }
  const out = h('button.button.quiet.tight', { type: 'button', onclick: async () => { await send('DELETE', '/session'); leave(); } }, 'Sign out');
  fill(root, h('span', { title: `Scope of the key: ${session.scope}` }, session.tenant, session.scope === 'read' ? ' (reads only)' : ''), out);
}

/** The page that asks for a key; `enter` is called once there is one. */
export function signIn(enter) {
  return (root) => {
    const place = h('div', {});
    const key = h('input', { type: 'password', id: 'key', name: 'key', autocomplete: 'current-password', spellcheck: 'false', required: true, placeholder: 'engraft_…' });
    const button = h('button.button.primary', { type: 'submit' }, 'Sign in');
    const form = h('form.signin.card', {},
      h('h1', {}, 'Sign in'),
      h('p.muted', {}, 'This server asks for a key. ', h('code', {}, 'engraft keys create --tenant NAME --scope write'), ' makes one where the server runs.'),
      h('div', {}, h('label', { for: 'key' }, 'Key'), key), place, button,
      h('p.muted.small', {}, 'It is kept in a cookie that only this server gets and no script can read.'));
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        await send('POST', '/session', { json: { key: key.value.trim() } });
        enter();
      } catch (error) {
        button.disabled = false;
        fill(place, problem(error));
        key.select();
      }
    });
    fill(root, form);
    key.focus();
  };
}
