/** What an opening (open-store.ts) hands to the store. Pure. */
import type { Position } from '../base/position.ts';
import type { StoreRules } from '../replication/store.ts';
import type { Files } from './files.ts';
import type { Layout } from './layout.ts';
import type { MetaPages } from './meta-pages.ts';
import type { JournalTail, Superblock } from './superblock.ts';
import type { StoreTables } from './tables.ts';

export interface OpenedParts {
  files: Files;
  layout: Layout;
  superblock: Superblock;
  meta: MetaPages;
  tables: StoreTables;
  head: JournalTail;
  last: Position;
  committed: Position;
  durable: boolean;
  defer: (run: () => void) => void;
  rules: StoreRules;
}
