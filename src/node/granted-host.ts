/**
 * The server as the holder of a token sees it: his volumes, and what his role permits.
 *
 * Guarantees: a volume that is not his is refused in the same words whether it is there or not.
 */
import { HoldfastError } from '../base/errors.ts';
import type { Access } from '../protocol/handshake.ts';
import type { VolumeLocation } from '../protocol/location.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import type { Arena } from '../storage/arena.ts';
import type { Connection } from './connection.ts';
import type { ConnectionHost, ConnectionLimits } from './connection-host.ts';
import type { Grant } from './tokens.ts';

export class GrantedHost implements ConnectionHost {
  readonly arena: Arena;
  readonly limits: ConnectionLimits;
  readonly serverName: string;
  readonly nodeName: string;
  readonly mayWrite: boolean;
  readonly admin: ConnectionHost['admin'];
  private readonly inner: ConnectionHost;
  private readonly grant: Grant;

  constructor(inner: ConnectionHost, grant: Grant) {
    this.inner = inner;
    this.grant = grant;
    this.arena = inner.arena;
    this.limits = inner.limits;
    this.serverName = inner.serverName;
    this.nodeName = inner.nodeName;
    this.mayWrite = grant.role !== 'read';
    this.admin = grant.role === 'admin' ? inner.admin : (request) => this.holdWrites(request, inner.admin);
  }

  /**
   * Who may write to a volume may hold its writers back for a moment, as a backup does: he could do worse to them.
   * @throws HoldfastError ACCESS: he may not, or asks for anything else
   */
  private async holdWrites(request: unknown, admin: ConnectionHost['admin']): Promise<object> {
    const { op, volumeId } = request as Record<string, unknown>;
    const asks = op === 'hold-writes' || op === 'let-writes';
    if (!this.mayWrite || !asks || admin === undefined) throw this.denied('ADMIN', 'is no admin');
    const found = this.volumes().some((volume) => Buffer.from(volume.info().volumeId).toString('hex') === volumeId);
    if (!found) throw this.denied(op, 'permits no such volume that is served here');
    return admin(request);
  }

  private denied(operation: string, what: string): HoldfastError {
    const detail = `the token "${this.grant.name}" ${what}`;
    const remedy = 'use a token that permits it (holdfast token create)';
    return new HoldfastError('ACCESS', { operation, detail, remedy });
  }

  private permits(name: string): boolean {
    return this.grant.volumes === null || this.grant.volumes.includes(name);
  }

  private check(operation: string, name: string): void {
    if (!this.permits(name)) throw this.denied(operation, `does not permit the volume "${name}"`);
  }

  volume(name: string, access?: Access): ServedVolume {
    if (name !== '') this.check('find volume', name);
    const found = this.inner.volume(name, access);
    this.check('find volume', found.info().name);
    return found;
  }

  locate(name: string): VolumeLocation {
    if (name !== '') this.check('locate volume', name);
    const found = this.inner.locate(name);
    this.check('locate volume', found.name);
    return found;
  }

  volumes(): ServedVolume[] {
    return this.inner.volumes().filter((volume) => this.permits(volume.info().name));
  }

  log(level: 'info' | 'warn', message: string, fields: object): void {
    this.inner.log(level, message, { ...fields, token: this.grant.name });
  }

  closed(connection: Connection): void {
    this.inner.closed(connection);
  }
}
