/**
 * A stream to a replica in another process that is killed, stopped for a while, or hangs: every record's memory is let
 * go exactly once and not before it was sent, and nothing is lost or doubled on a stream that goes on.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PeerStream } from '../../src/node/peer-link.ts';
import type { PeerLimits } from '../../src/node/peer-server.ts';
import type { PeerLink } from '../../src/replication/peer-messages.ts';
import { PeerNode, Witness, fillRecord, linked } from '../support/peer-node.ts';
import { until } from '../support/until.ts';

const MiB = 1024 * 1024;
const nodes: PeerNode[] = [];
const children: ChildProcess[] = [];

test.after.each(async () => {
  await Promise.all(nodes.splice(0).map(({ network }) => network.close()));
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

async function start(name: string, witness = new Witness(), limits: Partial<PeerLimits> = {}): Promise<PeerNode> {
  const node = await PeerNode.start(name, witness, limits);
  nodes.push(node);
  return node;
}

/** A process of its own that checks records and acknowledges them. */
async function otherProcess(name: string): Promise<{ address: string; child: ChildProcess }> {
  const program = fileURLToPath(new URL('../support/peer-node.js', import.meta.url));
  const child = spawn(process.execPath, [program, name], { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  return { address: line.toString().trim(), child };
}

/** Sends records from a few slots of shared memory; a slot is overwritten with the next record as soon as it is sent. */
class Pump {
  readonly sentOf: number[] = [];
  acknowledged = 0;
  refusal: string | null = null;
  stopped = false;
  private readonly link: PeerLink;
  private readonly slots: Uint8Array[];
  private readonly total: number;
  private next = 0;

  constructor(node: PeerNode, link: PeerLink, total: number, slotBytes = 64 * 1024 + 352, slots = 128) {
    this.link = link;
    this.total = total;
    const memory = new SharedArrayBuffer(slots * slotBytes);
    this.slots = Array.from({ length: slots }, (_, i) => new Uint8Array(memory, i * slotBytes, slotBytes));
    node.witness.onMessage = (_link, message) => {
      if (message.type === 'ACK' && message.position.seq === this.acknowledged) this.acknowledged++;
      else this.refusal ??= JSON.stringify(message);
    };
    for (const slot of this.slots) this.sendFrom(slot);
  }

  get sent(): number {
    return this.next;
  }

  private sendFrom(slot: Uint8Array): void {
    if (this.next === this.total) return;
    const index = this.next++;
    this.sentOf[index] = 0;
    fillRecord(slot, index);
    this.link.send({ type: 'RECORD', bytes: slot }, () => {
      this.sentOf[index]!++;
      if (!this.stopped) this.sendFrom(slot);
    });
  }
}

test('killed in the middle of many MiB: every record is let go exactly once, the end is told once', async () => {
  for (let round = 0; round < 3; round++) {
    const a = await start('a');
    const { address, child } = await otherProcess('b');
    const link = await linked(a, 'b', address);
    const pump = new Pump(a, link, Infinity);
    await until(() => pump.acknowledged > 500 + 300 * round, 'records on their way');
    pump.stopped = true;
    // Besides what the slots hold: much more than the kernel takes.
    let extra = 0;
    const bytes = new Uint8Array(new SharedArrayBuffer(260_000));
    for (let i = 0; i < 400; i++) link.send({ type: 'RECORD', bytes }, () => extra++);
    assert.ok(a.network.queuedBytes > 64 * MiB);
    child.kill('SIGKILL');
    await until(() => a.witness.ends.length > 0, 'the end');
    // All is let go before the replica hears of the end.
    assert.is(extra, 400);
    assert.equal(
      pump.sentOf,
      Array.from({ length: pump.sent }, () => 1),
    );
    assert.equal(a.witness.ends, [{ node: 'b', link }]);
    assert.is(a.network.queuedBytes, 0);
  }
});

test('stopped for two seconds it goes on, and nothing is lost or doubled', async () => {
  const a = await start('a');
  const { address, child } = await otherProcess('b');
  const link = await linked(a, 'b', address);
  const total = 3000;
  const pump = new Pump(a, link, total);
  await until(() => pump.acknowledged > 300, 'records on their way');
  child.kill('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.ok(pump.acknowledged < total, 'it was stopped in the middle');
  const queued = (link as PeerStream).queuedBytes;
  assert.ok(queued > 0, 'the kernel takes no more');
  child.kill('SIGCONT');
  await until(() => pump.acknowledged === total || a.witness.ends.length > 0, 'all acknowledged');
  assert.is(pump.acknowledged, total);
  assert.is(pump.refusal, null);
  assert.equal(
    pump.sentOf,
    Array.from({ length: total }, () => 1),
  );
  assert.equal(a.witness.ends, []);
  assert.is((link as PeerStream).queuedBytes, 0);
});

test('a reader that takes nothing is ended, and what it did not take is let go', async () => {
  const a = await start('a', new Witness(), { stallMs: 500 });
  const { address, child } = await otherProcess('b');
  const link = await linked(a, 'b', address);
  const pump = new Pump(a, link, Infinity);
  await until(() => pump.acknowledged > 100, 'records on their way');
  pump.stopped = true;
  const bytes = new Uint8Array(260_000);
  let extra = 0;
  child.kill('SIGSTOP');
  for (let i = 0; i < 100; i++) link.send({ type: 'RECORD', bytes }, () => extra++);
  await until(() => a.witness.ends.length > 0, 'the end');
  assert.equal(a.witness.ends, [{ node: 'b', link }]);
  assert.match(a.log.at(-1)!, /took nothing of \d+ bytes for 500 ms/);
  assert.is(extra, 100);
  assert.equal(
    pump.sentOf,
    Array.from({ length: pump.sent }, () => 1),
  );
});

test('throughput, for people to read', async () => {
  const a = await start('a');
  const { address } = await otherProcess('b');
  const link = await linked(a, 'b', address);
  for (const [slotBytes, slots, total] of [
    [64 * 4096 + 352, 64, 2000],
    [4096 + 128, 256, 40_000],
  ] as const) {
    const other = slotBytes < 10_000 ? await otherProcess('c') : null;
    const to = other === null ? link : await linked(a, 'c', other.address);
    const beganMs = performance.now();
    const pump = new Pump(a, to, total, slotBytes, slots);
    await until(() => pump.acknowledged === total || pump.refusal !== null, 'all acknowledged');
    assert.is(pump.refusal, null);
    const seconds = (performance.now() - beganMs) / 1000;
    const rate = `${Math.round((total * slotBytes) / MiB / seconds)} MiB/s, ${Math.round(total / seconds)} records/s`;
    console.log(`# records of ${slotBytes} bytes, checked and acknowledged by another process: ${rate}`);
  }
});

test.run();
