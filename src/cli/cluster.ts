/** What the cluster's commands share: volumes by name, nodes and what they say, changes of a register. */
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline/promises';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { admin } from '../client/admin.ts';
import { Credentials } from '../client/credentials.ts';
import type { Coordinator, NextRegister, Register, SeenNode } from '../coordination/register.ts';
import type { ReplicaStatus } from '../node/hosted-volume.ts';
import { type CoordinatorUrl, coordinatorOf } from './coordinator-flags.ts';
import type { VolumeKind } from '../storage/superblock.ts';

const BOOT_ID = randomUUID();
const MAX_ATTEMPTS = 10;
let changes = 0;

/** Who makes a version of a register from the command line. */
export function byCli(): Register['by'] {
  return { node: 'cli', bootId: BOOT_ID, n: ++changes };
}

export async function withCoordinator<T>(flags: CoordinatorUrl, work: (c: Coordinator) => Promise<T>): Promise<T> {
  const coordinator = coordinatorOf(flags);
  try {
    return await work(coordinator);
  } finally {
    await coordinator.close();
  }
}

/** @throws HoldfastError NO_SUCH_VOLUME */
export async function registerOf(coordinator: Coordinator, name: string): Promise<Register> {
  const all = await coordinator.list();
  const found = all.find(({ volume }) => volume === name);
  if (found !== undefined) return found;
  throw new HoldfastError('NO_SUCH_VOLUME', {
    operation: 'find volume',
    volume: name,
    detail: `the coordinator knows: ${all.map(({ volume }) => volume).join(', ') || 'none'}`,
  });
}

/** Changes the register as `change` says of the one in force; anew, if somebody else was first. */
export async function changeRegister(
  coordinator: Coordinator,
  volumeId: string,
  change: (register: Register) => Omit<NextRegister, 'by'>,
): Promise<Register> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const now = await coordinator.read(volumeId);
    if (now === null) {
      throw new HoldfastError('NO_SUCH_VOLUME', { operation: 'change the register', detail: volumeId });
    }
    const { version: _version, ...next } = { ...now, ...change(now), by: byCli() };
    const { outcome, register } = await coordinator.compareAndSet(now.version, next);
    if (outcome === 'done') return register;
  }
  throw new HoldfastError('BUSY', {
    operation: 'change the register',
    detail: `it changed under each of ${MAX_ATTEMPTS} attempts`,
    remedy: 'look at: holdfast status',
  });
}

/** Where clients of a node connect: what it said last, else what the register says. */
export function clientAddressOf(node: string, nodes: readonly SeenNode[], register: Register | null): string | null {
  const seen = nodes.find((one) => one.node === node)?.clientAddress;
  return seen ?? register?.members.find((one) => one.node === node)?.clientAddress ?? null;
}

/** Of a volume, for people; under TLS where this command talks to nodes so. */
export function urlOf(servers: string, volume: string): string {
  return `${Credentials.forBareAddress().secure ? 'holdfasts' : 'holdfast'}://${servers}/${volume}`;
}

/** A node's answer to `status`, of all pages. */
export interface NodeStatus {
  node: string;
  address: string;
  clientAddress: string;
  nbd: string | null;
  pid: number;
  version: string;
  replicas: ReplicaStatus[];
  unopened: Array<{ dir: string; reason: string }>;
}

/** @throws HoldfastError */
export async function nodeStatus(address: string, timeoutMs = 2000): Promise<NodeStatus> {
  const replicas: ReplicaStatus[] = [];
  for (let from: number | null = 0; ;) {
    const page = (await admin(address, { op: 'status', from }, { timeoutMs })) as unknown as NodeStatus & {
      next: number | null;
    };
    replicas.push(...page.replicas);
    from = page.next;
    if (from === null) return { ...page, replicas };
  }
}

/** Asks until the replica is there. @returns its disk's id */
export async function makeReplica(
  address: string,
  request: { volumeId: string; name: string; sizeBytes: number; state: 'in-sync' | 'syncing' } & {
    sparse: boolean;
    durable: boolean;
    kind: VolumeKind;
    journalBytes?: number;
  },
  signal: AbortSignal,
  progress: (doneBytes: number, totalBytes: number) => void,
): Promise<string> {
  for (;;) {
    signal.throwIfAborted();
    const reply = await admin(address, { op: 'create-replica', ...request }, { timeoutMs: 10_000 });
    if (reply['state'] === 'ready') return String(reply['diskId']);
    progress(Number(reply['doneBytes']), Number(reply['totalBytes']));
    await pause(100);
  }
}

/** @returns what could not be undone, in words; empty if all was */
export async function deleteReplicas(
  volumeId: string,
  where: ReadonlyArray<{ node: string; address: string | null }>,
): Promise<string[]> {
  const outcomes = await Promise.all(
    where.map(async ({ node, address }) => {
      if (address === null) return `${node}: its address is not known, the volume's folder stays there`;
      try {
        await admin(address, { op: 'delete-replica', volumeId }, { timeoutMs: 30_000 });
        return null;
      } catch (error) {
        return `${node} (${address}): the volume's folder stays there: ${asHoldfastError(error).message}`;
      }
    }),
  );
  return outcomes.filter((text) => text !== null);
}

/** @throws HoldfastError ABORTED when the name is not typed, INVALID_ARGUMENT without a terminal */
export async function confirm(
  name: string,
  what: string,
  yes: boolean | undefined,
  asked = "the volume's name",
): Promise<void> {
  process.stderr.write(`${what}\n`);
  if (yes) return;
  if (!process.stdin.isTTY) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'confirm',
      volume: name,
      detail: 'this needs an answer and there is no terminal',
      remedy: 'add --yes',
    });
  }
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await prompt.question(`Type ${asked} to go on: `);
  prompt.close();
  if (answer.trim() !== name) throw new HoldfastError('ABORTED', { operation: 'confirm', volume: name });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
