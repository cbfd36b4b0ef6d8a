/**
 * A volume that grows in the simulated world: all disks have the room from the beginning, as `volume grow` leaves them
 * before its last step; at times that a seed names the register says a larger size.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { enlargedImage } from '../support/enlarged-image.ts';
import type { Cluster } from './cluster.ts';

/** Before any node is started. */
export async function makeRoom(cluster: Cluster, roomBlocks: number): Promise<void> {
  const { register } = cluster;
  register.current = { ...register.current, sizeBytes: cluster.blocks * BLOCK_BYTES };
  for (const node of cluster.nodes) node.image = await enlargedImage(node.image, roomBlocks * BLOCK_BYTES);
}

/** The last step of `volume grow`: in the version of the register that is there now. */
export function raise(cluster: Cluster, blocks: number): void {
  const { register, world } = cluster;
  if (blocks <= cluster.blocks) return;
  cluster.blocks = blocks;
  const { current } = register;
  register.current = { ...current, version: current.version + 1, sizeBytes: blocks * BLOCK_BYTES };
  world.note(`register ${register.current.version}: the volume has ${blocks} blocks`);
}
