/** The same conversation with our port and with the real redis-server, whose answers are compared byte for byte. */
import * as assert from 'uvu/assert';
import type { Script } from '../resp/scripts.ts';
import type { RespClient } from './resp-client.ts';
import { encodeCommand, readReply } from './resp-replies.ts';

/** The same client twice. */
export class Pair {
  readonly redis: RespClient;
  readonly ours: RespClient;
  constructor(redis: RespClient, ours: RespClient) {
    this.redis = redis;
    this.ours = ours;
  }
  async ask(bytes: Buffer): Promise<{ redis: Buffer; ours: Buffer }> {
    this.redis.send(bytes);
    this.ours.send(bytes);
    const [redis, ours] = await Promise.all([this.redis.next(), this.ours.next()]);
    return { redis: redis!, ours: ours! };
  }
  async same(bytes: Buffer, what: string): Promise<void> {
    const { redis, ours } = await this.ask(bytes);
    assert.is(ours.toString('latin1'), redis.toString('latin1'), what);
  }
  close(): void {
    this.redis.close();
    this.ours.close();
  }
}

/** A client of both. */
export type Both = () => Promise<Pair>;

/** A line of a script: words, those of another client behind `2> `; `\xHH` in a word is a byte. */
export function wordsOf(line: string): string[] {
  const unquoted = (word: string): string =>
    word.replace(/\\x([0-9a-f]{2})/g, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return line.split(' ').map((word) => (word === "''" ? '' : unquoted(word)));
}

async function play(servers: Both, script: Script, protocol: 2 | 3): Promise<number> {
  const clients = [await servers(), await servers()];
  if (protocol === 3) for (const client of clients) await client.ask(encodeCommand(['HELLO', '3']));
  let asked = 0;
  for (const line of script.split('\n').map((one) => one.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    const second = line.startsWith('2> ');
    const words = wordsOf(second ? line.slice(3) : line);
    await clients[second ? 1 : 0]!.same(encodeCommand(words), `RESP${protocol}: ${line}`);
    asked++;
  }
  for (const client of clients) client.close();
  return asked;
}

/** In both protocols, each time from nothing. @returns how many commands */
export async function playTwice(servers: Both, script: Script): Promise<number> {
  const clear = await servers();
  let asked = 0;
  for (const protocol of [2, 3] as const) {
    for (const side of [clear.redis, clear.ours]) {
      const keys = (readReply(await side.call('KEYS', '*'))!.tree as string[]).slice(1);
      if (keys.length > 0) await side.call('UNLINK', ...keys);
    }
    await clear.same(encodeCommand(['DBSIZE']), 'nothing is left');
    asked += await play(servers, script, protocol);
  }
  clear.close();
  return asked;
}
