/**
 * Calls to a cluster of etcd: who we are to it, leases, and the stream of a watch.
 *
 * Guarantees: a token that has run out is replaced without the caller's notice, and only a request that etcd refused
 * for its token is sent again.
 */
import { HoldfastError } from '../base/errors.ts';
import type { Endpoints } from './endpoints.ts';
import { judgeEtcd, refuseErrors, wantsNewToken } from './etcd-wire.ts';
import type { HttpReply } from './http-call.ts';

export interface EtcdLogin {
  user: string;
  password: string;
}

export class EtcdSession {
  private readonly endpoints: Endpoints;
  private readonly login: EtcdLogin | null;
  private token: string | null = null;

  constructor(endpoints: Endpoints, login: EtcdLogin | null) {
    this.endpoints = endpoints;
    this.login = login;
  }

  /**
   * @param repeatable running it twice is no different from running it once
   * @throws HoldfastError as Endpoints.call; ACCESS, NO_SPACE, IO_ERROR, BAD_FRAME
   */
  async call(path: string, body: object, operation: string, repeatable: boolean): Promise<Record<string, unknown>> {
    const attempt = async (): Promise<HttpReply> =>
      this.endpoints.call(path, body, {
        operation,
        repeatable,
        headers: await this.headers(operation),
        judge: judgeEtcd,
      });
    let reply = await attempt();
    if (this.login !== null && wantsNewToken(reply)) {
      this.token = null;
      reply = await attempt();
    }
    return refuseErrors(reply, operation);
  }

  /** @returns the lease's id */
  async grant(ttlSeconds: number, operation: string): Promise<string> {
    const { ID } = await this.call('/v3/lease/grant', { TTL: String(ttlSeconds) }, operation, true);
    if (typeof ID === 'string') return ID;
    throw new HoldfastError('BAD_FRAME', { operation, detail: 'etcd granted a lease without an id' });
  }

  /** @returns false when there is no such lease any more */
  async keepAlive(lease: string, operation: string): Promise<boolean> {
    const { result } = await this.call('/v3/lease/keepalive', { ID: lease }, operation, true);
    const ttl = (result as { TTL?: unknown } | undefined)?.TTL;
    return typeof ttl === 'string' && Number(ttl) > 0;
  }

  /** @returns milliseconds since the lease was renewed, by etcd's clock in whole seconds; null: it has ended */
  async renewedAgoMs(lease: string, operation: string): Promise<number | null> {
    const { TTL, grantedTTL } = await this.call('/v3/lease/timetolive', { ID: lease }, operation, true);
    const [left, granted] = [Number(TTL ?? -1), Number(grantedTTL ?? -1)];
    // A member that leads since a moment ago has given every lease some time on top.
    return left < 0 || granted < 0 ? null : Math.max(0, granted - left) * 1000;
  }

  /** One stream, until it ends. @throws CallFailure, HoldfastError */
  async watch(key: string, signal: AbortSignal, poke: () => void): Promise<void> {
    const body = { create_request: { key } };
    try {
      const headers = await this.headers('watch');
      const good = await this.endpoints.lines('/v3/watch', body, headers, signal, (line) => {
        const { result } = (line ?? {}) as { result?: { canceled?: boolean } };
        if (result === undefined || result.canceled === true) return false;
        poke();
        return true;
      });
      // It may have been the token. A new one costs little.
      if (!good) this.token = null;
    } finally {
      this.endpoints.turn();
    }
  }

  close(): void {
    this.endpoints.close();
  }

  private async headers(operation: string): Promise<Record<string, string>> {
    if (this.login === null) return {};
    if (this.token === null) {
      const body = { name: this.login.user, password: this.login.password };
      const options = { operation, repeatable: true, judge: judgeEtcd };
      const { token } = refuseErrors(await this.endpoints.call('/v3/auth/authenticate', body, options), operation);
      if (typeof token !== 'string') {
        throw new HoldfastError('BAD_FRAME', { operation, detail: 'etcd gave no token' });
      }
      this.token = token;
    }
    return { authorization: this.token };
  }
}
