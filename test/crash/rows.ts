/**
 * The crash matrix as a table: what crashes, at which step of the core. The steps are those of `holdfast fault points`.
 *
 * C-17 (a crash within a two-block write, at every call of the system) and C-20 (a sync that fails) are not here: they
 * need a disk that can be cut at every call, and are in `test/storage` (docs/testing.md).
 */
import type { CrashPoint } from '../../src/replication/crash-points.ts';

export type Play =
  /** The primary crashes: the other one goes on. */
  | 'primary'
  /** The backup hears nothing of the primary any more, then that crashes: what only one has was never acknowledged. */
  | 'primary unheard'
  /** The backup crashes: the primary goes on alone. */
  | 'backup'
  /** The backup is being brought in sync, and crashes. */
  | 'target'
  /** ... its source crashes: nobody may go on before that is back. */
  | 'source'
  /** ... both crash, and the target is back first. */
  | 'source and target'
  /** The primary is killed, and the backup crashes while it is promoted; it comes back alone. */
  | 'candidate'
  /** Both at once, the backup is back first; or the primary. */
  | 'both, backup first'
  | 'both, primary first'
  /** The backup, then the primary: only the last one has everything. */
  | 'last survivor'
  /** The coordinator is away when it happens. */
  | 'primary without coordinator'
  | 'backup without coordinator'
  /** ... the backup, then the primary; the backup is back first, and the register has it in sync. */
  | 'both without coordinator'
  /** SIGSTOP of the primary until the other one is, then SIGCONT. */
  | 'stopped'
  /** A client dies in the middle of requests. */
  | 'client';

export interface Variant {
  play: Play;
  point?: CrashPoint;
}

export interface Row {
  id: string;
  text: string;
  variants: readonly Variant[];
  /** So many of them, from the first, by `npm test`; all of them by `npm run test:matrix`. Default 1. */
  quick?: number;
}

const at = (play: Play, ...points: CrashPoint[]): Variant[] => points.map((point) => ({ play, point }));

export const ROWS: readonly Row[] = [
  { id: 'C-1', text: 'primary on request received', variants: at('primary', 'write:received') },
  {
    id: 'C-2',
    text: 'primary before, and when, it contacts the backup',
    variants: [...at('primary unheard', 'write:durable'), ...at('primary', 'write:appended', 'write:sent')],
    quick: 2,
  },
  { id: 'C-3', text: 'primary after the backup has it', variants: at('primary', 'write:acknowledged') },
  { id: 'C-4', text: 'primary after its own write, before the answer', variants: at('primary', 'write:durable') },
  { id: 'C-5', text: 'primary after the answer', variants: at('primary', 'write:answered', 'mark:sent') },
  { id: 'C-6', text: 'backup on record received', variants: at('backup', 'follow:received') },
  {
    id: 'C-7',
    text: 'backup after it has it, before it says so',
    variants: at('backup', 'follow:durable', 'follow:appended'),
  },
  { id: 'C-8', text: 'backup after it has said so, before commit', variants: at('backup', 'follow:acknowledged') },
  { id: 'C-9', text: 'backup between writes', variants: at('backup', 'follow:committed') },
  { id: 'C-10', text: 'primary before a read', variants: at('primary', 'read:received') },
  {
    id: 'C-11',
    text: 'target when the bulk passes are over, and before',
    variants: at('target', 'target:barrier', 'target:copied', 'target:joined'),
  },
  { id: 'C-12', text: 'target when all is there', variants: at('target', 'target:finish') },
  { id: 'C-13', text: 'target when it is in sync and nobody knows', variants: at('target', 'target:in-sync') },
  {
    id: 'C-14',
    text: 'primary during reintegration',
    variants: [
      ...at('source', 'source:copy', 'source:begin', 'source:barrier', 'source:finish', 'source:finished'),
      ...at('source and target', 'source:copy'),
    ],
  },
  {
    id: 'C-15',
    text: 'both nodes, either order of return',
    variants: [{ play: 'last survivor' }, { play: 'both, backup first' }, { play: 'both, primary first' }],
  },
  {
    id: 'C-16',
    text: 'coordinator away, then a crash',
    variants: [
      ...at('both without coordinator', 'follow:received'),
      ...at('primary without coordinator', 'write:durable', 'write:answered'),
      ...at('backup without coordinator', 'follow:durable'),
    ],
    quick: 2,
  },
  {
    id: 'C-18',
    text: 'new primary while it is promoted',
    variants: at(
      'candidate',
      'promote:group',
      'promote:epoch',
      'promote:won',
      'promote:seek',
      'promote:gathered',
      'promote:open',
    ),
  },
  { id: 'C-19', text: 'primary stopped past its right, then woken', variants: [{ play: 'stopped' }] },
  { id: 'C-21', text: 'client dies in mid-request, in half a frame', variants: [{ play: 'client' }] },
];
