/** `holdfast volume list | info | delete | add-replica | remove-replica | promote`: volumes of a cluster. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { admin } from '../client/admin.ts';
import type { Coordinator, Register, SeenNode } from '../coordination/register.ts';
import {
  changeRegister,
  clientAddressOf,
  confirm,
  deleteReplicas,
  makeReplica,
  nodeStatus,
  pause,
  registerOf,
  withCoordinator,
  urlOf,
} from './cluster.ts';
import { place } from './cluster-volume-create.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { Progress, printFields, printJson, printTable } from './output.ts';

interface Flags {
  coordinator?: string;
  node?: string;
  yes?: boolean;
  force?: boolean;
  allowSparse?: boolean;
  json?: boolean;
}

/** How long another node may take to become primary. */
const HAND_OVER_MS = 15_000;

async function list(flags: Flags): Promise<void> {
  const registers = await withCoordinator(flags, (coordinator) => coordinator.list());
  if (flags.json) return printJson({ volumes: registers });
  if (registers.length === 0) return void process.stdout.write('no volumes\n');
  printTable(
    ['volume', 'size', 'epoch', 'primary', 'in sync', 'members'],
    registers.map(({ volume, sizeBytes, epoch, primary, inSync, members }) => [
      volume,
      formatBytes(sizeBytes),
      epoch,
      primary || '-',
      inSync.join(' '),
      members.map(({ node }) => node).join(' '),
    ]),
  );
}

export async function clusterInfo(name: string, flags: Flags): Promise<void> {
  const register = await withCoordinator(flags, (coordinator) => registerOf(coordinator, name));
  if (flags.json) return printJson(register);
  const { volumeId, sizeBytes, epoch, version, primary, inSync, members } = register;
  printFields({
    name,
    volumeId,
    size: formatBytes(sizeBytes),
    epoch,
    registerVersion: version,
    primary: primary || '(none)',
    inSync: inSync.join(', '),
    members: members.map(({ node, clientAddress }) => `${node} (${clientAddress})`).join(', '),
    url: urlOf(members.map(({ clientAddress }) => clientAddress).join(','), name),
  });
}

function told(flags: Flags, text: string, fields: object): void {
  if (flags.json) printJson(fields);
  else process.stdout.write(`${text}\n`);
}

async function remove(name: string, flags: Flags): Promise<void> {
  await withCoordinator(flags, async (coordinator) => {
    const register = await registerOf(coordinator, name);
    const on = register.members.map(({ node }) => node).join(', ');
    await confirm(name, `All data of ${name} (${formatBytes(register.sizeBytes)}, on ${on}) is deleted.`, flags.yes);
    const nodes = await coordinator.nodes();
    // From here on nobody becomes primary; then the nodes let their replicas go.
    await coordinator.remove(register.volumeId, register.version);
    const where = register.members.map(({ node }) => ({ node, address: clientAddressOf(node, nodes, register) }));
    const left = await deleteReplicas(register.volumeId, where);
    told(flags, `deleted ${name}`, { event: 'deleted', volume: name, left });
    if (flags.json) return;
    for (const text of left) process.stdout.write(`  ${text}\n`);
  });
}

// --- members ----------------------------------------------------------------------------------------------------------------

