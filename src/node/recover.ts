/**
 * What a node does when the coordinator's data is lost and its registers are made anew: it stops what it is with a
 * volume, and then takes another register for its own.
 *
 * Guarantees: a replica whose register is there is left alone; after `awaitRegister` this process acknowledges nothing of
 * the volume until a register says that it may; another register is taken only by a replica that stands still, and only
 * from the one that it is said to belong to.
 */
import { HoldfastError } from '../base/errors.ts';
import type { Register } from '../coordination/register.ts';
import type { ClusterNode } from './cluster-node.ts';
import type { HostedVolume } from './hosted-volume.ts';

const NO_REGISTER = '0'.repeat(32);

/** Whatever it is, primary or follower, it is no more: it is closed, and opened anew as one that waits. */
export async function awaitRegister(node: ClusterNode, volume: HostedVolume): Promise<object> {
  const register = await registerNow(node, volume);
  if (register !== null && register.registerId === volume.registerId()) {
    throw new HoldfastError('BUSY', {
      operation: 'await a register',
      volume: volume.name,
      detail: `the coordinator of ${node.node} has the register that this replica belongs to, at version ${register.version}`,
      remedy: 'nothing is lost there: find out which coordinator the nodes use',
    });
  }
  await node.renew(volume);
  return { waiting: true };
}

/** What its coordinator says; null: there is none, or no answer, as is to be expected now. */
async function registerNow(node: ClusterNode, volume: HostedVolume): Promise<Register | null> {
  return node.quick.read(volume.volumeId).catch(() => null);
}

export interface Acceptance {
  /** The register that the caller believes it to belong to. */
  was: string;
  registerId: string;
  registerVersion: number;
  epoch: number;
}

export async function acceptRegister(
  node: ClusterNode,
  volume: HostedVolume,
  { was, registerId, registerVersion, epoch }: Acceptance,
): Promise<object> {
  const own = volume.registerId();
  if (own === registerId) return { accepted: true };
  const refused = (detail: string): HoldfastError =>
    new HoldfastError('BUSY', { operation: 'accept a register', volume: volume.name, detail });
  if (own !== was) throw refused(`it belongs to the register ${own}, not to ${was}`);
  if (epoch < volume.store.epoch)
    throw refused(`that register is of epoch ${epoch}, this disk of ${volume.store.epoch}`);
  const { role } = volume.status();
  // One that has never had a register takes the first that it meets, and may be at work under it.
  if (own === NO_REGISTER && role !== 'idle') return { accepted: true };
  if (role !== 'idle') throw refused(`it is at work under its register (${role})`);
  const bytes = new Uint8Array(Buffer.from(registerId, 'hex'));
  // With --force what some have copied since a mark may be lost: no mark vouches for what changed.
  volume.store.marks.distrust();
  await volume.store.update({ replica: { ...volume.store.replica, registerId: bytes, registerVersion } });
  // What it thought of that register before is forgotten.
  await node.renew(volume);
  return { accepted: true };
}
