/**
 * What the package exports: the client library. It loads neither worker pools nor native addons.
 */
export type { BlockDevice, CallOptions, Extent, ExtentOptions } from '../base/device.ts';
export { type ErrorCode, type ErrorDetails, HoldfastError } from '../base/errors.ts';
export type { Position } from '../base/position.ts';
export type { ListedVolume, VolumeInfo } from '../protocol/handshake.ts';
export { connect, list, ping } from './client.ts';
export { connectKv } from './kv.ts';
export type { KvStore } from './kv.ts';
export { type GetResult, Kv739, type Kv739Options, type Put739Result } from './kv739.ts';
export type { KvTransaction } from './kv-transaction.ts';
export type {
  Bytes,
  DeleteOptions,
  KvChange,
  KvChanged,
  KvCommitted,
  KvConnectOptions,
  KvEntry,
  KvExpiry,
  KvIf,
  KvPage,
  KvStepResult,
  PutOptions,
  ScanOptions,
  WatchOptions,
} from './kv-types.ts';
export type { KvInfo, KvLimits } from '../kv/operations.ts';
export type { ConnectEvents, ConnectOptions } from './options.ts';
export type { ClientTls, CredentialOptions } from './credentials.ts';
export type { ReadRange } from './streams.ts';
export type { Volume, WriteOptions } from './volume.ts';
