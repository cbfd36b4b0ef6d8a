/**
 * The cursors of SCAN: numbers for the client, keys for us. One table for all connections of a node, since clients with
 * a pool go on with a cursor on another connection.
 *
 * Guarantees: at most `room` cursors, the ones that were least recently used go first; a number is never used twice, so
 * that one that was forgotten is an error and not somebody else's place.
 */
import type { Key } from '../kv/operations.ts';

export class ScanCursors {
  private readonly room: number;
  private readonly keys: Map<number, Key> = new Map();
  private newest: number;

  /**
   * @param above where the numbers begin: far from where other nodes and earlier runs began, at random, so that a client
   * that goes on with a cursor of another node is told so. Below 2^52.
   */
  constructor(above: number, room = 1024) {
    this.newest = above;
    this.room = room;
  }

  /** @returns the number under which `find` knows that key */
  keep(from: Key): number {
    if (this.keys.size >= this.room) this.keys.delete(this.keys.keys().next().value!);
    this.keys.set(++this.newest, from);
    return this.newest;
  }

  /** @returns null: unknown, or forgotten */
  find(cursor: number): Key | null {
    const from = this.keys.get(cursor);
    if (from === undefined) return null;
    this.keys.delete(cursor);
    this.keys.set(cursor, from);
    return from;
  }
}
