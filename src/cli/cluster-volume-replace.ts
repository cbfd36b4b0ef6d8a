/**
 * `holdfast volume replace VOLUME NODE`: a replica that is poisoned or damaged is deleted, and made anew on the same node.
 *
 * Guarantees: nothing is deleted while there is no other replica that is in sync, sound and answers; a command that was cut
 * off can be given again, and goes on where it was.
 */
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { Coordinator, Register, SeenNode } from '../coordination/register.ts';
import {
  changeRegister,
  clientAddressOf,
  confirm,
  deleteReplicas,
  nodeStatus,
  pause,
  registerOf,
  withCoordinator,
} from './cluster.ts';
import { lookAt } from './cluster-status.ts';
import { addReplica, handOver } from './cluster-volume-command.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { Progress, printJson } from './output.ts';

interface ReplaceFlags {
  coordinator?: string;
  yes?: boolean;
  wait?: boolean;
  allowSparse?: boolean;
  json?: boolean;
}

const LOOK_MS = 500;
const OPERATION = 'replace replica';

function refused(volume: string, detail: string, remedy?: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: OPERATION, volume, detail, remedy });
}

/** @returns in-sync members besides that one, which answer and whose disks are sound */
async function soundOthers(register: Register, nodes: readonly SeenNode[], node: string): Promise<string[]> {
  const others = register.members.filter((one) => one.node !== node && register.inSync.includes(one.node));
  const sound = await Promise.all(
    others.map(async (member) => {
      const address = clientAddressOf(member.node, nodes, register);
      const status = address === null ? null : await nodeStatus(address).catch(() => null);
      const replica = status?.replicas.find(({ volumeId }) => volumeId === register.volumeId);
      return replica?.diskId === member.diskId && replica.failed === null && replica.health === 'good';
    }),
  );
  return others.filter((_, i) => sound[i]).map((member) => member.node);
}

async function takeOut(
  coordinator: Coordinator,
  register: Register,
  nodes: readonly SeenNode[],
  node: string,
): Promise<void> {
  const { volume, volumeId } = register;
  const remedy = 'bring another one in sync first: holdfast status';
  if ((await soundOthers(register, nodes, node)).length === 0) {
    const detail = `no other replica is in sync, sound and answers: what ${node} has may be all there is`;
    throw refused(volume, detail, remedy);
  }
  if (register.primary === node) await handOver(coordinator, nodes, register, node);
  await changeRegister(coordinator, volumeId, (now) => {
    if (now.primary === node) throw refused(volume, `${node} is primary`, 'give the command again');
    const inSync = now.inSync.filter((one) => one !== node);
    if (inSync.length === 0) throw refused(volume, `${node} has the only replica that is in sync now`, remedy);
    return { ...now, inSync, members: now.members.filter((member) => member.node !== node) };
  });
}

/** Until the new replica is in sync. */
async function waitFor(coordinator: Coordinator, volume: string, node: string): Promise<void> {
  const progress = new Progress(`bringing ${node} in sync`);
  let most = 0;
  try {
    for (;;) {
      const view = await lookAt(coordinator);
      const members = view.volumes.find((one) => one.volume === volume)?.members;
      const member = members?.find((one) => one.node === node);
      if (member === undefined) throw refused(volume, `${node} has no replica of it any more`);
      if (member.state === 'in-sync') return;
      if (member.state === 'poisoned') {
        const detail = `its disk failed again: ${member.reason ?? ''}`;
        const remedy = `exchange the disk, or: holdfast volume remove-replica ${volume} --node ${node}`;
        throw new HoldfastError('POISONED', { operation: OPERATION, volume, peer: node, detail, remedy });
      }
      const left = member.sync?.leftBytes ?? 0;
      most = Math.max(most, left);
      if (left > 0) progress.update(most - left, most);
      await pause(LOOK_MS);
    }
  } finally {
    progress.stop();
  }
}

async function replace(name: string, node: string, flags: ReplaceFlags): Promise<void> {
  await withCoordinator(flags, async (coordinator) => {
    const [register, nodes] = [await registerOf(coordinator, name), await coordinator.nodes()];
    const { volumeId } = register;
    const address = clientAddressOf(node, nodes, register);
    const isMember = register.members.some((member) => member.node === node);
    const status = address === null ? null : await nodeStatus(address).catch(() => null);
    if (address === null || status === null) {
      const elsewhere = `holdfast volume add-replica ${name}, then remove-replica ${name} --node ${node}`;
      const remedy = `start it; if it is lost: ${elsewhere}`;
      throw new HoldfastError('UNREACHABLE', { operation: OPERATION, volume: name, peer: node, remedy });
    }
    const own = status.replicas.find((replica) => replica.volumeId === volumeId);
    if (!isMember && own === undefined) {
      throw refused(name, `${node} has no replica of it`, `holdfast volume add-replica ${name} --node ${node}`);
    }
    if (isMember && own?.failed === null && own.health === 'good' && register.inSync.includes(node)) {
      const what = `The replica of ${name} on ${node} is in sync, and nothing is wrong with it. It is deleted and copied anew.`;
      await confirm(name, what, flags.yes);
    }
    if (isMember) await takeOut(coordinator, register, nodes, node);
    const left = await deleteReplicas(volumeId, [{ node, address }]);
    if (left.length > 0) {
      const remedy = `give the command again; or exchange the disk, and: holdfast volume add-replica ${name} --node ${node}`;
      throw new HoldfastError('IO_ERROR', { operation: OPERATION, volume: name, peer: node, detail: left[0], remedy });
    }
    if (flags.json) printJson({ event: 'removed', volume: name, node });
    try {
      await addReplica(name, { ...flags, node });
    } catch (error) {
      const known = asHoldfastError(error);
      const remedy = `once its disk is good again: holdfast volume add-replica ${name} --node ${node}`;
      throw new HoldfastError(known.code, { ...known.details, operation: OPERATION, remedy, cause: known });
    }
    if (!flags.wait) return;
    await waitFor(coordinator, name, node);
    if (flags.json) printJson({ event: 'in-sync', volume: name, node });
    else process.stdout.write(`${node} is in sync\n`);
  });
}

export function addReplaceCommand(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  addCoordinatorOption(volume.command('replace <name> <node>'))
    .description('delete a poisoned or damaged replica and make it anew on its node; never the last one in sync')
    .option('--wait', 'until it is in sync')
    .option('--yes', 'do not ask, where the replica is sound')
    .option('--allow-sparse', 'reserve nothing: for tests')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast volume replace vm1 b --wait')
    .action((name: string, node: string, flags: ReplaceFlags) => run(() => replace(name, node, flags), flags.json));
}
