/**
 * Which lines of a node's log go into its timeline, and how they read there.
 *
 * Guarantees: a line that is not named here is no happening; what is noted has the kinds of KINDS, so that metrics can count
 * them.
 */
import { formatBytes } from '../base/units.ts';
import { FailoverWatch } from './failover-phases.ts';
import type { Timeline } from './timeline.ts';

/** Of a line: they are printed as they are. */
type Fields = Record<string, string | number | boolean | undefined>;

export const KINDS = [
  'node-started',
  'seeking-promotion',
  'epoch-open',
  'following',
  'failover',
  'tenure-over',
  'member-lost',
  'member-syncing',
  'reintegration',
  'member-in-sync',
  'isolated',
  'poisoned',
  'replica-stopped',
  'not-hosted',
  'block-repaired',
  'scrub-finished',
  'volume-grown',
] as const;
export type Kind = (typeof KINDS)[number];

/** A member that is not there yet cannot be lost. */
const THERE = ['joined', 'syncing', 'adding'];

interface Told {
  kind: Kind;
  text: string;
  fields: Record<string, unknown>;
}

const list = (value: unknown): string => (Array.isArray(value) ? value.join(', ') : '');

/** By the line's message. Null: not this one. */
const TOLD: Record<string, (fields: Fields) => Told | null> = {
  'seeking promotion': ({ epoch, was }) => ({
    kind: 'seeking-promotion',
    text: `wants to become primary of epoch ${epoch}${was === '' ? '' : `, after ${was}`}`,
    fields: { epoch, was },
  }),
  'the epoch is open': ({ epoch, inSync }) => ({
    kind: 'epoch-open',
    text: `primary of epoch ${epoch}, in sync: ${list(inSync)}`,
    fields: { epoch, inSync },
  }),
  'follows the primary of a newer epoch': ({ primary, epoch, as }) => ({
    kind: 'following',
    text: `follows ${primary} in epoch ${epoch}${as === 'target' ? ', which brings it in sync' : ''}`,
    fields: { primary, epoch, as },
  }),
  'the tenure is over': ({ epoch, reason }) => ({
    kind: 'tenure-over',
    text: `primary no more, of epoch ${epoch}: ${reason}`,
    fields: { epoch, reason },
  }),
  'a replica is lost': ({ peer, phase, reason }) =>
    THERE.includes(String(phase))
      ? { kind: 'member-lost', text: `${peer} is lost: ${reason}`, fields: { member: peer, phase, reason } }
      : null,
  'reintegration begins': ({ peer, dirtyBlocks }) => ({
    kind: 'member-syncing',
    text: `${peer} is being brought in sync: ${dirtyBlocks} blocks to bring`,
    fields: { member: peer, dirtyBlocks },
  }),
  'a step of a reintegration': ({ peer, step, pass, dirtyBlocks, copiedBlocks }) => ({
    kind: 'reintegration',
    text: `${peer}: ${step === 'pass' ? `pass ${pass}` : step}, ${dirtyBlocks} blocks left`,
    fields: { member: peer, step, pass, dirtyBlocks, copiedBlocks },
  }),
  'a replica is in sync again': ({ peer, copiedBlocks }) => ({
    kind: 'member-in-sync',
    text: `${peer} is in sync, ${copiedBlocks} blocks were copied`,
    fields: { member: peer, copiedBlocks },
  }),
  'the coordinator does not answer': ({ reason }) => ({
    kind: 'isolated',
    text: `the coordinator does not answer: ${reason}`,
    fields: { reason, over: false },
  }),
  'the coordinator answers again': () => ({
    kind: 'isolated',
    text: 'the coordinator answers again',
    fields: { reason: '', over: true },
  }),
  'the store has failed': ({ reason }) => ({
    kind: 'poisoned',
    text: `its disk failed: ${reason}`,
    fields: { reason },
  }),
  'the replica stops': ({ reason }) => ({
    kind: 'replica-stopped',
    text: `the replica stops: ${reason}`,
    fields: { reason },
  }),
  'a volume is not hosted': ({ dir, reason }) => ({
    kind: 'not-hosted',
    text: `${dir} is not hosted: ${reason}`,
    fields: { dir, reason },
  }),
  'a block was repaired': ({ block }) => ({
    kind: 'block-repaired',
    text: `block ${block} had rotted, and was mended from another replica`,
    fields: { block },
  }),
  'a scrub has ended': ({ passes, blocks, foundBlocks, tookMs }) => ({
    kind: 'scrub-finished',
    text: `all ${blocks} blocks were read, ${foundBlocks} of them had rotted`,
    fields: { passes, blocks, foundBlocks, tookMs },
  }),
  'the volume has grown': ({ fromBytes, toBytes }) => ({
    kind: 'volume-grown',
    text: `it has grown from ${formatBytes(Number(fromBytes))} to ${formatBytes(Number(toBytes))}`,
    fields: { fromBytes, toBytes },
  }),
};

export class Happenings {
  private readonly timeline: Timeline;
  private readonly failovers: FailoverWatch;
  private readonly nowMs: () => number;

  constructor(timeline: Timeline, nowMs: () => number) {
    this.timeline = timeline;
    this.failovers = new FailoverWatch(timeline.node);
    this.nowMs = nowMs;
  }

  /** A line of the log. */
  note(message: string, line: object): void {
    const fields = line as Fields;
    const volume = typeof fields['volume'] === 'string' ? fields['volume'] : '';
    const nowMs = this.nowMs();
    const told = TOLD[message]?.(fields) ?? null;
    if (told !== null) {
      const text = volume === '' ? told.text : `${volume}: ${told.text}`;
      this.timeline.add(volume, told.kind, text, told.fields);
    }
    switch (message) {
      case 'a stream ended':
        return this.failovers.streamEnded(volume, String(fields['node']), nowMs, false);
      case 'the stream of the primary ends': {
        const resigned = fields['reason'] === 'it has resigned';
        return this.failovers.streamEnded(volume, String(fields['from']), nowMs, resigned);
      }
      case 'seeking promotion':
        return this.failovers.seeking(volume, String(fields['was']), Number(fields['silentMs']), nowMs);
      case 'promotion is won':
        return this.failovers.won(volume, nowMs);
      case 'the epoch is open':
        return this.failedOver(volume, fields['epoch'], nowMs);
      case 'the replica stops':
      case 'the tenure is over':
        return this.failovers.forget(volume);
    }
  }

  private failedOver(volume: string, epoch: unknown, nowMs: number): void {
    const failover = this.failovers.open(volume, nowMs);
    if (failover === null) return;
    const { from, resigned, phases } = failover;
    const how = resigned ? 'handed over by' : 'after the loss of';
    const { node } = this.timeline;
    const text = `${volume}: ${node} is primary ${how} ${from}, ${phases.total} ms after its last word`;
    this.timeline.add(volume, 'failover', text, { epoch, from, resigned, phases });
  }
}
