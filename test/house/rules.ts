/**
 * The rules of form, as functions from a file's path and text to what is wrong with it. `tidy.test.ts` applies them to
 * the repository, and shows that each one bites.
 */
import { withoutComments } from './comments.ts';

/** What a room may import besides itself. `cli` is the top: it may import all, and nothing imports it. */
const ARROWS: Record<string, readonly string[]> = {
  base: [],
  protocol: ['base'],
  storage: ['base', 'native-free'],
  replication: ['base'],
  nbd: ['base'],
  kv: ['base'],
  resp: ['base', 'kv'],
  client: ['base', 'protocol', 'kv'],
  coordination: ['base', 'protocol', 'storage', 'replication', 'nbd', 'kv'],
  node: ['base', 'protocol', 'storage', 'replication', 'nbd', 'kv', 'resp', 'coordination', 'native-free'],
  gateway: ['base', 'protocol', 'nbd', 'kv', 'client', 'node', 'replication'],
  // What a node tells to browsers and to Prometheus; of the node itself it has the types only.
  http: ['base', 'coordination', 'protocol', 'replication'],
  // Load generators and yardsticks: they look at the rooms from outside, and `holdfast bench` runs them.
  bench: ['base', 'protocol', 'storage', 'replication', 'resp', 'node', 'client', 'native-free'],
  cli: [
    'base',
    'protocol',
    'storage',
    'replication',
    'nbd',
    'kv',
    'resp',
    'coordination',
    'node',
    'client',
    'gateway',
    'http',
    'bench',
    'native-free',
  ],
  'native-free': [],
};

/** Single files that may be imported against the arrows; `types`: only by `import type`. */
const EXCEPTIONS: ReadonlyArray<{ from: string; file: string; types: boolean }> = [
  // The two waists that the storage implements and the layer above hands in.
  { from: 'storage', file: 'src/replication/store.ts', types: true },
  { from: 'storage', file: 'src/replication/served-volume.ts', types: true },
  // What the replicas say to each other, as values: the core defines it, the protocol makes bytes of it.
  { from: 'protocol', file: 'src/replication/peer-messages.ts', types: true },
  { from: 'replication', file: 'src/storage/arena.ts', types: true },
  { from: 'replication', file: 'src/storage/block-store.ts', types: true },
  { from: 'replication', file: 'src/storage/marks.ts', types: true },
  { from: 'replication', file: 'src/storage/dirty-bitmap.ts', types: false },
  { from: 'replication', file: 'src/storage/control.ts', types: false },
  { from: 'replication', file: 'src/storage/superblock.ts', types: true },
  // The bytes of a record are the same on the wire and in every journal, so its encoding is shared.
  { from: 'replication', file: 'src/storage/record.ts', types: false },
  { from: 'http', file: 'src/node/cluster-node.ts', types: true },
  { from: 'http', file: 'src/node/hosted-volume.ts', types: true },
  { from: 'http', file: 'src/node/timeline.ts', types: true },
];

const PURE_ROOMS = ['base', 'protocol', 'storage', 'replication', 'nbd', 'kv', 'resp'];
/** The edge of the storage: files, workers, the folder. All else in there runs against a simulated disk. */
export const STORAGE_IO_FILES = [
  'src/storage/folder-files.ts',
  'src/storage/growth.ts',
  'src/storage/inline-reads.ts',
  'src/storage/io-pool.ts',
  'src/storage/io-ring.ts',
  'src/storage/io-worker.ts',
  'src/storage/lock.ts',
  'src/storage/ring-files.ts',
  'src/storage/run-delay.ts',
  'src/storage/volume-folder.ts',
];
/** What a pure room may import of Node: computations. */
const PURE_MODULES = ['node:assert', 'node:assert/strict', 'node:buffer', 'node:crypto', 'node:util', 'node:zlib'];
/** Microtasks are let through: their order is fixed, so a simulated run repeats exactly. */
const IMPURE_CALLS =
  /\b(?:Date\.now|new Date\(\)|performance\.\w+|Math\.random|(?:set|clear)(?:Timeout|Interval|Immediate)\b|process\.(?!env\b)\w+|fetch\(|getRandomValues|random(?:Bytes|Int|UUID|Fill\w*)\b)/;

const MAX_LINES = 500;
const KEBAB = /^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+)*$/;
/** Names that the world expects in another spelling. */
const SPELLED = [
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'NOTICE',
  'SECURITY.md',
  'holdfast-node@.service',
];

export interface Import {
  specifier: string;
  typeOnly: boolean;
}

