/**
 * `holdfast coordinator recover`: makes the registers anew from what the nodes say of their disks, when the coordinator's
 * data is lost.
 *
 * Guarantees: nothing is changed before it was shown and confirmed; what is written rests on disks that stand still, so
 * nothing is acknowledged between the look and the register; a register that is there is kept; a node that does not
 * answer, or any other reason for which acknowledged writes may be lost, needs --force; after a failure half way the
 * command can be given again.
 */
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { admin } from '../client/admin.ts';
import { checkNewRegister, given } from '../coordination/check-register.ts';
import { RegisterFolder } from '../coordination/register-folder.ts';
import { type NewRegister, type Register, registerExists } from '../coordination/register.ts';
import { byCli, confirm, nodeStatus } from './cluster.ts';
import { addCoordinatorOption, coordinatorOf } from './coordinator-flags.ts';
import { printJson, printTable } from './output.ts';
import { type Found, type RecoveryPlan, planAll } from './recover-plan.ts';

export interface RecoverFlags {
  dir?: string;
  coordinator?: string;
  from?: string[];
  volume?: string[];
  force?: boolean;
  yes?: boolean;
  json?: boolean;
}

/** A primary waits for requests under way first; then the journal is applied, and read again. */
const STAND_STILL_MS = 60_000;
const operation = 'recover the registers';

/** Where the registers are made: a coordinator, or the folder of one that does not run. */
interface Target {
  list(): Promise<Register[]>;
  create(register: NewRegister): Promise<Register>;
  /** Where clients of the nodes that it has heard of connect. */
  nodes(): Promise<string[]>;
  close(): Promise<void>;
}

async function targetOf(flags: RecoverFlags): Promise<Target> {
  if (flags.dir === undefined) {
    const coordinator = coordinatorOf(flags);
    return {
      list: () => coordinator.list(),
      create: (register) => coordinator.create(register),
      nodes: async () => (await coordinator.nodes()).map(({ clientAddress }) => clientAddress),
      close: () => coordinator.close(),
    };
  }
  const folder = await RegisterFolder.open(flags.dir);
  const list = (): Register[] => [...folder.registers.values()];
  return {
    list: async () => list(),
    create: async (wanted) => {
      const { volume, volumeId } = checkNewRegister(wanted, given(operation));
      const other = list().find((one) => one.volumeId === volumeId || one.volume === volume);
      if (other !== undefined) throw registerExists(volume, other.volumeId);
      const register = { ...wanted, registerId: randomBytes(16).toString('hex'), version: 1 };
      await folder.put(register);
      return register;
    },
    nodes: async () => [],
    close: async () => folder.close(),
  };
}

// --- what the nodes say -----------------------------------------------------------------------------------------------------

interface Answers {
  found: Found[];
  /** What was not answered, in words. */
  silent: string[];
  /** Folders that a node could not open: there may be a replica in them. */
  unopened: Array<{ node: string; dir: string; reason: string }>;
}

async function ask(addresses: readonly string[]): Promise<Answers> {
  const answers: Answers = { found: [], silent: [], unopened: [] };
  const nodes = new Set<string>();
  await Promise.all(
    addresses.map(async (asked) => {
      try {
        const { node, address, clientAddress, replicas, unopened } = await nodeStatus(asked);
        if (nodes.has(node)) return;
        nodes.add(node);
        answers.found.push(...replicas.map((replica) => ({ node, address, clientAddress, replica })));
        answers.unopened.push(...unopened.map((one) => ({ node, ...one })));
      } catch (error) {
        answers.silent.push(`a node does not answer, ${asked}: ${asHoldfastError(error).message}`);
      }
    }),
  );
  answers.found.sort((a, b) => (a.node < b.node ? -1 : 1));
  answers.silent.sort();
  return answers;
}

