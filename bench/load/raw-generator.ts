/**
 * The raw load generator: encoded requests over plain sockets, in a closed loop, in a process of its own. It measures
 * the server; see `raw-frames.ts` and `raw-connection.ts` for how little it does itself.
 *
 * Prints one line of JSON; exits with 1 if a single request failed.
 */
import { checkLoadOptions, loadCommand, parseVolumeUrl, type LoadOptions, type LoadResult } from './load-options.ts';
import { RawConnection } from './raw-connection.ts';
import { FrameSet } from './raw-frames.ts';
import { Tally } from './tally.ts';

async function run(load: LoadOptions): Promise<{ result: LoadResult; firstError: string | null }> {
  const { host, port, volume } = parseVolumeUrl(load.url);
  const opened = await Promise.allSettled(
    Array.from({ length: load.clients }, () => RawConnection.open(host, port, volume)),
  );
  const connections = opened.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
  try {
    for (const o of opened) if (o.status === 'rejected') throw o.reason;
    const { sizeBytes, epoch } = connections[0]!.volume;
    const spanBytes = load.spanBytes || sizeBytes;
    const frames = connections.map((_, index) => new FrameSet({ load, spanBytes, epoch, index }));
    const tally = new Tally(load, performance.now());
    await Promise.all(connections.map((connection, i) => connection.run(frames[i]!, load.depth, tally)));
    return { result: tally.result('raw', spanBytes), firstError: tally.firstError };
  } finally {
    for (const connection of connections) connection.close();
  }
}

const command = loadCommand('raw-generator', 'load with requests that were encoded beforehand').parse();
const { result, firstError } = await run(checkLoadOptions(command.opts<LoadOptions>()));
process.stdout.write(`${JSON.stringify(result)}\n`);
if (firstError !== null) {
  process.stderr.write(`${result.errors} requests failed; the first one: ${firstError}\n`);
  process.exitCode = 1;
}
