// Chromium, and what is expected of a page wherever it is.

import assert from 'node:assert/strict';

const { chromium } = await import(process.env.PLAYWRIGHT);

/** A browser, and every complaint of it or of a script that no test expects. */
export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
}

/** A window of its own; `complaints` collects errors of scripts and what the content policy has stopped. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true, ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => {});
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.stack));
  page.on('console', (message) => {
    const text = message.text();
    // A refusal or an absent server is what a test asked for; the page has to show it.
    if (message.type() === 'error' && !/Failed to load resource|ERR_/.test(text)) complaints.push(text);
  });
  page.setDefaultTimeout(15_000);
  return { context, page, complaints };
}

/** Waits until `probe` holds. */
export async function until(what, probe, milliseconds = 20_000) {
  const end = Date.now() + milliseconds;
  for (;;) {
    if (await probe()) return;
    if (Date.now() > end) assert.fail(`not within ${milliseconds} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
}

/** Goes to the place `hash` and waits for its heading. */
export async function visit(page, server, hash, heading) {
  await page.goto(`${server.url}/#${hash}`);
  await page.getByRole('heading', { level: 1, name: heading }).waitFor();
}
