/**
 * What Prometheus is told of a node: read from the counts that the node keeps anyway, when it asks.
 *
 * Guarantees: nothing is kept here, so a restart of the port loses nothing; label values are names of this node's volumes, of
 * members and of a few fixed things, so the number of series is bounded by volumes and members.
 */
import { Registry, collectDefaultMetrics } from 'prom-client';
import type { ClusterNode } from '../node/cluster-node.ts';
import { METRICS } from './metric-table.ts';
import { type Scrape, scrapeOf } from './scrape.ts';
import { type Family, ReadMetric } from './read-metric.ts';

/** prom-client counts them by type too; as gauges that are called `_total` they mislead. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

export class Metrics {
  readonly contentType: string = Registry.PROMETHEUS_CONTENT_TYPE;
  private readonly node: ClusterNode;
  private readonly streams: () => number;
  private readonly registry = new Registry();
  private scrape!: Scrape;

  constructor(node: ClusterNode, streams: () => number) {
    this.node = node;
    this.streams = streams;
    this.registry.setDefaultLabels({ node: node.node });
    collectDefaultMetrics({ register: this.registry });
    for (const name of MISNAMED) this.registry.removeSingleMetric(name);
    for (const family of METRICS) this.add(family);
  }

  private add(family: Family): void {
    new ReadMetric(family, () => this.scrape).addTo(this.registry);
  }

  async text(): Promise<string> {
    this.scrape = scrapeOf(this.node, this.streams());
    return this.registry.metrics();
  }

  close(): void {
    this.registry.clear();
  }
}
