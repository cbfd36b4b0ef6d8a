/**
 * Steps of writing, promoting and reintegrating that tests end the process at, by name (`holdfast fault`). The core says
 * that it has come to one; what happens then is the node's business.
 */

export const CRASH_POINTS = {
  'write:received': 'primary: a write has come, nothing is done with it',
  'write:appended': 'primary: the record is on its way into the journal, the backups have not heard of it',
  'write:sent': 'primary: the record was handed to the streams of the backups',
  'write:acknowledged': 'primary: a backup has said that it is durable there',
  'write:durable': 'primary: a batch is durable here, nobody was answered',
  'write:answered': 'primary: clients were answered, the backups do not know yet',
  'mark:sent': 'primary: the backups were told what is committed',
  'read:received': 'primary: a read has come',
  'follow:received': 'backup: a record has come',
  'follow:appended': 'backup: the record is on its way into the journal',
  'follow:durable': 'backup: a batch is durable here, the primary has not heard of it',
  'follow:acknowledged': 'backup: the primary was told',
  'follow:committed': 'backup: it was told what is committed',
  'target:joined': 'target: it has said durably that it is syncing',
  'target:copied': 'target: a copied run is durable, its source has not heard of it',
  'target:barrier': 'target: the bulk passes are over',
  'target:finish': 'target: everything is there, it has not said so durably',
  'target:in-sync': 'target: it has said durably that it is in sync, nobody else knows',
  'source:begin': 'source: a reintegration begins',
  'source:copy': 'source: a run is sent',
  'source:barrier': 'source: the barrier is raised',
  'source:finish': 'source: the target was told to finish',
  'source:finished': 'source: the target is done, the register does not know',
  'promote:seek': 'candidate: the register is being asked',
  'promote:won': 'candidate: the register names it',
  'promote:gathered': 'new primary: all members have answered',
  'promote:group': 'new primary: the group is on its way, without its EPOCH record',
  'promote:epoch': 'new primary: the EPOCH record is on its way',
  'promote:open': 'new primary: the epoch is open, nobody was served',
} as const;

export type CrashPoint = keyof typeof CRASH_POINTS;
