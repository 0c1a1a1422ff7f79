// Signing in with a key, and what a cookie may not do.

import assert from 'node:assert/strict';

import { open, visit } from './browser.mjs';

async function signIn(page, key) {
  await page.getByLabel('Key').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

export const walks = {
  'a key opens the pages, and signing out closes them': async ({ browser, start }) => {
    const server = await start();
    const [write, read] = [server.key('write'), server.key('read')];
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/jobs', 'Sign in');
    await signIn(page, 'engraft_wrong');
    await page.locator('.notice', { hasText: 'unknown, revoked or expired' }).waitFor();
    await signIn(page, write);
    await page.getByRole('heading', { name: 'No jobs yet' }).waitFor();
    await page.getByText('vision').waitFor();
    const [cookie] = await context.cookies();
    assert.equal(cookie.name, 'engraft_key');
    assert.ok(cookie.httpOnly);
    assert.equal(cookie.sameSite, 'Strict');
    assert.equal(await page.evaluate(() => document.cookie), '');
    await page.locator('.head').getByRole('link', { name: 'New job' }).waitFor();

    // What a page of another site could make a browser send.
    const cookies = { cookie: `engraft_key=${write}` };
    const ask = (method, headers) => fetch(`${server.url}/v1/uploads/up_0`, { method, headers: { ...cookies, ...headers } }).then(({ status }) => status);
    assert.equal(await ask('DELETE', { origin: 'http://evil.example' }), 403);
    assert.equal(await ask('DELETE', {}), 403, 'a change by the cookie says where it comes from');
    assert.equal(await ask('DELETE', { origin: server.url, 'sec-fetch-site': 'cross-site' }), 403);
    assert.equal(await ask('DELETE', { origin: server.url, 'sec-fetch-site': 'same-origin' }), 404);
    const list = (headers) => fetch(`${server.url}/v1/jobs`, { headers: { ...cookies, ...headers } }).then(({ status }) => status);
    assert.equal(await list({ 'sec-fetch-site': 'same-origin' }), 200);
    assert.notEqual(await list({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }), 200);

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { level: 1, name: 'Sign in' }).waitFor();
    assert.deepEqual(await context.cookies(), []);
    await signIn(page, read);
    await page.getByText('reads only').waitFor();
    assert.equal(await page.getByRole('link', { name: 'New job' }).count(), 0);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'no page runs anything that is not of the server': async ({ server }) => {
    const answer = await fetch(server.url);
    const policy = answer.headers.get('content-security-policy');
    assert.match(policy, /default-src 'self'/);
    assert.doesNotMatch(policy, /unsafe/);
    const text = await answer.text();
    assert.doesNotMatch(text, /<script(?![^>]*src="\/page\/)|<style|style=|onclick=|https?:\/\//);
    const tag = answer.headers.get('etag');
    assert.equal((await fetch(server.url, { headers: { 'if-none-match': tag } })).status, 304);
    const modules = [...text.matchAll(/(?:src|href)="(\/page\/[^"]+)"/g)].map(([, path]) => path);
    for (const path of modules) {
      const file = await fetch(`${server.url}${path}`);
      assert.equal(file.status, 200, path);
      assert.match(file.headers.get('content-type'), /javascript|css|svg/, path);
    }
    assert.equal((await fetch(`${server.url}/page/none.js`)).status, 404);
    assert.equal((await fetch(`${server.url}/page/..%2fmod.rs`)).status, 404);
  },
};
