// From the form to a model, and what can be done with a job.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

import { open, until, visit } from './browser.mjs';

/** A job that takes minutes unless it is cancelled. */
function long(samples) {
  return { members: samples.members.map((path) => basename(path)), dataset: 'quarters.safetensors', finetune: { epochs: 100_000 } };
}

export const walks = {
  'the form says what is wrong, plans, and queues; the job is followed to its model': async ({ browser, server, samples }) => {
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/new', 'New job');
    assert.ok(await page.getByRole('button', { name: 'Queue the job' }).isDisabled());
    for (const path of samples.members) await page.getByLabel(basename(path)).check();
    await page.getByLabel('Dataset', { exact: true }).selectOption('quarters.safetensors');
    await page.getByLabel('Normalise inputs').selectOption('train');
    await page.getByLabel('Train the fused network').check();
    await page.getByLabel('Epochs', { exact: true }).fill('-1');
    const field = page.locator('[data-pointer="/finetune/epochs"]');
    await field.getByText('expected a whole number from 1').waitFor();
    assert.equal(await field.locator('input').getAttribute('aria-invalid'), 'true');
    await page.getByText('One value is at fault').waitFor();
    await page.getByLabel('Epochs', { exact: true }).fill('6');
    await page.getByRole('heading', { name: 'Plan' }).waitFor();
    await page.locator('.outcome .figures').waitFor();
    assert.equal(await field.locator('.fault').isHidden(), true);

    // The JSON and the fields are two views of one thing.
    const json = page.getByLabel('The job as JSON');
    const job = JSON.parse(await json.inputValue());
    assert.deepEqual(job.finetune, { epochs: 6 });
    await json.fill(JSON.stringify({ ...job, labels: { run: '7' }, seed: 3, finetune: { epochs: 5 } }));
    assert.equal(await page.getByLabel('Epochs', { exact: true }).inputValue(), '5');
    assert.equal(await page.getByLabel('Labels', { exact: true }).inputValue(), 'run=7');
    await json.fill('{');
    await page.getByText('This is not JSON yet').waitFor();
    await json.fill(JSON.stringify({ ...job, labels: { run: '7' }, colour: 'red' }));
    await page.locator('.outcome').getByText('/colour').waitFor();
    await json.fill(JSON.stringify({ ...job, labels: { run: '7' } }));
    await page.locator('.outcome .figures').waitFor();
    await page.getByRole('button', { name: 'Queue the job' }).click();

    await page.locator('h1 .state.succeeded').waitFor({ timeout: 40_000 });
    await page.getByRole('heading', { name: 'Result' }).waitFor();
    assert.equal(await page.locator('.candidates .chosen').count(), 1);
    await until('the curves are drawn', async () => (await page.locator('.curve').count()) >= 4);
    assert.ok((await page.locator('.log li').count()) > 3);
    assert.ok((await page.locator('.origin svg rect').count()) >= 3);

    const model = page.waitForEvent('download');
    await page.getByRole('link', { name: 'safetensors', exact: true }).click();
    const saved = join(server.folder, 'by-hand.safetensors');
    await (await model).saveAs(saved);
    const digest = createHash('sha256').update(readFileSync(saved)).digest('hex');
    assert.equal(await page.locator('.digest code').textContent(), digest);
    for (const name of ['pt', 'onnx', 'onnx, normalising', 'py', 'tar', 'report, a page', 'model card', 'where each unit comes from']) {
      const href = await page.getByRole('link', { name, exact: true }).getAttribute('href');
      assert.equal((await context.request.get(`${server.url}${href}`)).status(), 200, name);
    }

    // The lines of the shell, as they stand there, make the same model again.
    const lines = await page.locator('.code pre').first().textContent();
    execFileSync('bash', ['-euo', 'pipefail', '-c', lines], { cwd: server.folder, stdio: 'pipe' });
    assert.equal(createHash('sha256').update(readFileSync(join(server.folder, 'fused.safetensors'))).digest('hex'), digest);
    await page.getByRole('tab', { name: 'Python' }).click();
    const python = await page.locator('[role=tabpanel] pre').textContent();
    execFileSync('python3', ['-c', `import ast, sys; ast.parse(sys.argv[1])`, python]);
    assert.match(python, /client\.fuse\(/);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'a job is cancelled, retried and deleted': async ({ browser, server, samples }) => {
    const { context, page, complaints } = await open(browser);
    const { id } = await server.api('POST', '/v1/jobs', { json: long(samples) });
    await visit(page, server, `/jobs/${id}`, id.slice(-8));
    await page.locator('h1 .state.running').waitFor();
    await until('an epoch is drawn', async () => (await page.locator('.curve').count()) > 0);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    assert.equal(await page.getByRole('dialog').count(), 0, 'Escape closes it');
    assert.equal((await server.api('GET', `/v1/jobs/${id}`)).state, 'running', 'and nothing was done');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel the job' }).click();
    await page.locator('h1 .state.cancelled').waitFor();

    await page.getByRole('button', { name: 'Retry' }).click();
    await page.getByText('Repeats').waitFor();
    const again = new URL(page.url()).hash.split('/').at(-1);
    assert.notEqual(again, id);
    assert.equal((await server.api('GET', `/v1/jobs/${again}`)).retry_of, id);

    await page.goto(`${server.url}/#/jobs?state=running`);
    const row = page.locator('tr', { hasText: again.slice(-8) });
    await row.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel the job' }).click();
    await until('the list drops it', async () => (await row.count()) === 0);

    await visit(page, server, `/jobs/${id}`, id.slice(-8));
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor();
    await page.goto(`${server.url}/#/jobs/${id}`);
    await page.locator('.notice', { hasText: 'Not found' }).waitFor();
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'a page goes on when the server comes back': async ({ browser, server, samples }) => {
    const { context, page, complaints } = await open(browser);
    const job = { ...long(samples), finetune: { epochs: 150 }, evaluate: ['fused'] };
    const { id } = await server.api('POST', '/v1/jobs', { json: job });
    await visit(page, server, `/jobs/${id}`, id.slice(-8));
    await until('an epoch is drawn', async () => (await page.locator('.curve').count()) > 0);
    await server.stop();
    const list = await context.newPage();
    await page.waitForTimeout(300);
    await server.start();
    await visit(list, server, '/jobs', 'Jobs');
    await list.locator('tr', { hasText: id.slice(-8) }).waitFor();
    await server.stop();
    await list.getByText('The server does not answer').waitFor();
    await server.start();
    await until('the list has the server back', () => list.locator('#offline').isHidden());
    await page.locator('h1 .state.succeeded').waitFor({ timeout: 60_000 });
    await page.getByRole('heading', { name: 'Result' }).waitFor();
    assert.equal(await page.locator('#offline').isHidden(), true);
    const drawn = await page.locator('.charts figure').first().locator('path').first().getAttribute('d');
    assert.ok(drawn.split('L').length > 120, 'no epoch is missing');
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'jobs are filtered by state and label': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/jobs', 'Jobs');
    await page.getByLabel('Filter by a label').fill('run=7');
    await page.keyboard.press('Enter');
    await until('only those with the label', async () => (await page.locator('tbody tr').count()) > 0 && (await page.locator('tbody tr').count()) === (await page.locator('tbody .chip', { hasText: 'run=7' }).count()));
    await page.getByRole('navigation', { name: 'State' }).getByRole('link', { name: 'failed' }).click();
    await page.getByRole('heading', { name: 'No job matches' }).waitFor();
    await page.getByRole('link', { name: 'Show all jobs' }).click();
    await page.locator('tbody tr').first().waitFor();
    await page.locator('.segmented').getByRole('link', { name: 'succeeded' }).click();
    await until('only those that have succeeded', async () => (await page.locator('tbody tr').count()) > 0 && (await page.locator('tbody tr').count()) === (await page.locator('.state.succeeded').count()));
    await page.goBack();
    await until('all again', async () => (await page.locator('tbody tr').count()) > (await page.locator('.state.succeeded').count()));
    assert.deepEqual(complaints, []);
    await context.close();
  },
};
