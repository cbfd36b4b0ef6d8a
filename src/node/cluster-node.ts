/**
 * A node of a cluster: replicas of many volumes in one process, on one port for clients, one for the other nodes, and
 * one for NBD. What `holdfast node` runs.
 *
 * Guarantees: a volume that cannot be opened, or whose store fails, does not stop the others, and is reported; a lost
 * worker ends the process; `close` hands over what this node is primary of, and leaves clean volumes.
 */
import { randomUUID } from 'node:crypto';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { freeBytes } from '../../native-free/free-space.ts';
import type { Coordinator, SeenNode } from '../coordination/register.ts';
import type { KvLimits } from '../kv/operations.ts';
import type { VolumeLocation } from '../protocol/location.ts';
import { DEFAULT_TIMES, type Times, checkTimes } from '../replication/rules.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import { DEFAULT_SYNC_RATES, type SyncRates } from '../replication/sync-pace.ts';
import { IoPool } from '../storage/io-pool.ts';
import { type OpenVolume, openVolume } from '../storage/volume-folder.ts';
import { Admin } from './admin.ts';
import type { ClusterNodeOptions, KvPortOptions, Unopened } from './cluster-node-options.ts';
import { CLIENTS, type Faults, type Known } from './faults.ts';
import { Growths } from './growths.ts';
import { Happenings } from './happenings.ts';
import { type Host, HostedVolume } from './hosted-volume.ts';
import { KV_LIMITS, aboutNothing } from './hosted-kv.ts';
import type { KvServed } from './kv-served.ts';
import { isLone } from './lone-connection.ts';
import type { NbdDevice } from './nbd-device.ts';
import { NbdServer } from './nbd-server.ts';
import { type NodeFolder, openNodeFolder } from './node-folder.ts';
import { NodeKv } from './node-kv.ts';
import { RespServer } from './resp-server.ts';
import { PeerNetwork } from './peer-server.ts';
import { PACKAGE_VERSION } from './version.ts';
import { ServedNbdDevice } from './served-nbd-device.ts';
import { Timeline } from './timeline.ts';
import { Server } from './server.ts';

const SCRUB_MS = 7 * 24 * 3600 * 1000;
const TICK_MS = 20;
const SLOW_TICK_MS = 1000;
/** How often the node says that it is there, and asks who else is. */
const ANNOUNCE_MS = 5000;
const FIRST_ANNOUNCE_MS = 1000;
/** A primary that is told to stop waits for requests under way. */
const RESIGN_MS = 2000;
/** One volume's last words to the others, when the node itself goes on. */
const LAST_WORDS_MS = 200;
/** Commands of Redis clients that were begun may be answered so long. */
const RESP_DRAIN_MS = 500;
const UNREACHED_LOG_MS = 60_000;
const MAX_TOLD = 1024;
export const MAX_VOLUMES = 256;

export class ClusterNode implements Host {
  readonly node: string;
  readonly bootId: string = randomUUID();
  readonly quick: Coordinator;
  readonly patient: Coordinator;
  readonly pool: IoPool;
  readonly faults: Faults | null;
  readonly server: Server;
  readonly network: PeerNetwork;
  readonly hosted: Map<string, HostedVolume> = new Map();
  readonly unopened: Unopened[] = [];
  readonly folder: NodeFolder;
  readonly times: Times;
  readonly syncRates: SyncRates;
  readonly whenIsolated: 'consistent' | 'available';
  readonly scrubMs: number;
  readonly kvLimits: KvLimits;
  /** In force, as others are told. */
  address = '';
  clientAddress = '';
  nbdUri: string | null = null;
  kvAddress: string | null = null;
  readonly timeline: Timeline;
  private readonly happenings: Happenings;
  readonly growths: Growths = new Growths(this);
  private readonly options: ClusterNodeOptions;
  readonly nbd: NbdServer | null;
  readonly resp: RespServer | null;
  private readonly devices: Map<ServedVolume, NbdDevice> = new Map();
  private directory: SeenNode[] = [];
  /** When it was last told that a node is not reached for a volume. */
  private readonly toldMs: Map<string, number> = new Map();
  private readonly timers: NodeJS.Timeout[] = [];
  /** Not all volumes of the folder are open yet. */
  private opening = true;
  /** Names of volumes that are being closed, some of them to be opened anew. */
  private readonly leaving: Set<string> = new Set();
  private announcing = false;
  private closing = false;