export function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  for (const match of code.matchAll(/^\s*(?:import|export)\s+(type\s+)?(?:[\w*{][^'"`;]*?\sfrom\s+)?'([^']+)'/gm)) {
    found.push({ specifier: match[2]!, typeOnly: match[1] !== undefined });
  }
  // A worker's file or a module that is loaded later is a value import too.
  for (const match of code.matchAll(/\b(?:import|require)\(\s*'([^']+)'|new URL\(\s*'(\.[^']*\.[jt]s)'/g)) {
    found.push({ specifier: match[1] ?? match[2]!, typeOnly: false });
  }
  return found;
}

/** Path of a relative import, from the root of the repository, as a source file. */
export function resolveImport(path: string, specifier: string): string {
  const parts = path.split('/').slice(0, -1);
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '.') parts.push(part);
  }
  return parts.join('/').replace(/\.js$/, '.ts');
}

function roomOf(path: string): string | null {
  const [top, room, file] = path.split('/');
  if (top === 'native-free' || top === 'bench') return top;
  return top === 'src' && file !== undefined ? room! : null;
}

export function arrowFindings(path: string, text: string): string[] {
  const room = roomOf(path);
  if (room === null) return [];
  const allowed = ARROWS[room];
  if (allowed === undefined) return [`${path}: the room "${room}" is not in the table of arrows`];
  const findings: string[] = [];
  for (const { specifier, typeOnly } of importsOf(text)) {
    if (!specifier.startsWith('.')) continue;
    const target = resolveImport(path, specifier);
    const targetRoom = roomOf(target);
    // package.json is data that anyone may read.
    if (target === 'package.json' || targetRoom === room) continue;
    if (targetRoom !== null && allowed.includes(targetRoom)) continue;
    const exception = EXCEPTIONS.find((e) => e.from === room && e.file === target);
    if (exception !== undefined && (typeOnly || !exception.types)) continue;
    findings.push(`${path}: ${room} must not import ${target}${exception ? ' except by `import type`' : ''}`);
  }
  return findings;
}

export function purityFindings(path: string, text: string): string[] {
  const room = roomOf(path);
  if (room === 'client') return clientFindings(path, text);
  if (room === null || !PURE_ROOMS.includes(room) || STORAGE_IO_FILES.includes(path)) return [];
  const findings: string[] = [];
  for (const { specifier, typeOnly } of importsOf(text)) {
    if (specifier.startsWith('.') || typeOnly || PURE_MODULES.includes(specifier)) continue;
    findings.push(`${path}: a pure room must not import ${specifier}`);
  }
  withoutComments(text)
    .split('\n')
    .forEach((line, index) => {
      const call = IMPURE_CALLS.exec(line);
      if (call !== null) findings.push(`${path}:${index + 1}: a pure room must not use ${call[0]}`);
    });
  return findings;
}

/** The library is what others install: Node alone must be enough for it. */
function clientFindings(path: string, text: string): string[] {
  return importsOf(text)
    .filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
    .map(({ specifier }) => `${path}: the client library must not load the package ${specifier}`);
}

export function nameFindings(path: string): string[] {
  return path
    .split('/')
    .map((part) => part.replace(/^\./, ''))
    .filter((part) => !KEBAB.test(part) && !SPELLED.includes(part))
    .map((part) => `${path}: "${part}" is not kebab-case`);
}

const MARKS = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`);
const MACHINE = new RegExp(`(?<![\\w.~-])/(?:${['work', 'farm', 'root'].join('|')})/`);

/** Rules for every text file of the repository. */
export function textFindings(path: string, text: string): string[] {
  const findings: string[] = [];
  text.split('\n').forEach((line, index) => {
    if (MARKS.test(line)) findings.push(`${path}:${index + 1}: a mark of unfinished work`);
    if (MACHINE.test(line)) findings.push(`${path}:${index + 1}: a path of somebody's machine`);
  });
  return findings;
}

/** Rules for every TypeScript file. */
export function sourceFindings(path: string, text: string): string[] {
  const findings: string[] = [];
  const lines = text.split('\n').length - 1;
  if (lines > MAX_LINES) findings.push(`${path}: ${lines} lines, more than ${MAX_LINES}`);
  if (path.startsWith('src/') && !text.replace(/^#!.*\n/, '').startsWith('/**')) {
    findings.push(`${path}: it does not open with a comment that says what it is and guarantees`);
  }
  const code = withoutComments(text);
  if (/^\s*(?:export )?(?:declare )?(?:const )?enum \w/m.test(code)) findings.push(`${path}: an enum`);
  if (/\bconstructor\s*\((?:[^)]*,)?\s*(?:(?:private|public|protected|readonly|override)\s+)+\w+\s*[?:]/.test(code)) {
    findings.push(`${path}: a parameter property`);
  }
  for (const { specifier } of importsOf(text)) {
    if (specifier.startsWith('.') && !/\.(?:ts|js|json)$/.test(specifier)) {
      findings.push(`${path}: the import of ${specifier} lacks its extension`);
    }
  }
  return findings;
}

/** Rules for test files. */
export function testFindings(path: string, text: string): string[] {
  if (!path.endsWith('.test.ts')) return [];
  const code = withoutComments(text);
  const findings: string[] = [];
  // A contract registers and runs its suite itself.
  if (!/^\s*(?:[\w.]+\.run\(\);$|\w+Contract\()/m.test(code)) findings.push(`${path}: nothing is run`);
  if (/^\s*[\w.]+\.(?:only|skip)\(/m.test(code)) findings.push(`${path}: only some of its tests are run`);
  return findings;
}

/** Commands in the fenced code of a Markdown text, in order, a chain by `&&` taken apart. */
export function commandsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^```(?:sh|bash|shell|console)?\n([\s\S]*?)^```$/gm)]
    .flatMap((match) => match[1]!.split('\n'))
    .flatMap((line) =>
      line
        .replace(/^\$ /, '')
        .replace(/\s+#.*$/, '')
        .split('&&'),
    )
    .map((command) => command.trim())
    .filter((command) => command !== '' && !command.startsWith('#'));
}