function show(plans: readonly RecoveryPlan[], registers: readonly Register[]): void {
  const rows = plans.flatMap(({ volume, volumeId, inSync, found }) => {
    const kept = registers.some((register) => register.volumeId === volumeId);
    return found.map(({ node, replica: { state, health, epoch, last } }) => [
      volume,
      node,
      health === 'good' ? state : health,
      epoch,
      last,
      kept
        ? 'as its register says'
        : inSync.includes(node)
          ? 'in sync'
          : 'brought in sync, what differs is overwritten',
    ]);
  });
  printTable(['volume', 'node', 'says it is', 'epoch', 'log up to', 'will be'], rows);
}

// --- the work ---------------------------------------------------------------------------------------------------------------

/** Every replica stands still from here on, until a register says what it is. @returns the plan as it is then */
async function standStill(plan: RecoveryPlan): Promise<RecoveryPlan> {
  const { volumeId, volume } = plan;
  const request = { op: 'await-register', volumeId };
  await Promise.all(plan.found.map((one) => admin(one.clientAddress, request, { timeoutMs: STAND_STILL_MS })));
  const { found, silent } = await ask(plan.found.map(({ clientAddress }) => clientAddress));
  const [now] = planAll(found.filter(({ replica }) => replica.volumeId === volumeId));
  const moving = now?.found.find(({ replica }) => replica.role !== 'idle');
  if (now !== undefined && now.found.length === plan.found.length && moving === undefined) return now;
  throw new HoldfastError('BUSY', {
    operation,
    volume,
    detail: moving === undefined ? `it is gone: ${silent.join('; ')}` : `${moving.node} is ${moving.replica.role}`,
    remedy: 'give the command again',
  });
}

async function recover(target: Target, shown: RecoveryPlan, flags: RecoverFlags): Promise<Register> {
  const plan = await standStill(shown);
  const { volumeId, volume, sizeBytes, inSync, epoch, found } = plan;
  refuseRisks([plan], [], flags);
  const members = found.map(({ node, address, clientAddress, replica: { diskId } }) => ({
    node,
    diskId,
    address,
    clientAddress,
  }));
  return target.create({ volumeId, volume, sizeBytes, epoch, primary: '', inSync, members, by: byCli() });
}

/** Disks that the register has as members, and that belong to another one. */
function strangersTo(register: Register, found: readonly Found[]): Found[] {
  const { volumeId, registerId, members } = register;
  return found.filter(
    ({ node, replica }) =>
      replica.volumeId === volumeId &&
      replica.registerId !== registerId &&
      members.some((member) => member.node === node && member.diskId === replica.diskId),
  );
}

/** They belong to that register from here on. */
async function hand({ volumeId, registerId, version, epoch }: Register, strangers: readonly Found[]): Promise<void> {
  await Promise.all(
    strangers.map(({ clientAddress, replica }) => {
      const request = { op: 'accept-register', volumeId, was: replica.registerId, registerId, epoch };
      return admin(clientAddress, { ...request, registerVersion: version }, { timeoutMs: STAND_STILL_MS });
    }),
  );
}

/** @throws HoldfastError INVALID_ARGUMENT without --force */
function refuseRisks(plans: readonly RecoveryPlan[], silent: readonly string[], flags: RecoverFlags): void {
  for (const { volume, inSync } of plans) {
    if (inSync.length > 0) continue;
    throw new HoldfastError('DAMAGED', {
      operation,
      volume,
      detail: 'none of its replicas is whole',
      remedy: 'find the node that has one; name the volumes that are to be recovered without it: --volume NAME',
    });
  }
  const risks = risksOf(plans, silent);
  if (risks.length === 0 || flags.force) return;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation,
    detail: risks.join('; '),
    remedy:
      'start the nodes that are missing, and name all with --from; if what they have is gone for good, add --force',
  });
}

const risksOf = (plans: readonly RecoveryPlan[], silent: readonly string[]): string[] => [
  ...silent,
  ...plans.flatMap(({ volume, risks }) => risks.map((risk) => `${volume}: ${risk}`)),
];

