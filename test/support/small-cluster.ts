/**
 * Nodes of one volume for the client's tests: real servers on real ports over real volumes. Who is primary, who is in
 * sync and what each node knows of it is what the test says; nothing is replicated.
 *
 * With `shared` all nodes serve one store, so that a take-over finds what was acknowledged, and its sessions. Without,
 * each has a store of its own, which the test fills.
 */
import { HoldfastError } from '../../src/base/errors.ts';
import { Server } from '../../src/node/server.ts';
import type { Access } from '../../src/protocol/handshake.ts';
import type { VolumeLocation } from '../../src/protocol/location.ts';
import type { ServedVolume } from '../../src/replication/served-volume.ts';
import { formatted, type Opened, opened } from './store-harness.ts';
import { SwallowingProxy } from './swallowing-proxy.ts';

class Node extends Server {
  readonly name: string;
  readonly cluster: SmallCluster;
  readonly own: Opened;
  proxy!: SwallowingProxy;
  /** ATTACHes that came, by access. */
  readonly attaches: Record<Access, number> = { primary: 0, any: 0 };
  reads = 0;
  /** Reads are taken and not answered. */
  readsStick = false;
  /** The next reads are refused. */
  refuseReads = 0;
  /** A read begins when this has come to an end. */
  beforeRead: (() => Promise<void>) | null = null;
  /** It knows of the location that was in force when this was set. */
  knows: VolumeLocation | null = null;
  private readonly view: ServedVolume;

  constructor(cluster: SmallCluster, name: string, own: Opened) {
    super({ arena: own.disk.arena, nodeName: name, locate: () => this.knows ?? cluster.location });
    this.cluster = cluster;
    this.name = name;
    this.own = own;
    this.view = this.seenFromHere();
  }

  get volumeHere(): ServedVolume {
    return this.own.volume;
  }

  override volume(_name: string, access: Access = 'primary'): ServedVolume {
    this.attaches[access]++;
    const { location } = this.cluster;
    if (location.primary === this.name) return this.view;
    const inSync = location.members.some(({ node, inSync }) => node === this.name && inSync);
    if (access === 'any' && inSync) return this.view;
    throw new HoldfastError('NOT_PRIMARY', { operation: 'attach', detail: `${location.primary || 'nobody'} is` });
  }

  /** The volume with the epoch of the cluster, and reads that do as the test says. */
  private seenFromHere(): ServedVolume {
    const { volume } = this.own;
    const changed: Pick<ServedVolume, 'info' | 'read'> = {
      info: () => ({ ...volume.info(), epoch: this.cluster.location.epoch }),
      read: (offsetBytes, lengthBytes, slot, done) => {
        this.reads++;
        if (this.readsStick) return;
        const read = (): void => volume.read(offsetBytes, lengthBytes, slot, done);
        if (this.beforeRead !== null) return void this.beforeRead().then(read);
        if (this.refuseReads === 0) return read();
        this.refuseReads--;
        queueMicrotask(() => done(new HoldfastError('NOT_PRIMARY', { detail: 'no right to read' }), -1));
      },
    };
    return new Proxy<ServedVolume>(volume, {
      get: (target, name) => {
        const own = changed[name as 'read'] as unknown;
        const value = own ?? (Reflect.get(target, name) as unknown);
        return typeof value === 'function' && own === undefined ? (value.bind(target) as unknown) : value;
      },
    });
  }
}

export type { Node as ClusterNode };

export class SmallCluster {
  readonly nodes: Node[] = [];
  location!: VolumeLocation;
  private readonly stores: Opened[] = [];

  static async start(size: number, stores: 'shared' | 'own'): Promise<SmallCluster> {
    const cluster = new SmallCluster();
    for (let i = 0; i < size; i++) {
      if (stores === 'own' || i === 0) cluster.stores.push(await opened(await formatted()));
      const node = new Node(cluster, `n${i + 1}`, cluster.stores.at(-1)!);
      cluster.nodes.push(node);
      const address = await node.listen('127.0.0.1:0');
      node.proxy = await SwallowingProxy.start(Number(address.split(':')[1]));
    }
    const { name, volumeId } = cluster.stores[0]!.volume.info();
    const members = cluster.nodes.map((node) => ({
      node: node.name,
      clientAddress: node.proxy.address,
      inSync: true,
    }));
    cluster.location = { volumeId, name, epoch: 1, primary: '', primaryAddress: '', reads: 'any', members };
    cluster.promote(cluster.nodes[0]!);
    return cluster;
  }

  /** Address of the volume by that node. */
  url(node: Node): string {
    return `holdfast://${node.proxy.address}/sim`;
  }

  /** Records in the (first) store: each mutation that is executed makes one. */
  get executed(): number {
    return this.stores[0]!.volume.info().position.seq;
  }

  promote(node: Node): void {
    this.location = {
      ...this.location,
      epoch: this.location.epoch + 1,
      primary: node.name,
      primaryAddress: node.proxy.address,
    };
  }

  setInSync(node: Node, inSync: boolean): void {
    const members = this.location.members.map((m) => (m.node === node.name ? { ...m, inSync } : m));
    this.location = { ...this.location, members };
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.proxy.close()));
    await Promise.all(this.nodes.map((node) => node.close()));
    await Promise.all(this.stores.map((store) => store.close()));
  }
}
