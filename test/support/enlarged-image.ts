/** A disk with room for more blocks, as `volume grow` leaves it: what was in it, and zeros. */
import { enlargeMeta } from '../../src/storage/enlarged-meta.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { type Image, SimulatedDisk } from './simulated-disk.ts';

export async function enlargedImage(image: Image, toBytes: number): Promise<Image> {
  const from = new SimulatedDisk(image, 1);
  const wider = layoutOf(toBytes, image.journal.length);
  const to: Image = {
    data: new Uint8Array(wider.sizeBytes),
    journal: image.journal,
    meta: new Uint8Array(wider.metaBytes),
  };
  to.data.set(image.data);
  const fromMetaBytes = image.meta.length;
  await enlargeMeta({ from, to: new SimulatedDisk(to, 1), fromMetaBytes, toBytes, where: 'sim' });
  return to;
}