async function recoverAll(flags: RecoverFlags): Promise<void> {
  const target = await targetOf(flags);
  try {
    const registers = await target.list();
    const addresses = new Set([...(flags.from ?? []), ...(await target.nodes())]);
    if (addresses.size === 0) {
      const remedy = 'name all nodes: --from 10.0.0.1:7401 10.0.0.2:7401';
      throw new HoldfastError('INVALID_ARGUMENT', { operation, detail: 'no node is known', remedy });
    }
    const { found, silent, unopened } = await ask([...addresses]);
    const wanted = ({ volume }: RecoveryPlan): boolean => flags.volume?.includes(volume) ?? true;
    const all = planAll(found).filter(wanted);
    const lost = all.filter(({ volumeId }) => registers.every((register) => register.volumeId !== volumeId));
    for (const { node, dir, reason } of unopened) {
      if (lost.some(({ volume }) => volume === basename(dir))) silent.push(`${node} could not open ${dir}: ${reason}`);
    }
    // An earlier attempt has made these, and not handed them to all.
    const left = registers
      .map((register) => ({ register, strangers: strangersTo(register, found) }))
      .filter(({ strangers }) => strangers.length > 0);
    if (!flags.json) show(all, registers);
    refuseRisks(lost, silent, flags);
    await confirmed(lost, silent, left, flags);
    const made: Register[] = [];
    for (const plan of lost) {
      const register = await recover(target, plan, flags);
      made.push(register);
      const now = await ask(plan.found.map(({ clientAddress }) => clientAddress));
      await hand(register, strangersTo(register, now.found));
      if (now.silent.length === 0) continue;
      const detail = `its register is there, and not yet handed to all: ${now.silent.join('; ')}`;
      const remedy = 'when that node is back give the command again';
      throw new HoldfastError('UNREACHABLE', { operation, volume: register.volume, detail, remedy });
    }
    for (const { register, strangers } of left) await hand(register, strangers);
    tell(made, flags);
  } finally {
    await target.close();
  }
}

async function confirmed(
  lost: readonly RecoveryPlan[],
  silent: readonly string[],
  left: ReadonlyArray<{ register: Register; strangers: Found[] }>,
  flags: RecoverFlags,
): Promise<void> {
  if (lost.length + left.length === 0) return;
  const lines = lost.map(({ volume, sizeBytes }) => `${volume} (${formatBytes(sizeBytes)}) gets a new register`);
  for (const { register, strangers } of left) {
    const nodes = strangers.map(({ node }) => node).join(', ');
    lines.push(`${register.volume}: the register that is there is handed to ${nodes}`);
  }
  lines.push('These volumes are not served until that is done.');
  const risks = risksOf(lost, silent);
  if (risks.length > 0) lines.push('Acknowledged writes MAY BE LOST:', ...risks.map((risk) => `  ${risk}`));
  await confirm('recover', lines.join('\n'), flags.yes, 'the word "recover"');
}

function tell(made: readonly Register[], flags: RecoverFlags): void {
  if (flags.json) return printJson({ event: 'recovered', registers: made });
  for (const { volume, epoch, inSync } of made) {
    process.stdout.write(`recovered ${volume}: epoch ${epoch}, in sync: ${inSync.join(', ')}\n`);
  }
  if (made.length === 0) process.stdout.write('no new register was needed\n');
  else if (flags.dir !== undefined) process.stdout.write(`now start: holdfast coordinator --dir ${flags.dir}\n`);
}

export function addRecoverCommand(
  coordinator: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const command = coordinator
    .command('recover')
    .description("when the coordinator's data is lost: makes the registers anew from what the nodes say");
  addCoordinatorOption(command)
    .option('--from <node...>', 'client addresses of all nodes, host:port')
    .option('--volume <name...>', 'of these volumes only')
    .option('--force', 'also when acknowledged writes may be lost by it')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      '\nWith --dir DIR: into the folder of an embedded coordinator that does not run.\n' +
        'With --coordinator URL: into one that runs, or etcd.\n' +
        '\nExample:\n  holdfast coordinator recover --dir ./coordinator --from 10.0.0.1:7401 10.0.0.2:7401',
    )
    .action(() => {
      const flags = command.optsWithGlobals<RecoverFlags>();
      return run(() => recoverAll(flags), flags.json);
    });
}
