/**
 * Whom the HTTP port lets in beyond loopback: a token of any role, as `Authorization: Bearer TOKEN` or as the password of
 * HTTP Basic, which browsers ask for by themselves; or a certificate, as the port for clients has it.
 *
 * Guarantees: each request is judged by the tokens of its moment; a wrong token is answered after WRONG_TOKEN_MS, in the
 * same words as any other; whoever came with a token that was removed is cut off, streams too; no log holds what was given.
 */
import type { Socket } from 'node:net';
import { WRONG_TOKEN_MS } from './door.ts';
import { certifiedOf } from './port-tls.ts';
import type { Log } from './server.ts';
import type { Grant, Tokens } from './tokens.ts';
import { Verdicts } from './verdicts.ts';

export interface HttpDoorOptions {
  /** Null: a certificate of the CA is what lets in. */
  tokens: Tokens | null;
  log: Log;
}

/** Why somebody is not let in. */
export interface HttpRefusal {
  error: string;
  /** A token can help: browsers are to ask for one. */
  challenge: boolean;
  /** There is one try for each connection. */
  close: boolean;
}

export class HttpDoor {
  private readonly tokens: Tokens | null;
  private readonly verdicts: Verdicts;
  private readonly grants: Map<Socket, Grant> = new Map();
  private readonly endListening: () => void;

  constructor({ tokens, log }: HttpDoorOptions) {
    this.tokens = tokens;
    this.verdicts = new Verdicts(log);
    this.endListening = tokens?.listen(() => this.review()) ?? (() => {});
  }

  /**
   * @param authorization the header of that name
   * @returns null: it may come in
   */
  async refusal(socket: Socket, authorization: string | undefined): Promise<HttpRefusal | null> {
    const who = certifiedOf(socket);
    const { tokens } = this;
    if (tokens === null) {
      if (who !== null) return null;
      const error = 'this port wants a certificate of its CA: start the node with --tokens to let in tokens instead';
      return this.refused(socket, 'no certificate', { error, challenge: false, close: false });
    }
    if (who !== null && (who.node !== null || who.admin)) return null;
    const secret = secretOf(authorization);
    if (secret === null) {
      const error = 'this port wants a token: Authorization: Bearer TOKEN, or HTTP Basic with the token as password';
      return this.refused(socket, 'no token', { error, challenge: true, close: false });
    }
    const grant = tokens.find(secret);
    if (grant !== null) {
      this.known(socket, grant);
      return null;
    }
    const error = 'this port does not take that token: holdfast token list shows which there are';
    const refusal = this.refused(socket, 'the token', { error, challenge: true, close: true });
    await new Promise((resolve) => setTimeout(resolve, WRONG_TOKEN_MS).unref());
    return refusal;
  }

  private refused(socket: Socket, what: string, refusal: HttpRefusal): HttpRefusal {
    this.verdicts.tell('warn', `refused: ${what}`, { port: 'HTTP', address: addressOf(socket) });
    return refusal;
  }

  /** One line for each connection, not for each request. */
  private known(socket: Socket, grant: Grant): void {
    const before = this.grants.get(socket);
    this.grants.set(socket, grant);
    if (before?.name === grant.name) return;
    if (before === undefined) socket.once('close', () => this.grants.delete(socket));
    const { name: token, role } = grant;
    this.verdicts.tell('info', 'let in by a token', { port: 'HTTP', address: addressOf(socket), token, role });
  }

  private review(): void {
    for (const [socket, grant] of this.grants) if (!this.tokens!.holds(grant)) socket.destroy();
  }

  close(): void {
    this.endListening();
  }
}

/** The token of a header `Authorization`; null: it has none. */
export function secretOf(authorization: string | undefined): string | null {
  const match = /^(bearer|basic) +([^\s]+)\s*$/i.exec(authorization ?? '');
  if (match === null) return null;
  if (match[1]!.toLowerCase() === 'bearer') return match[2]!;
  const pair = Buffer.from(match[2]!, 'base64').toString();
  const colon = pair.indexOf(':');
  return colon === -1 || colon === pair.length - 1 ? null : pair.slice(colon + 1);
}

function addressOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress}:${remotePort}`;
}