  private constructor(options: ClusterNodeOptions, folder: NodeFolder) {
    this.options = options;
    this.folder = folder;
    this.times = { ...DEFAULT_TIMES, ...options.times };
    checkTimes(this.times);
    this.syncRates = options.syncRates ?? DEFAULT_SYNC_RATES;
    this.whenIsolated = options.whenIsolated ?? 'consistent';
    this.scrubMs = options.scrubMs ?? SCRUB_MS;
    this.kvLimits = options.kvLimits ?? KV_LIMITS;
    this.node = options.name;
    this.timeline = new Timeline(options.name);
    this.happenings = new Happenings(this.timeline, () => performance.now());
    this.quick = options.quick;
    this.patient = options.patient;
    const faults = options.faults ?? null;
    this.faults = faults;
    this.pool = new IoPool({ peers: true, onLost: (error) => this.fatal(error) });
    this.pool.isLone = isLone;
    const admin = new Admin(this);
    this.server = new Server({
      arena: this.pool.arena,
      log: options.log,
      tls: options.tls,
      clientCert: options.clientCert,
      tokens: options.tokens,
      admin: (request) => admin.perform(request),
      missing: (name) => this.missing(name),
      nodeName: options.name,
      locate: (name) => this.locate(name),
      hold: faults === null ? undefined : (socket) => faults.hold(socket, CLIENTS),
    });
    const { limits } = this.server;
    this.nbd =
      options.nbd === undefined
        ? null
        : new NbdServer({ limits, log: options.log, tls: options.nbdTls, devices: () => [...this.devices.values()] });
    this.resp = options.kv === undefined ? null : this.respServer(options.kv);
    const { node, bootId } = this;
    const log = (message: string, fields: object): void => this.logPeers(message, fields);
    this.network = new PeerNetwork({
      node,
      bootId,
      log,
      faults,
      tls: options.tls,
      verdicts: options.log,
      ...(options.peerLimits && { limits: options.peerLimits }),
    });
  }

  /** @throws HoldfastError LOCKED, BUSY, INVALID_ARGUMENT, ACCESS */
  static async start(options: ClusterNodeOptions): Promise<ClusterNode> {
    const folder = await openNodeFolder(options.dir, options.name);
    const node = new ClusterNode(options, folder);
    try {
      await node.begin();
      return node;
    } catch (error) {
      await node.close();
      throw error;
    }
  }

