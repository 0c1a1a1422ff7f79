// A server on loopback with a data directory of its own, which ends with this process.

import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { PROGRAM } = process.env;

export class Server {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), 'engraft-page-'));
    this.address = '127.0.0.1:0';
  }

  get url() {
    return `http://${this.address}`;
  }

  /** Starts it, after a stop on the same port. */
  async start() {
    this.child = spawn(PROGRAM, ['serve', '--listen', this.address, '--data-dir', join(this.folder, 'data'), '--log', 'info'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let told = '';
    const listens = new Promise((resolve, reject) => {
      const read = (chunk) => {
        told += chunk;
        const found = told.match(/127\.0\.0\.1:(?!0\b)\d+/);
        if (found) resolve(found[0]);
      };
      this.child.stdout.on('data', read);
      this.child.stderr.on('data', read);
      this.child.once('exit', () => reject(new Error(`the server has ended:\n${told}`)));
    });
    this.address = await listens;
    for (;;) {
      const ready = await fetch(`${this.url}/readyz`).then((answer) => answer.ok, () => false);
      if (ready) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Ends it at once, as a crash would; its data stays. */
  async stop(signal = 'SIGKILL') {
    if (!this.child || this.child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill(signal);
    await ended;
  }

  /** A new key. */
  key(scope) {
    return execFileSync(PROGRAM, ['keys', 'create', '--data-dir', join(this.folder, 'data'), '--scope', scope, '--tenant', 'vision'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  }

  /** Sends a request as a program would, and reads JSON. */
  async api(method, path, { json, body, headers = {} } = {}) {
    const answer = await fetch(`${this.url}${path}`, { method, headers: json ? { 'content-type': 'application/json', ...headers } : headers, body: json ? JSON.stringify(json) : body });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  async remove() {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
