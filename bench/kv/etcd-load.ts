/**
 * PUTs and linearizable GETs of an etcd, with as little work of the generator as HTTP/2 allows: gRPC's few bytes are made
 * here, where etcd's client library for Node takes most of a core for some thousand requests a second, and so measures itself.
 * `etcd-load HOST:PORT put|get CLIENTS SECONDS VALUE-BYTES KEYS LABEL [PID,PID...]` prints one line of JSON.
 *
 * Guarantees: each client has one request in flight; a reply counts if its status is 0 and, of a GET, the value came; any
 * other ends the process with code 1; the first half second is not counted.
 */
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { Histogram } from '../load/histogram.ts';
import { Random } from '../load/workload.ts';

const WARM_MS = 500;
const CONNECTIONS = 8;
const TICKS_PER_SECOND = 100;
const [address, op, clients, seconds, valueBytes, keys, label, pids = ''] = process.argv.slice(2);
if (label === undefined || (op !== 'put' && op !== 'get')) {
  process.stderr.write('usage: etcd-load HOST:PORT put|get CLIENTS SECONDS VALUE-BYTES KEYS LABEL [PID,PID...]\n');
  process.exit(2);
}

/** A field of bytes in protobuf. */
function field(number: number, bytes: Buffer): Buffer {
  const length: number[] = [];
  let rest = bytes.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, rest]), bytes]);
}

/** A message of gRPC: not compressed, its length, itself. */
function message(body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

const random = new Random(process.pid);
const path = `/etcdserverpb.KV/${op === 'put' ? 'Put' : 'Range'}`;
const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
const least = op === 'put' ? 1 : Number(valueBytes);

function request(): Buffer {
  const key = field(1, Buffer.from(`k${Math.floor(random.unit() * Number(keys))}`));
  if (op === 'get') return message(key);
  const value = Buffer.alloc(Number(valueBytes), 120);
  value.writeUInt32LE(random.uint32(), 0);
  return message(Buffer.concat([key, field(2, value)]));
}

function call(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { endStream: false });
    let got = 0;
    let status: unknown;
    stream.on('data', (chunk: Buffer) => (got += chunk.length));
    stream.on('trailers', (trailers) => (status = trailers['grpc-status']));
    stream.on('error', reject);
    stream.on('close', () => {
      if (status === '0' && got >= least) resolve();
      else reject(new Error(`${path}: status ${String(status)}, ${got} bytes`));
    });
    stream.end(request());
  });
}

/** Of the servers, in seconds. */
function serverCpu(): number {
  const ticks = pids
    .split(',')
    .filter(Boolean)
    .map((pid) => {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(fields[11]) + Number(fields[12]);
    });
  return ticks.reduce((sum, one) => sum + one, 0) / TICKS_PER_SECOND;
}

const sessions = Array.from({ length: Math.min(CONNECTIONS, Number(clients)) }, () =>
  connect(`http://${address}`, { settings: { initialWindowSize: 1024 * 1024 } }),
);
for (const session of sessions) {
  session.on('error', (error) => {
    process.stderr.write(`${String(error)}\n`);
    process.exit(1);
  });
  await new Promise((resolve) => session.once('connect', resolve));
  session.setLocalWindowSize(16 * 1024 * 1024);
}

const latency = new Histogram();
const beginMs = performance.now() + WARM_MS;
const endMs = beginMs + Number(seconds) * 1000;
const atBegin = new Promise<{ cpu: NodeJS.CpuUsage; servers: number }>((resolve) => {
  setTimeout(() => resolve({ cpu: process.cpuUsage(), servers: serverCpu() }), WARM_MS);
});
const client = async (index: number): Promise<void> => {
  const session = sessions[index % sessions.length]!;
  for (let nowMs = performance.now(); nowMs < endMs;) {
    const sentMs = nowMs;
    await call(session);
    nowMs = performance.now();
    if (sentMs >= beginMs && nowMs < endMs) latency.record((nowMs - sentMs) * 1e6);
  }
};
await Promise.all(Array.from({ length: Number(clients) }, (_, index) => client(index)));
const { cpu, servers } = await atBegin;
const { user, system } = process.cpuUsage(cpu);
const elapsed = (performance.now() - beginMs) / 1000;
const used = serverCpu() - servers;
const { count, p50Us, p99Us, maxUs } = latency.summary();
const line = {
  peer: label,
  workload: `${op}-${valueBytes}B`,
  clients: Number(clients),
  iops: count / Number(seconds),
  p50_us: p50Us,
  p99_us: p99Us,
  max_us: maxUs,
  ...(pids !== '' && { srv_us_per_op: (used * 1e6) / Math.max(1, count) }),
  gen_cpu_pct: (user + system) / 1e4 / elapsed,
};
process.stdout.write(`${JSON.stringify(line)}\n`);
for (const session of sessions) session.close();
