/**
 * The inside of full-disk.test.ts: runs in a mount namespace of its own, with a small tmpfs at the folder that it is
 * given. Prints what happened as one line of JSON.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RawClient } from '../support/raw-client.ts';
import { ServerProcess } from '../support/server-process.ts';

const folder = process.argv[2]!;
const ballast = join(folder, 'ballast');
writeFileSync(ballast, new Uint8Array(40 * 1024 * 1024));
const server = await ServerProcess.start(join(folder, 'vol'), ['--size', '1GiB', '--allow-sparse']);
const client = await RawClient.attached(server.port, 1n, 1);
const CHUNK = 256 * 1024;
const acknowledged: number[] = [];
let refusedWith = '';
let request = 0;
const fill = (i: number): Uint8Array => new Uint8Array(CHUNK).fill(1 + (i % 250));
for (let i = 0; i < 1000 && refusedWith === ''; i++) {
  const reply = await client.write(++request, i * CHUNK, fill(i));
  if (reply.error !== null) refusedWith = reply.error.code;
  else acknowledged.push(i);
}
// Everything acknowledged is in the journal or in place; what is in place can be read while the disk is full.
const readWhileFull = (await client.read(0, 4096)).error?.code ?? 'ok';
rmSync(ballast);
let resumed = false;
for (let attempt = 0; attempt < 100 && !resumed; attempt++) {
  resumed = (await client.write(++request, 900 * CHUNK, fill(900))).error === null;
  if (!resumed) await new Promise((resolve) => setTimeout(resolve, 100));
}
let lost = 0;
for (const i of acknowledged) {
  const reply = await client.read(i * CHUNK, CHUNK);
  if (reply.error !== null || reply.payload!.some((byte) => byte !== 1 + (i % 250))) lost++;
}
client.close();
const { code } = await server.kill('SIGTERM');
process.stdout.write(
  `${JSON.stringify({ acknowledged: acknowledged.length, refusedWith, readWhileFull, resumed, lost, code })}\n`,
);
