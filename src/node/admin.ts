/**
 * What a node can be asked and told about itself: `status`, `events`, and making, deleting, enlarging, comparing, handing
 * over and recovering its replicas.
 *
 * Guarantees: a replica is deleted only when the register, read now, does not have its disk as a member; a creation
 * that fails leaves nothing; repeated requests have no further effect; creations under way are bounded.
 */
import { randomBytes } from 'node:crypto';
import { rename, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { ORIGIN } from '../base/position.ts';
import { BLOCK_BYTES, MAX_VOLUME_BYTES } from '../base/units.ts';
import { createVolume, openVolume } from '../storage/volume-folder.ts';
import { checkVolumeName } from '../storage/volume-rules.ts';
import { type Fields, choiceField, countField, flagField, idField, sizeField, textField } from './admin-fields.ts';
import type { ClusterNode } from './cluster-node.ts';
import { type HostedVolume, toHex } from './hosted-volume.ts';
import { acceptRegister, awaitRegister } from './recover.ts';
import { toldEvents } from './told-events.ts';
import { PACKAGE_VERSION } from './version.ts';
import { WriteHolds } from './write-holds.ts';

const MAX_CREATIONS = 4;
/** Replicas in one answer: it is to fit into a control message. */
const STATUS_PAGE = 24;

interface Creation {
  name: string;
  doneBytes: number;
  totalBytes: number;
  error: HoldfastError | null;
  abort: AbortController;
  over: Promise<void>;
}

export class Admin {
  private readonly node: ClusterNode;
  private readonly creations: Map<string, Creation> = new Map();
  /** Volumes that are being deleted, handed over, adopted: one such thing at a time for each. */
  private readonly busy: Set<string> = new Set();
  private readonly holds = new WriteHolds();

  constructor(node: ClusterNode) {
    this.node = node;
  }

  /** @throws HoldfastError */
  async perform(request: unknown): Promise<object> {
    const fields = request as Fields;
    const op = textField(fields, 'op');
    switch (op) {
      case 'status':
        return this.status(fields);
      case 'events':
        return toldEvents(this.node, countField(fields, 'after', 0, Number.MAX_SAFE_INTEGER));
      case 'create-replica':
        return this.create(fields);
      case 'delete-replica':
        return this.alone(idField(fields, 'volumeId'), (volumeId) => this.remove(volumeId));
      case 'grow-replica':
        return this.node.growths.perform(fields, this.busy);
      case 'resign':
        return this.resign(fields);
      case 'promote':
        return this.alone(idField(fields, 'volumeId'), (volumeId) => this.promote(volumeId));
      case 'await-register':
        return this.alone(idField(fields, 'volumeId'), (id) => awaitRegister(this.node, this.hosted(id)));
      case 'accept-register':
        return this.accept(fields);
      case 'adopt':
        return this.adopt(fields);
      case 'release':
        return this.release(fields);
      case 'verify':
        return this.verify(fields);
      case 'fault':
        return this.fault(fields);
      case 'hold-writes':
      case 'let-writes':
        return this.holds.perform(op, fields, this.hosted(idField(fields, 'volumeId')));
      default:
        throw new HoldfastError('UNSUPPORTED', { operation: 'ADMIN', detail: `the op "${op}" is not known` });
    }
  }

  private fault(fields: Fields): object {
    const { faults, node } = this.node;
    if (faults !== null) return { node, ...faults.perform(fields, this.node.known()) };
    throw new HoldfastError('UNSUPPORTED', {
      operation: 'fault',
      peer: node,
      detail: 'this node takes no faults',
      remedy: 'where nothing of value is stored, start it with: holdfast node --enable-faults',
    });
  }

  /** All replicas in sync are compared block by block, by the primary. */
  private verify(fields: Fields): object {
    const volume = this.hosted(idField(fields, 'volumeId'));
    const action = choiceField(fields, 'action', ['start', 'progress', 'stop']);
    if (action === 'start') {
      const fromBlock = countField(fields, 'fromBlock', 0, volume.store.blocks);
      const bytesPerSecond = countField(fields, 'bytesPerSecond', BLOCK_BYTES, Number.MAX_SAFE_INTEGER);
      return { ...volume.comparing.begin(volume.primary, fromBlock, bytesPerSecond) };
    }
    if (action === 'stop') volume.comparing.end('it was told to');
    if (volume.comparing.progress !== null) return { ...volume.comparing.progress };
    throw new HoldfastError('NO_SUCH_VOLUME', {
      operation: 'verify',
      volume: volume.name,
      peer: this.node.node,
      detail: 'no comparison was begun since this node has it open',
    });
  }

  private async alone<T>(key: string, work: (key: string) => Promise<T>): Promise<T> {
    if (this.busy.has(key)) {
      throw new HoldfastError('BUSY', { operation: 'ADMIN', detail: 'something else is under way with that volume' });
    }
    this.busy.add(key);
    try {
      return await work(key);
    } finally {
      this.busy.delete(key);
    }
  }

  private hosted(volumeId: string): HostedVolume {
    const volume = this.node.hosted.get(volumeId);
    if (volume !== undefined) return volume;
    throw new HoldfastError('NO_SUCH_VOLUME', { operation: 'ADMIN', detail: `${this.node.node} hosts no ${volumeId}` });
  }

  private status(fields: Fields): object {
    const from = fields['from'] === undefined ? 0 : countField(fields, 'from', 0, Number.MAX_SAFE_INTEGER);
    const { node, bootId, address, clientAddress, nbdUri, unopened, hosted } = this.node;
    const all = [...hosted.values()];
    const replicas = all.slice(from, from + STATUS_PAGE).map((volume) => volume.status());
    const next = from + STATUS_PAGE < all.length ? from + STATUS_PAGE : null;
    const about = { node, bootId, address, clientAddress, nbd: nbdUri, pid: process.pid, version: PACKAGE_VERSION };
    return { ...about, replicas, next, unopened: unopened.slice(0, STATUS_PAGE) };
  }

  // --- making and deleting ----------------------------------------------------------------------------------------------

  private create(fields: Fields): object {
    const volumeId = idField(fields, 'volumeId');
    const name = checkVolumeName(textField(fields, 'name'));
    const hosted = this.node.hosted.get(volumeId);
    if (hosted !== undefined) return { state: 'ready', diskId: hosted.diskId };
    const creation = this.creations.get(volumeId) ?? this.begin(volumeId, name, fields);
    const { doneBytes, totalBytes, error } = creation;
    if (error === null) return { state: 'creating', doneBytes, totalBytes };
    this.creations.delete(volumeId);
    throw error;
  }

  private begin(volumeId: string, name: string, fields: Fields): Creation {
    const sizeBytes = sizeField(fields, 'sizeBytes');
    const state = choiceField(fields, 'state', ['in-sync', 'syncing']);
    const sparse = flagField(fields, 'sparse', false);
    const durable = flagField(fields, 'durable', true);
    const kind = fields['kind'] === undefined ? 'block' : choiceField(fields, 'kind', ['block', 'kv']);
    const journalBytes =
      fields['journalBytes'] === undefined ? undefined : countField(fields, 'journalBytes', 1, MAX_VOLUME_BYTES);
    if (this.creations.size >= MAX_CREATIONS) {
      const detail = `${MAX_CREATIONS} replicas are being made here already`;
      throw new HoldfastError('BUSY', { operation: 'create replica', volume: name, detail });
    }
    const dir = join(this.node.folder.volumesDir, name);
    const abort = new AbortController();
    const creation: Creation = { name, doneBytes: 0, totalBytes: 0, error: null, abort, over: Promise.resolve() };
    this.creations.set(volumeId, creation);
    creation.over = createVolume(dir, this.node.pool, {
      sizeBytes,
      name,
      journalBytes,
      sparse,
      durable,
      kind,
      volumeId: new Uint8Array(Buffer.from(volumeId, 'hex')),
      diskId: new Uint8Array(randomBytes(16)),
      replica: { state, base: ORIGIN, groupEpoch: 0, registerId: new Uint8Array(16), registerVersion: 0 },
      signal: abort.signal,
      progress: (doneBytes, totalBytes) => Object.assign(creation, { doneBytes, totalBytes }),
    })
      .then(() => this.node.open(dir))
      .then(
        () => void this.creations.delete(volumeId),
        (error: unknown) => void (creation.error = asHoldfastError(error)),
      );
    return creation;
  }

  private async remove(volumeId: string): Promise<object> {
    const creation = this.creations.get(volumeId);
    if (creation !== undefined) {
      creation.abort.abort(new HoldfastError('ABORTED', { operation: 'create replica', volume: creation.name }));
      await creation.over;
      this.creations.delete(volumeId);
    }
    const volume = this.node.hosted.get(volumeId);
    if (volume === undefined) return { deleted: false };
    await this.refuseMember(volume, 'delete replica');
    await this.node.release(volume);
    // What is half deleted is no volume any more, whatever stops this.
    const gone = join(this.node.folder.dir, `deleted-${volumeId}`);
    await rm(gone, { recursive: true, force: true });
    await rename(volume.dir, gone);
    await rm(gone, { recursive: true });
    return { deleted: true };
  }

  /** @throws HoldfastError while the register has this disk as a member, or cannot be read */
  private async refuseMember(volume: HostedVolume, operation: string): Promise<void> {
    const register = await this.node.patient.read(volume.volumeId);
    const member = register?.members.find(({ node }) => node === this.node.node);
    if (member?.diskId !== volume.diskId) return;
    throw new HoldfastError('BUSY', {
      operation,
      volume: volume.name,
      detail: 'the register has it as a member',
      remedy: 'holdfast volume remove-replica, or holdfast volume delete, do that first',
    });
  }

  // --- the primary's place ----------------------------------------------------------------------------------------------

  /** Hands over, and comes back as a follower: the replica is closed and opened anew. */
  private async resign(fields: Fields): Promise<object> {
    const name = textField(fields, 'volume');
    const volume = this.node.byName(name);
    if (volume === null) throw new HoldfastError('NO_SUCH_VOLUME', { operation: 'resign', volume: name });
    if (!volume.isPrimary) return { resigned: false };
    return this.alone(volume.volumeId, async () => {
      await this.node.renew(volume);
      return { resigned: true };
    });
  }

  /** By force: what this disk has counts as all there is. The register is changed by the caller, after this. */
  private async promote(volumeId: string): Promise<object> {
    const volume = this.hosted(volumeId);
    const { health, healthReason, replica, lastPosition, epoch } = volume.store;
    if (health !== 'good') {
      throw new HoldfastError('DAMAGED', { operation: 'promote', volume: volume.name, detail: healthReason });
    }
    // A backup may have copied blocks since a mark whose writes are lost by this: they differ, and no mark has them.
    volume.store.marks.distrust();
    const known = replica.state === 'in-sync' ? {} : { replica: { state: 'in-sync' as const, base: lastPosition } };
    await volume.store.update(known);
    return { was: replica.state, epoch, last: `${lastPosition.epoch}.${lastPosition.seq}` };
  }

  /** Another register than before, as `holdfast coordinator recover` has made it. */
  private accept(fields: Fields): Promise<object> {
    const [was, registerId] = [idField(fields, 'was'), idField(fields, 'registerId')];
    const registerVersion = countField(fields, 'registerVersion', 1, Number.MAX_SAFE_INTEGER);
    const epoch = countField(fields, 'epoch', 0, Number.MAX_SAFE_INTEGER);
    return this.alone(idField(fields, 'volumeId'), (volumeId) =>
      acceptRegister(this.node, this.hosted(volumeId), { was, registerId, registerVersion, epoch }),
    );
  }

  // --- a volume that was served by itself -------------------------------------------------------------------------------

  /** Takes an only copy from a folder of this machine: it becomes a member's disk, under this node's folder. */
  private async adopt(fields: Fields): Promise<object> {
    const from = resolve(textField(fields, 'dir'));
    const name = checkVolumeName(textField(fields, 'name'));
    const to = join(this.node.folder.volumesDir, name);
    return this.alone(to, async () => {
      const open = await openVolume(from, this.node.pool);
      try {
        await this.adoptable(open.store, name);
        await open.store.update({ replica: { state: 'in-sync', groupEpoch: open.store.epoch } });
      } finally {
        await open.close();
      }
      await this.move(from, to);
      const volume = await this.node.open(to);
      const { volumeId, diskId, store } = volume;
      return { volumeId, diskId, sizeBytes: store.sizeBytes, epoch: store.epoch };
    });
  }

  private async adoptable(store: HostedVolume['store'], name: string): Promise<void> {
    const wrong = (detail: string): HoldfastError =>
      new HoldfastError('INVALID_ARGUMENT', { operation: 'adopt', volume: store.name, detail });
    if (store.replica.state !== 'solo') throw wrong('it is a replica already');
    if (store.health !== 'good') throw wrong(`it is ${store.health}: ${store.healthReason}`);
    if (store.name !== name) throw wrong(`it is called ${store.name}, not ${name}`);
  }

  /** Undoes `adopt`: the only copy lies where it was. */
  private async release(fields: Fields): Promise<object> {
    const to = resolve(textField(fields, 'dir'));
    return this.alone(idField(fields, 'volumeId'), async (volumeId) => {
      const volume = this.hosted(volumeId);
      await this.refuseMember(volume, 'release');
      await this.node.release(volume);
      await this.move(volume.dir, to);
      const open = await openVolume(to, this.node.pool);
      try {
        await open.store.update({ replica: { state: 'solo' } });
      } finally {
        await open.close();
      }
      return { volumeId: toHex(open.store.volumeId), dir: to };
    });
  }

  private async move(from: string, to: string): Promise<void> {
    await rename(from, to).catch((error: NodeJS.ErrnoException) => {
      throw new HoldfastError(error.code === 'ENOTEMPTY' || error.code === 'EEXIST' ? 'EXISTS' : 'IO_ERROR', {
        operation: 'move a volume',
        volume: basename(from),
        detail: `${from} to ${to}: ${error.message}`,
        remedy: error.code === 'EXDEV' ? 'both must lie on one file system: move the folder there first' : undefined,
        cause: error,
      });
    });
  }
}