export async function addReplica(name: string, flags: Flags): Promise<void> {
  await withCoordinator(flags, async (coordinator) => {
    const [register, nodes] = [await registerOf(coordinator, name), await coordinator.nodes()];
    const isMember = (node: string): boolean => register.members.some((member) => member.node === node);
    const wrong = (detail: string): HoldfastError =>
      new HoldfastError('INVALID_ARGUMENT', { operation: 'add replica', volume: name, detail });
    if (flags.node !== undefined && isMember(flags.node)) throw wrong(`${flags.node} has a replica`);
    const free = nodes.filter(({ node }) => !isMember(node) && (flags.node ?? node) === node);
    const chosen = place(free, 1, undefined)[0];
    if (chosen === undefined) throw wrong(`${flags.node ?? 'a node without a replica'} is not there`);
    const { node, address, clientAddress } = chosen;
    const { volumeId, sizeBytes } = register;
    const progress = new Progress(`creating ${name} on ${node}`);
    // As the replicas that are there.
    const there =
      clientAddressOf(register.primary, nodes, register) ?? clientAddressOf(register.inSync[0] ?? '', nodes, register);
    const replicas = there === null ? [] : (await nodeStatus(there)).replicas;
    const kind = replicas.find((one) => one.volumeId === volumeId)?.kind ?? 'block';
    const request = { volumeId, name, sizeBytes, sparse: flags.allowSparse ?? false, durable: true, kind };
    const abort = new AbortController();
    const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation: 'add replica', volume: name }));
    process.once('SIGINT', interrupt);
    try {
      const diskId = await makeReplica(clientAddress, { ...request, state: 'syncing' }, abort.signal, (done, total) =>
        progress.update(done, Math.max(1, total)),
      );
      await changeRegister(coordinator, volumeId, (now) => {
        if (now.sizeBytes !== sizeBytes) throw wrong('the volume has grown meanwhile: give the command again');
        const members = now.members.filter((one) => one.node !== node);
        return { ...now, members: [...members, { node, diskId, address, clientAddress }] };
      });
    } catch (error) {
      // Refused by the node if the register has it after all.
      const left = await deleteReplicas(volumeId, [{ node, address: clientAddress }]);
      for (const text of left) process.stderr.write(`${text}\n`);
      throw error;
    } finally {
      progress.stop();
      process.off('SIGINT', interrupt);
    }
    told(flags, `${node} is a member of ${name}; it is being brought in sync: holdfast status`, {
      event: 'added',
      volume: name,
      node,
    });
  });
}

/** The primary's place goes to another in-sync member. */
export async function handOver(
  coordinator: Coordinator,
  nodes: readonly SeenNode[],
  register: Register,
  node: string,
): Promise<void> {
  const address = clientAddressOf(node, nodes, register)!;
  await admin(address, { op: 'resign', volume: register.volume }, { timeoutMs: 30_000 });
  const endAt = performance.now() + HAND_OVER_MS;
  for (;;) {
    const now = await coordinator.read(register.volumeId);
    if (now !== null && now.primary !== node && now.primary !== '') return;
    if (performance.now() > endAt) {
      throw new HoldfastError('DEADLINE', {
        operation: 'hand over',
        volume: register.volume,
        detail: `no other node became primary within ${HAND_OVER_MS} ms`,
        remedy: 'look at: holdfast status',
      });
    }
    await pause(100);
  }
}

async function removeReplica(name: string, flags: Flags & { node: string }): Promise<void> {
  const { node } = flags;
  await withCoordinator(flags, async (coordinator) => {
    const [register, nodes] = [await registerOf(coordinator, name), await coordinator.nodes()];
    const wrong = (detail: string): HoldfastError =>
      new HoldfastError('INVALID_ARGUMENT', { operation: 'remove replica', volume: name, detail });
    const check = ({ members, inSync }: Register): void => {
      if (!members.some((member) => member.node === node)) throw wrong(`${node} has no replica of it`);
      if (inSync.length === 1 && inSync[0] === node) throw wrong(`${node} has the only replica that is in sync`);
    };
    check(register);
    if (register.primary === node) await handOver(coordinator, nodes, register, node);
    await changeRegister(coordinator, register.volumeId, (now) => {
      check(now);
      if (now.primary === node) throw wrong(`${node} is primary`);
      const inSync = now.inSync.filter((one) => one !== node);
      return { ...now, inSync, members: now.members.filter((member) => member.node !== node) };
    });
    const left = await deleteReplicas(register.volumeId, [{ node, address: clientAddressOf(node, nodes, register) }]);
    told(flags, `${node} has no replica of ${name} any more`, { event: 'removed', volume: name, node, left });
    if (!flags.json) for (const text of left) process.stdout.write(`  ${text}\n`);
  });
}

