/**
 * The client library's entrances: a volume as a device, and what can be asked of a server without one.
 */
import { asHoldfastError } from '../base/errors.ts';
import { decodeList, type ListedVolume } from '../protocol/handshake.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { type Address, parseVolumeAddress } from './address.ts';
import { Connections } from './connections.ts';
import { Link } from './link.ts';
import { type ConnectOptions, type Settings, settingsOf } from './options.ts';
import { STAGGER_MS } from './search.ts';
import { Volume } from './volume.ts';

/**
 * Opens a volume: `holdfast://host:port[,host:port...]/volume`, `holdfasts://` under TLS; without a name, the only volume of the server. Any node
 * that knows the volume is enough: it tells where the others are.
 * Lost connections are replaced, and what was unanswered is sent again, without being executed twice.
 * @throws HoldfastError INVALID_ARGUMENT, UNREACHABLE, NO_SUCH_VOLUME, WRONG_VERSION, or as the server answers
 */
export async function connect(url: string, options: ConnectOptions = {}): Promise<Volume> {
  const address = parseVolumeAddress(url);
  const connections = new Connections(address, settingsOf(options, address.secure));
  return new Volume(await connections.open(), connections);
}

/**
 * The volumes of the first of the addressed servers that answers.
 * @throws HoldfastError UNREACHABLE, or as the server answers
 */
export function list(url: string, options: ConnectOptions = {}): Promise<ListedVolume[]> {
  return onFirstServer(url, options, async (link, { handshakeTimeoutMs }) => {
    const volumes: ListedVolume[] = [];
    for (;;) {
      const page = decodeList(
        await link.control(MESSAGES.LIST.number, null, handshakeTimeoutMs, { offset: volumes.length }),
      );
      volumes.push(...page.volumes);
      if (volumes.length >= page.total || page.volumes.length === 0) return volumes;
    }
  });
}

/**
 * Asks the first of the addressed servers that can be reached for a sign of life.
 * @returns milliseconds from PING to its reply
 * @throws HoldfastError UNREACHABLE, or as the server answers
 */
export function ping(url: string, options: ConnectOptions = {}): Promise<number> {
  return onFirstServer(url, options, async (link, { handshakeTimeoutMs }) => {
    const sentMs = performance.now();
    await link.control(MESSAGES.PING.number, null, handshakeTimeoutMs);
    return performance.now() - sentMs;
  });
}

async function onFirstServer<T>(
  url: string,
  options: ConnectOptions,
  work: (link: Link, settings: Settings) => Promise<T>,
): Promise<T> {
  const { servers, secure } = parseVolumeAddress(url);
  const settings = settingsOf(options, secure);
  const hello = { session: 0n, generation: 0, client: settings.clientName };
  const abort = new AbortController();
  const { signal } = abort;
  const ask = async (server: Address): Promise<T> => {
    const { link } = await Link.open(server, hello, settings.connectMs, signal, settings.credentials);
    signal.addEventListener('abort', () => link.destroy());
    try {
      return await work(link, settings);
    } finally {
      link.destroy();
    }
  };
  // Each begins when the one before has failed, or beside it after a while.
  let turn: Promise<unknown> = Promise.resolve();
  const answers: Array<Promise<T>> = [];
  for (const server of servers) {
    const begun = turn;
    const answer = begun.then(() => ask(server));
    const failed = new Promise<void>((resolve) => void answer.catch(() => resolve()));
    turn = Promise.race([failed, begun.then(() => new Promise((resolve) => setTimeout(resolve, STAGGER_MS).unref()))]);
    answers.push(answer);
  }
  try {
    return await Promise.any(answers);
  } catch (error) {
    throw asHoldfastError((error as AggregateError).errors.at(-1));
  } finally {
    abort.abort();
  }
}
