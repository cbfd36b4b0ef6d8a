/** The client of the embedded coordinator: the calls of `Coordinator`, as docs/coordination.md has them on the wire. */
import { randomBytes } from 'node:crypto';
import { ERRORS, type ErrorCode, HoldfastError } from '../base/errors.ts';
import {
  type Origin,
  checkFields,
  checkNewRegister,
  checkNextRegister,
  checkNodeInfo,
  checkRegister,
  checkSeenNode,
  checkVolumeId,
  given,
} from './check-register.ts';
import { type CallTimes, Endpoints, type Verdict } from './endpoints.ts';
import type { Endpoint, HttpReply } from './http-call.ts';
import type { CasResult, Coordinator, NewRegister, NextRegister, NodeInfo, Register, SeenNode } from './register.ts';
import { Watcher } from './watcher.ts';

const PATH = '/v1/';
/** A program on the same port that is no coordinator, or one of another version, is the likely cause. */
const REMEDY = 'look what listens at that address: it is not a coordinator that this program understands';

export interface EmbeddedClientOptions extends CallTimes {
  /** How often a watch reads without being told to. Default 5 s. */
  pollMs?: number | undefined;
}

export class EmbeddedClient implements Coordinator {
  private readonly endpoints: Endpoints;
  private readonly pollMs: number;
  private readonly watches: Set<Watcher> = new Set();

  constructor(server: Endpoint, options: EmbeddedClientOptions = {}) {
    this.endpoints = new Endpoints([server], options);
    this.pollMs = options.pollMs ?? 5000;
  }

  async read(volumeId: string): Promise<Register | null> {
    const { register } = await this.call('read', { volumeId }, true);
    return register === null ? null : checkRegister(register, answered('read'));
  }

  async create(register: NewRegister): Promise<Register> {
    const registerId = randomBytes(16).toString('hex');
    const made = { ...checkNewRegister(register, given('create')), registerId };
    return checkRegister((await this.call('create', { register: made }, false))['register'], answered('create'));
  }

  async compareAndSet(expectedVersion: number, next: NextRegister): Promise<CasResult> {
    const operation = 'compare-and-set';
    const body = { expectedVersion, next: checkNextRegister(next, given(operation)) };
    const { outcome, register } = await this.call(operation, body, false);
    if (outcome !== 'done' && outcome !== 'refused') throw notOurs(operation, `its outcome is ${String(outcome)}`);
    return { outcome, register: checkRegister(register, answered(operation)) };
  }

  async remove(volumeId: string, expectedVersion: number): Promise<void> {
    await this.call('remove', { volumeId, expectedVersion }, false);
  }

  async list(): Promise<Register[]> {
    const { registers } = await this.call('list', {}, true);
    if (!Array.isArray(registers)) throw notOurs('list', 'it holds no registers');
    return registers.map((register) => checkRegister(register, answered('list')));
  }

  watch(volumeId: string, changed: (register: Register) => void): Watcher {
    checkVolumeId(volumeId, given('watch'));
    const watcher: Watcher = new Watcher({
      read: () => this.read(volumeId),
      stream: async (signal, poke) => {
        await this.endpoints.lines(`${PATH}watch`, { volumeId }, {}, signal, (line) => {
          poke();
          return line !== undefined;
        });
      },
      changed,
      pollMs: this.pollMs,
      closed: () => this.watches.delete(watcher),
    });
    this.watches.add(watcher);
    return watcher;
  }

  async announce(node: NodeInfo): Promise<void> {
    await this.call('announce', { node: checkNodeInfo(node, given('announce')) }, true);
  }

  async nodes(): Promise<SeenNode[]> {
    const { nodes } = await this.call('nodes', {}, true);
    if (!Array.isArray(nodes)) throw notOurs('nodes', 'it holds no nodes');
    return nodes.map((node) => checkSeenNode(node, answered('nodes')));
  }

  async close(): Promise<void> {
    for (const watch of this.watches) watch.close();
    this.endpoints.close();
  }

  private async call(operation: string, body: object, repeatable: boolean): Promise<Record<string, unknown>> {
    const reply = await this.endpoints.call(PATH + operation, body, { operation, repeatable, judge });
    const fields = checkFields(reply.body, answered(operation));
    if (reply.status === 200) return fields;
    const { code, detail, remedy } = checkFields(fields['error'], answered(operation));
    if (typeof code !== 'string' || !(code in ERRORS)) throw notOurs(operation, `it is an error ${String(code)}`);
    throw new HoldfastError(code as ErrorCode, {
      operation,
      detail: typeof detail === 'string' ? detail : undefined,
      remedy: typeof remedy === 'string' ? remedy : undefined,
    });
  }
}

function judge({ status, body }: HttpReply): Verdict {
  const code = (body as { error?: { code?: unknown } } | null | undefined)?.error?.code;
  if (code === 'SHUTTING_DOWN') return 'not executed';
  return body === undefined && status >= 500 ? 'unknown' : 'answer';
}

function answered(operation: string): Origin {
  return { operation, code: 'BAD_FRAME', where: 'the reply', remedy: REMEDY };
}

function notOurs(operation: string, detail: string): HoldfastError {
  return new HoldfastError('BAD_FRAME', { operation, detail: `the reply: ${detail}`, remedy: REMEDY });
}
