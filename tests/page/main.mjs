// Every walk through the pages, one after the other, on servers that this process starts and ends.

import { launch } from './browser.mjs';
import { make } from './samples.mjs';
import { Server } from './server.mjs';
import { walks as openWalks } from './walks.mjs';
import { walks as jobWalks } from './job_walks.mjs';
import { walks as lookWalks } from './look_walks.mjs';
import { walks as keyWalks } from './key_walks.mjs';

const began = Date.now();
const seconds = () => ((Date.now() - began) / 1000).toFixed(1);
const servers = [];
const server = async () => {
  const made = new Server();
  servers.push(made);
  await made.start();
  return made;
};

let failed = 0;
const only = process.argv[2];
const browser = await launch();
try {
  const plain = await server();
  const world = { browser, server: plain, start: server, samples: make(plain.folder) };
  console.log(`members and data are there (${seconds()} s)`);
  for (const [name, walk] of Object.entries({ ...openWalks, ...jobWalks, ...lookWalks, ...keyWalks })) {
    if (only && !name.includes(only) && !name.startsWith('members and')) continue;
    try {
      await walk(world);
      console.log(`ok      ${name} (${seconds()} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${name} (${seconds()} s)\n${error.stack}`);
    }
  }
} finally {
  await browser.close();
  for (const one of servers) await one.remove();
}
console.log(failed ? `${failed} failed` : `all well in ${seconds()} s`);
process.exit(failed ? 1 : 0);
