/** A real cluster whose nodes have HTTP ports. */
import { TestCluster } from './cluster.ts';
import { freePorts } from './free-ports.ts';

export class HttpCluster {
  readonly cluster: TestCluster;
  private readonly urls: Map<string, string>;

  private constructor(cluster: TestCluster, urls: Map<string, string>) {
    this.cluster = cluster;
    this.urls = urls;
  }

  static async start(names: string[], ...args: string[]): Promise<HttpCluster> {
    const cluster = await TestCluster.start([]);
    const ports = await freePorts(names.length);
    const urls = new Map(names.map((name, i) => [name, `http://127.0.0.1:${ports[i]}`]));
    for (const [i, name] of names.entries()) await cluster.add(name, '--http', `127.0.0.1:${ports[i]}`, ...args);
    return new HttpCluster(cluster, urls);
  }

  url(node: string, path: string): string {
    return `${this.urls.get(node)}${path}`;
  }

  async json<T>(node: string, path: string): Promise<{ status: number; body: T }> {
    const response = await fetch(this.url(node, path));
    return { status: response.status, body: (await response.json()) as T };
  }
}
