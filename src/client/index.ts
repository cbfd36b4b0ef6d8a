/**
 * What the package exports: the client library. It loads neither worker pools nor native addons.
 */
export type { BlockDevice, CallOptions, Extent, ExtentOptions } from '../base/device.ts';
export { type ErrorCode, type ErrorDetails, HoldfastError } from '../base/errors.ts';
export type { Position } from '../base/position.ts';
export type { ListedVolume, VolumeInfo } from '../protocol/handshake.ts';
export { connect, list, ping } from './client.ts';
export type { ConnectEvents, ConnectOptions } from './options.ts';
export type { ReadRange } from './streams.ts';
export type { Volume, WriteOptions } from './volume.ts';
