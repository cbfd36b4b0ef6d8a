/** A node at one moment, as its metrics are read from it. */
import type { ClusterNode } from '../node/cluster-node.ts';
import type { HostedVolume, ReplicaStatus } from '../node/hosted-volume.ts';

export interface ScrapedVolume {
  hosted: HostedVolume;
  status: ReplicaStatus;
  counters: Record<string, number>;
}

export interface Scrape {
  node: ClusterNode;
  volumes: ScrapedVolume[];
  happened: ReturnType<ClusterNode['timeline']['counts']>;
  /** Of Server-Sent Events. */
  streams: number;
}

export function scrapeOf(node: ClusterNode, streams: number): Scrape {
  const volumes = [...node.hosted.values()].map((hosted) => {
    return { hosted, status: hosted.status(), counters: hosted.store.counters() };
  });
  return { node, volumes, happened: node.timeline.counts(), streams };
}