async function promote(name: string, flags: Flags & { node: string }): Promise<void> {
  const { node } = flags;
  await withCoordinator(flags, async (coordinator) => {
    const [register, nodes] = [await registerOf(coordinator, name), await coordinator.nodes()];
    const refused = (detail: string, remedy?: string): HoldfastError =>
      new HoldfastError('INVALID_ARGUMENT', { operation: 'promote', volume: name, detail, remedy });
    if (!flags.force) throw refused('acknowledged writes may be lost by it', 'if that is what you want, add --force');
    const address = clientAddressOf(node, nodes, register);
    if (!register.members.some((member) => member.node === node) || address === null)
      throw refused(`${node} has no replica of it`);
    for (const other of register.inSync) {
      const otherAddress = clientAddressOf(other, nodes, register);
      const there = otherAddress === null ? null : await nodeStatus(otherAddress).catch(() => null);
      const replica = there?.replicas.find(({ volumeId }) => volumeId === register.volumeId);
      if (replica !== undefined && replica.failed === null) {
        throw refused(`${other} is in sync and answers`, 'wait for it, or look why it is not primary: holdfast status');
      }
    }
    const own = (await nodeStatus(address)).replicas.find(({ volumeId }) => volumeId === register.volumeId);
    if (own === undefined) throw refused(`${node} does not host it`);
    const half =
      own.state === 'syncing' ? ' It was being made equal when it stopped: it may be a MIXTURE of times.' : '';
    await confirm(
      name,
      `In sync are: ${register.inSync.join(', ')}; none of them answers. ${node} has the log up to ${own.last}, and is ` +
        `${own.state}. Every write that was acknowledged after that is LOST.${half} What lies on the others will be ` +
        'overwritten when they come back.',
      flags.yes,
    );
    const reply = await admin(address, { op: 'promote', volumeId: register.volumeId });
    const epoch = Number(reply['epoch']);
    const now = await changeRegister(coordinator, register.volumeId, (current) => {
      if (current.version !== register.version) throw refused('the register has changed meanwhile', 'look again');
      return { ...current, inSync: [node], primary: '', epoch: Math.max(current.epoch, epoch) + 1 };
    });
    told(flags, `${node} is the one in-sync replica of ${name} now, and becomes primary`, {
      event: 'promoted',
      volume: name,
      node,
      epoch: now.epoch,
    });
  });
}

export function addClusterVolumeCommands(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const command = (name: string, description: string): Command =>
    addCoordinatorOption(volume.command(name).description(description)).option('--json', 'print JSON');
  command('list', 'volumes of the cluster').action((flags: Flags) => run(() => list(flags), flags.json));
  command('delete <name>', 'delete a volume of the cluster, with all of its replicas')
    .option('--yes', 'do not ask')
    .action((name: string, flags: Flags) => run(() => remove(name, flags), flags.json));
  command('add-replica <name>', 'make one more replica; the primary brings it in sync')
    .option('--node <node>', 'where; default: the node with the most free space')
    .option('--allow-sparse', 'reserve nothing: for tests')
    .action((name: string, flags: Flags) => run(() => addReplica(name, flags), flags.json));
  command('remove-replica <name>', 'take a replica out and delete it; a primary hands over first')
    .requiredOption('--node <node>', 'whose')
    .action((name: string, flags: Flags & { node: string }) => run(() => removeReplica(name, flags), flags.json));
  command('promote <name>', 'when all in-sync replicas are lost: go on with another one, and lose what it lacks')
    .requiredOption('--node <node>', 'whose replica')
    .option('--force', 'acknowledged writes may be lost')
    .option('--yes', 'do not ask')
    .action((name: string, flags: Flags & { node: string }) => run(() => promote(name, flags), flags.json));
}