  private async begin(): Promise<void> {
    const { options, folder } = this;
    this.clientAddress = this.told(await this.server.listen(options.listen));
    this.address = this.told(await this.network.listen(options.peerListen));
    if (this.nbd !== null) this.nbdUri = await this.nbd.listen(options.nbd!);
    if (this.resp !== null) this.kvAddress = await this.resp.listen(options.kv!.listen);
    for (const dir of folder.volumes) await this.open(dir).catch(() => {});
    this.opening = false;
    // Late as the timer may be: what has arrived meanwhile is looked at first.
    const tick = (): void => {
      for (const volume of this.hosted.values()) volume.tick();
    };
    const slowTick = (): void => {
      for (const volume of this.hosted.values()) volume.slowTick();
    };
    this.timers.push(setInterval(() => setImmediate(tick), TICK_MS));
    this.timers.push(setInterval(slowTick, SLOW_TICK_MS));
    this.timers.push(setInterval(() => void this.announce(), ANNOUNCE_MS));
    // Whoever asks for nodes now is to find it; but it starts without a coordinator too.
    let late: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => (late = setTimeout(resolve, FIRST_ANNOUNCE_MS)));
    await Promise.race([this.announce(), patience]);
    clearTimeout(late);
  }

  /** What others are told of an address that is listened on. */
  private told(listening: string): string {
    const { advertise } = this.options;
    const port = listening.slice(listening.lastIndexOf(':') + 1);
    if (advertise !== undefined) return advertise.includes(':') ? `[${advertise}]:${port}` : `${advertise}:${port}`;
    if (!/^(?:0\.0\.0\.0|\[::\]):/.test(listening)) return listening;
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'start the node',
      detail: `${listening} is no address that others can be told`,
      remedy: 'add --advertise HOST, the name or address of this machine',
    });
  }

  /** When the certificate of its ports expires, as that is in force now; null: it has none. */
  get certificateEndMs(): number | null {
    return this.options.tls?.certificateEndMs ?? null;
  }

  /** The only key-value volume here. */
  get onlyKv(): HostedVolume | null {
    const all = [...this.hosted.values()].filter(({ kv }) => kv !== null);
    return all.length === 1 ? all[0]! : null;
  }

  private respServer({ volume: name, password, forwarded, secure }: KvPortOptions): RespServer {
    const hosted = (): HostedVolume | null => (name === '' ? this.onlyKv : this.byName(name));
    const volume = new NodeKv({
      local: () => hosted()?.kv?.current ?? null,
      about: () => hosted()?.kv?.about() ?? aboutNothing(name),
      forwarded,
    });
    return new RespServer({
      volume: () => volume,
      version: PACKAGE_VERSION,
      password,
      tls: secure ? this.options.tls : null,
      clientCert: this.options.clientCert,
      log: this.options.log,
      replicas: () => Math.max(0, (hosted()?.register.known?.inSync.length ?? 1) - 1),
    });
  }

  private fatal(error: HoldfastError): void {
    // Whoever waits for an answer must not get one from what is left in a queue.
    this.server.destroy();
    this.nbd?.destroy();
    this.resp?.destroy();
    this.options.onFatal(error);
  }

  log(level: 'info' | 'warn' | 'error', message: string, fields: object): void {
    this.options.log(level, message, fields);
    this.happenings.note(message, fields);
  }

  /** Attempts to reach a node that is down come five times a second: they are told once a minute, for each reason. */
  private logPeers(message: string, fields: { volume?: string; node?: string; reason?: string }): void {
    if (fields.node !== undefined && message === 'a replica is not reached') {
      const key = `${fields.volume}/${fields.node}/${fields.reason}`;
      const nowMs = performance.now();
      if (nowMs - (this.toldMs.get(key) ?? -Infinity) < UNREACHED_LOG_MS) return;
      if (this.toldMs.size > MAX_TOLD) this.toldMs.clear();
      this.toldMs.set(key, nowMs);
    }
    this.log('info', message, fields);
  }

  get arena(): IoPool['arena'] {
    return this.pool.arena;
  }

  get peerArena(): IoPool['arena'] {
    return this.pool.peerArena!;
  }

  // --- volumes ----------------------------------------------------------------------------------------------------------

  /** Hosts the volume in a folder. @throws HoldfastError, and remembers it for `status` */
  async open(dir: string): Promise<HostedVolume> {
    const at = this.unopened.findIndex((one) => one.dir === dir);
    if (at >= 0) this.unopened.splice(at, 1);
    try {
      const { progress } = this.options;
      const open = await openVolume(dir, this.pool, progress === undefined ? {} : { progress });
      try {
        return this.host(open);
      } catch (error) {
        await open.close();
        throw error;
      }
    } catch (error) {
      const { message } = asHoldfastError(error);
      this.unopened.push({ dir, reason: message });
      this.log('error', 'a volume is not hosted', { dir, reason: message });
      throw error;
    }
  }

  private host(open: OpenVolume): HostedVolume {
    const { store } = open;
    const operation = 'host a volume';
    if (store.replica.state === 'solo') {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation,
        volume: store.name,
        detail: 'it is an only copy, no replica',
        remedy: 'serve it by itself: holdfast serve DIR',
      });
    }
    if (this.hosted.size >= MAX_VOLUMES) {
      throw new HoldfastError('TOO_MANY', { operation, volume: store.name, detail: `the limit is ${MAX_VOLUMES}` });
    }
    if (this.byName(store.name) !== null && store.name !== '') {
      throw new HoldfastError('EXISTS', { operation, volume: store.name, detail: 'another volume here has that name' });
    }
    const volume = new HostedVolume(this, open);
    this.hosted.set(volume.volumeId, volume);
    return volume;
  }

  byName(name: string): HostedVolume | null {
    const all = [...this.hosted.values()];
    if (name === '' && all.length === 1) return all[0]!;
    return all.find((volume) => volume.name === name) ?? null;
  }

  /** Hosts it no more; the folder stays. A primary hands over first. */
  async release(volume: HostedVolume): Promise<void> {
    this.leaving.add(volume.name);
    try {
      await this.growths.end(volume.volumeId);
      await volume.resign(delay(RESIGN_MS));
      await delay(LAST_WORDS_MS);
      await volume.close();
    } finally {
      this.hosted.delete(volume.volumeId);
      this.leaving.delete(volume.name);
    }
  }

  /**
   * Closes it, a primary hands over first, and opens it anew as one that follows, whatever became of `meanwhile`.
   * @throws HoldfastError of `meanwhile`, or of the opening
   */
  async renew(volume: HostedVolume, meanwhile: () => Promise<unknown> = () => Promise.resolve()): Promise<void> {
    this.leaving.add(volume.name);
    try {
      await this.release(volume);
      this.leaving.add(volume.name);
      try {
        await meanwhile();
      } finally {
        await this.open(volume.dir);
      }
    } finally {
      this.leaving.delete(volume.name);
    }
  }

  serve(volume: ServedVolume): void {
    this.server.add(volume);
    this.devices.set(volume, new ServedNbdDevice(volume, this.arena));
  }

  unserve(volume: ServedVolume): void {
    this.server.remove(volume);
    const device = this.devices.get(volume);
    this.devices.delete(volume);
    if (device !== undefined) this.nbd?.remove(device);
  }

  serveKv(served: KvServed, primary: boolean): void {
    if (primary) this.server.add(served);
    else this.server.addReads(served);
  }

  unserveKv(served: KvServed, primary: boolean): void {
    if (primary) this.server.remove(served);
    else this.server.removeReads(served);
  }

  serveReads(volume: ServedVolume): void {
    this.server.addReads(volume);
  }

  unserveReads(volume: ServedVolume): void {
    this.server.removeReads(volume);
  }

  // --- where things are -------------------------------------------------------------------------------------------------

  private seen(node: string): SeenNode | null {
    return this.directory.find((one) => one.node === node) ?? null;
  }

  /** Names that a fault may use. */
  known(): Known {
    const volumes = [...this.hosted.values()];
    const members = volumes.flatMap(({ register }) => register.known?.members ?? []);
    const nodes = new Set([...this.directory, ...members].map(({ node }) => node));
    nodes.delete(this.node);
    return { nodes: [...nodes], volumes: volumes.map(({ name }) => name) };
  }

  peerAddress(node: string): string | null {
    return this.seen(node)?.address ?? null;
  }

  /** Who serves a volume of which this node has a replica; null: it has none, or knows no register. */
  locate(name: string): VolumeLocation | null {
    const volume = this.byName(name);
    const register = volume?.register.known ?? null;
    if (volume === null || register === null) return null;
    const { volume: registered, epoch, primary, inSync } = register;
    const members = register.members.map(({ node, clientAddress }) => ({
      node,
      clientAddress: this.seen(node)?.clientAddress ?? clientAddress,
      inSync: inSync.includes(node),
    }));
    const primaryAddress = members.find(({ node }) => node === primary)?.clientAddress ?? '';
    const { volumeId } = volume.store;
    return { volumeId, name: registered, epoch, primary, primaryAddress, reads: 'any', members };
  }

  private missing(name: string): HoldfastError | null {
    const volume = this.byName(name);
    if (volume === null) {
      // Nobody is to be told that it is not there while it may be.
      if (!this.opening && !this.leaving.has(name)) return null;
      return new HoldfastError('NOT_PRIMARY', { operation: 'find volume', volume: name, detail: 'it is being opened' });
    }
    const located = this.locate(name);
    const address = located?.primaryAddress ?? '';
    const elsewhere = address !== '' && located!.primary !== this.node;
    return new HoldfastError('NOT_PRIMARY', {
      operation: 'find volume',
      volume: volume.name,
      detail: elsewhere
        ? `the primary is ${located!.primary} at ${address}`
        : `it is not served at the moment: ${volume.status().waits ?? 'the primary is changing'}`,
    });
  }

  private async announce(): Promise<void> {
    if (this.announcing || this.closing) return;
    this.announcing = true;
    const { node, address, clientAddress, patient } = this;
    try {
      const free = await freeBytes(this.folder.volumesDir);
      await patient.announce({ node, address, clientAddress, freeBytes: free });
      this.directory = await patient.nodes();
    } catch (error) {
      if (!this.closing) this.log('warn', 'not announced', { reason: asHoldfastError(error).message });
    }
    this.announcing = false;
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    await this.growths.close();
    const volumes = [...this.hosted.values()];
    let late: NodeJS.Timeout | undefined;
    const waited = new Promise<void>((resolve) => (late = setTimeout(resolve, RESIGN_MS)));
    await Promise.all(volumes.map((volume) => volume.resign(waited)));
    clearTimeout(late);
    for (const timer of this.timers) clearInterval(timer);
    // Whoever waits for a last word is not to wait for what a cut holds.
    this.faults?.heal();
    await this.resp?.drain(RESP_DRAIN_MS);
    await Promise.all([this.server.close(), this.nbd?.close(), this.resp?.close()]);
    // Last words leave before the streams end.
    await this.network.close();
    for (const volume of volumes) {
      await volume.close().catch((error: unknown) => {
        this.log('error', 'a volume was not closed in good order', { volume: volume.name, reason: String(error) });
      });
    }
    await this.pool.close();
    this.options.kv?.forwarded.close();
    await Promise.all([this.quick.close(), this.patient.close()]);
    this.folder.lock.release();
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
