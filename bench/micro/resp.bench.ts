/** The RESP codec: pipelines of 1 and 16 commands taken apart, and their replies written. */
import { RESP_LIMITS } from '../../src/resp/limits.ts';
import { OK } from '../../src/resp/reply.ts';
import { ReplyWriter } from '../../src/resp/reply-writer.ts';
import { RequestParser } from '../../src/resp/request-parser.ts';
import { type Case, microSuite } from './suite.ts';

const request = (...args: string[]): string =>
  `*${args.length}\r\n${args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join('')}`;
const value = Buffer.alloc(100, 'v');

let requests = 0;
function parsing(name: string, count: number, text: string): Case {
  const parser = new RequestParser(RESP_LIMITS);
  const stream = Buffer.from(text.repeat(count));
  const run = (): void => {
    parser.push(stream);
    while (parser.next() !== null) requests++;
  };
  return { name: `parse ${count} x ${name}`, run, things: count, bytes: stream.length };
}

function writing(name: string, count: number, put: (writer: ReplyWriter) => void): Case {
  const writer = new ReplyWriter();
  const run = (): void => {
    for (let i = 0; i < count; i++) put(writer);
    requests += writer.take().length;
  };
  return { name: `write ${count} x ${name}`, run, things: count };
}

const get = request('GET', 'key:000000012345');
const set = request('SET', 'key:000000012345', value.toString());

await microSuite('resp', [
  ...[1, 16].map((count) => parsing('GET', count, get)),
  ...[1, 16].map((count) => parsing('SET of 100 bytes', count, set)),
  parsing('PING as typed', 16, 'PING\r\n'),
  ...[1, 16].map((count) => writing('value of 100 bytes', count, (writer) => writer.put(value, 2))),
  writing('OK', 16, (writer) => writer.put(OK, 2)),
]);
process.exitCode = requests > 0 ? 0 : 1;
