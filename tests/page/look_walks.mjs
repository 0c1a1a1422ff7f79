// How pages look: narrow, in both schemes, with a keyboard; and the description of the API.

import assert from 'node:assert/strict';
import { basename, join } from 'node:path';

import { open, until, visit } from './browser.mjs';
import { contrast } from './contrast.mjs';

/** Every page, with what has to be there before it is looked at. */
async function places(server, samples) {
  const members = samples.members.map((path) => basename(path));
  const dataset = { name: 'quarters.safetensors', normalize: 'train' };
  const done = await server.api('POST', '/v1/jobs', { json: { members, dataset, labels: { team: 'vision' }, finetune: { epochs: 4 } }, headers: { 'idempotency-key': 'looked-at' } });
  const plan = { title: 'Rankings', seeds: [0, 1], job: { dataset, evaluate: ['fused'] }, ensembles: [{ name: 'three', members }], methods: [{ name: 'auto' }, { name: 'magnitude', job: { method: { importance: 'magnitude' } } }] };
  const comparison = await server.api('POST', '/v1/comparisons', { json: plan, headers: { 'idempotency-key': 'compared' } });
  await until('the job has ended', async () => (await server.api('GET', `/v1/jobs/${done.id}`)).state === 'succeeded', 40_000);
  await until('the comparison has ended', async () => (await server.api('GET', `/v1/comparisons/${comparison.id}`)).state === 'succeeded', 40_000);
  return {
    jobs: ['/jobs', 'tbody tr'],
    job: [`/jobs/${done.id}`, '.candidates'],
    new: [`/new?from=${done.id}`, '.outcome .figures'],
    comparisons: ['/comparisons', 'tbody tr'],
    comparison: [`/comparisons/${comparison.id}`, '.grid-of-runs'],
    checkpoints: ['/checkpoints', 'tbody tr'],
    checkpoint: ['/checkpoints/m0.safetensors', '.tensors'],
    dataset: ['/datasets/quarters.safetensors', '.example'],
    datasets: ['/datasets', 'tbody tr'],
    workers: ['/workers', '.state.ready'],
    docs: ['/docs?op=createJob', '.operation h3'],
    problem: ['/jobs/job_0', '.notice'],
    nothing: ['/jobs?state=failed', '.empty'],
  };
}

async function look({ browser, server, samples }, viewport) {
  const { context, page, complaints } = await open(browser, { viewport });
  let measured = 0;
  for (const [name, [place, sign]] of Object.entries(await places(server, samples))) {
    await page.goto(`${server.url}/#${place}`);
    await page.locator(sign).first().waitFor();
    await page.waitForTimeout(150);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, `${name} scrolls sideways by ${wide} px`);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const { found, measured: here } = await contrast(page);
      assert.deepEqual(found, [], `${name}, ${colorScheme}`);
      assert.ok(here > 10, `${name} has texts`);
      measured += here;
      await page.screenshot({ path: join(process.env.SHOTS, `${name}-${colorScheme}-${viewport.width}.png`), fullPage: true });
    }
  }
  console.log(`        ${measured} contrasts measured at ${viewport.width} px`);
  assert.deepEqual(complaints, []);
  await context.close();
}

export const walks = {
  'wide pages, light and dark': (world) => look(world, { width: 1280, height: 800 }),
  'narrow pages, light and dark': (world) => look(world, { width: 390, height: 844 }),

  'a keyboard is enough': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    await visit(page, server, '/checkpoints', 'Checkpoints');
    await page.locator('tbody tr').first().waitFor();
    await page.keyboard.press('Tab');
    const order = [];
    for (let step = 0; step < 14; step += 1) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        return { text: document.activeElement.textContent.trim(), tag: document.activeElement.tagName, seen: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 };
      });
      assert.ok(focused.seen, `the focus is seen on ${focused.tag} ${focused.text}`);
      assert.ok(['A', 'BUTTON', 'INPUT'].includes(focused.tag), focused.tag);
      order.push(focused.text);
    }
    assert.ok(order.includes('Choose files') && order.includes('Delete'), order.join(', '));
    const clickable = await page.evaluate(() => [...document.querySelectorAll('[onclick], div[tabindex]')].length);
    assert.equal(clickable, 0);
    await page.getByRole('button', { name: /^Delete/ }).first().focus();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Keep', 'what is safe has the focus');
    await page.keyboard.press('Escape');
    assert.match(await page.evaluate(() => document.activeElement.textContent), /Delete/, 'the focus is where it was');
    await page.waitForTimeout(3500);
    assert.match(await page.evaluate(() => document.activeElement.textContent), /Delete/, 'also after the list was read again');
    assert.deepEqual(complaints, []);
    await context.close();
  },

  'the API is described': async ({ browser, server }) => {
    const { context, page, complaints } = await open(browser);
    await page.goto(`${server.url}/docs`);
    await page.getByRole('heading', { level: 1, name: 'API' }).waitFor();
    const { paths } = await server.api('GET', '/openapi.json');
    const all = Object.values(paths).flatMap((item) => Object.keys(item).filter((name) => ['get', 'put', 'post', 'delete', 'head', 'patch'].includes(name))).length;
    await page.getByText(`${all} of ${all} operations`).waitFor();
    await page.getByLabel('Search the API').fill('retry');
    await until('the search has an effect', async () => (await page.locator('.operations .card > details:visible').count()) < 6);
    await page.getByText('/retry').first().click();
    await page.getByText('Where to begin').waitFor();
    await page.getByLabel('Search the API').fill('createJob');
    await page.locator('details:visible > summary', { hasText: 'POST' }).first().click();
    await page.locator('.property:has(> div:first-child > code:text-is("finetune"))').first().locator('summary').first().click();
    await page.locator('.property', { hasText: 'epochs' }).first().waitFor();
    assert.deepEqual(complaints, []);
    await context.close();
  },
};
