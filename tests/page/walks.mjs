// Uploads, lists, and what data may not do.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

import { open, until, visit } from './browser.mjs';
import { named } from './samples.mjs';

const EVIL = '<img src=x onerror="window.hacked=1">';

export const walks = {
  'empty lists say what to do': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    await page.goto(server.url);
    await page.getByRole('heading', { name: 'No jobs yet' }).waitFor();
    await page.getByRole('link', { name: 'Upload members' }).click();
    await page.getByRole('heading', { name: 'No checkpoints yet' }).waitFor();
    for (const [area, said] of [['Datasets', 'No datasets yet'], ['Comparisons', 'No comparisons yet']]) {
      await page.getByRole('navigation', { name: 'Areas' }).getByRole('link', { name: area }).click();
      await page.getByRole('heading', { name: said }).waitFor();
    }
    await page.goto(`${server.url}/#/nowhere`);
    await page.getByRole('heading', { name: 'There is no such page' }).waitFor();
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'members and a dataset are uploaded': async ({ browser, server, samples }) => {
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/checkpoints', 'Checkpoints');
    await page.locator('input[type=file]').setInputFiles(samples.members);
    for (const path of samples.members) await page.getByRole('link', { name: basename(path), exact: true }).waitFor();

    await visit(page, server, '/datasets', 'Datasets');
    const bytes = [...readFileSync(samples.dataset)];
    const data = await page.evaluateHandle((content) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(content)], 'quarters.safetensors'));
      return transfer;
    }, bytes);
    await page.dispatchEvent('.dropzone', 'dragover', { dataTransfer: data });
    assert.match(await page.locator('.dropzone').getAttribute('class'), /over/);
    await page.dispatchEvent('.dropzone', 'drop', { dataTransfer: data });
    await page.locator('tr', { hasText: 'quarters.safetensors' }).locator('.state.ready').waitFor();
    await page.getByRole('link', { name: 'quarters.safetensors' }).click();
    await page.getByRole('heading', { name: 'Examples' }).waitFor();
    const image = page.locator('.example img').first();
    await until('a picture is decoded', () => image.evaluate((element) => element.naturalWidth > 0));
    assert.equal(await page.locator('.classes tbody tr').count(), 4);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'a cut upload goes on where it was cut': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    const file = Buffer.concat([named('a'), Buffer.alloc(0)]);
    const total = file.length;
    await server.api('PUT', '/v1/checkpoints/cut.safetensors', { body: file.subarray(0, 40), headers: { 'content-range': `bytes 0-39/${total}` } });
    await visit(page, server, '/checkpoints', 'Checkpoints');
    await page.getByRole('heading', { name: 'Unfinished uploads' }).waitFor();
    const sent = page.waitForRequest((request) => request.method() === 'PUT' && request.url().endsWith('cut.safetensors'));
    await page.locator('input[type=file]').setInputFiles({ name: 'cut.safetensors', mimeType: 'application/octet-stream', buffer: file });
    assert.equal((await sent).headers()['content-range'], `bytes 40-${total - 1}/${total}`);
    await page.getByRole('link', { name: 'cut.safetensors' }).waitFor();
    await until('nothing is unfinished', async () => (await page.getByRole('heading', { name: 'Unfinished uploads' }).count()) === 0);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'an upload is paused and resumed, and survives a server that is away': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/datasets', 'Datasets');
    const devtools = await context.newCDPSession(page);
    await devtools.send('Network.enable');
    const slow = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 1_000_000 };
    await devtools.send('Network.emulateNetworkConditions', slow);
    const file = Buffer.alloc(3_000_000, 7);
    await page.locator('input[type=file]').setInputFiles({ name: 'large (1).npz', mimeType: 'application/octet-stream', buffer: file });
    const entry = page.locator('.uploads li', { hasText: 'large-1-.npz' });
    await until('a tenth has gone', async () => /[1-9]\d % of/.test(await entry.textContent()));
    await entry.getByRole('button', { name: 'Pause' }).click();
    await entry.getByText('paused at').waitFor();
    const part = await fetch(`${server.url}/v1/datasets/large-1-.npz`, { method: 'HEAD' });
    assert.equal(part.status, 204);
    assert.ok(Number(part.headers.get('upload-offset')) > 0, 'what has arrived is kept');
    await server.stop();
    await entry.getByRole('button', { name: 'Resume' }).click();
    await page.getByText('The server does not answer').waitFor();
    await server.start();
    await devtools.send('Network.emulateNetworkConditions', { ...slow, uploadThroughput: -1 });
    await page.locator('tr', { hasText: 'large-1-.npz' }).waitFor({ timeout: 30_000 });
    await until('the page says that the server is back', () => page.locator('#offline').isHidden());
    // Its bytes are no dataset: the server says why, and the page says it too.
    await page.locator('tr', { hasText: 'large-1-.npz' }).locator('.state.invalid').waitFor();
    await page.getByRole('link', { name: 'large-1-.npz' }).click();
    await page.locator('.notice.bad').waitFor();
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { level: 1, name: 'Datasets' }).waitFor();
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'names, labels and titles stay text': async ({ browser, server, samples }) => {
    const { context, page, complaints } = await open(browser);
    const label = encodeURIComponent(`note=${EVIL}`);
    await server.api('PUT', `/v1/checkpoints/evil.safetensors?label=${label}`, { body: named(EVIL, `${EVIL}.weight`) });
    const members = samples.members.map((path) => basename(path));
    const dataset = 'quarters.safetensors';
    await server.api('POST', '/v1/jobs', { json: { members, dataset, labels: { note: EVIL } } });
    await server.api('POST', '/v1/comparisons', { json: { title: EVIL, job: { dataset, evaluate: ['fused'] }, ensembles: [{ name: EVIL, members }], methods: [{ name: `${EVIL} 2` }] } });
    for (const [place, selector] of [['/checkpoints', 'td'], ['/checkpoints/evil.safetensors', 'td'], ['/jobs', '.chip'], ['/comparisons', 'td a'], [`/jobs?label=${encodeURIComponent(`note=${EVIL}`)}`, '.filters .chip'], [`/checkpoints/${label}`, '.notice']]) {
      await page.goto(`${server.url}/#${place}`);
      await page.locator(selector, { hasText: '<img src=x' }).first().waitFor();
    }
    await page.goto(`${server.url}/#/comparisons`);
    await page.locator('td a').first().click();
    await page.getByRole('rowheader', { name: EVIL }).waitFor();
    await page.locator('a.state').first().click();
    await page.getByRole('heading', { name: 'The same again' }).waitFor();
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.locator('img[src=x]').count(), 0);
    assert.deepEqual(complaints, []);
    await context.close();
  },
};
