/**
 * What a command answers, as a value. RESP3 has types that RESP2 lacks; the writer makes of them what Redis makes.
 *
 * A `string` is a text, sent like bytes; a one-line status is a `Status`.
 */
export type Reply =
  null | boolean | number | bigint | string | Uint8Array | Reply[] | Status | Failure | Pairs | Members | Double | Text;

export class Status {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** An error; the first word of `text` is its code. Its code units are bytes: it may quote what a client wrote. */
export class Failure {
  readonly text: string;
  constructor(text: string) {
    // It is one line, whatever the client wrote that is quoted in it.
    this.text = text.replace(/[\r\n]/g, ' ');
  }
}

/** A map: names and values by turns. */
export class Pairs {
  readonly flat: Reply[];
  constructor(flat: Reply[]) {
    this.flat = flat;
  }
}

/** A set. */
export class Members {
  readonly members: Reply[];
  constructor(members: Reply[]) {
    this.members = members;
  }
}

export class Double {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** A text that is meant to be read by people, INFO above all. */
export class Text {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export const OK = new Status('OK');
export const QUEUED = new Status('QUEUED');
export const PONG = new Status('PONG');

/** RESP2 has a null for arrays; EXEC answers it. */
export const NO_ARRAY: unique symbol = Symbol('no array');
export type AnyReply = Reply | typeof NO_ARRAY;
