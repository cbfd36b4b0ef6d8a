/** The HTTP port of `holdfast node`: its flags, and how it looks at the cluster. */
import type { Command } from 'commander';
import type { Coordinator } from '../coordination/register.ts';
import { checkListen } from '../http/hosts.ts';
import type { ClusterNode } from '../node/cluster-node.ts';
import { parseAddress } from '../node/listen.ts';
import { lookAt } from './cluster-status.ts';

export interface HttpFlags {
  http?: string;
  httpHost?: string[];
  httpInsecure?: boolean;
}

/** A node that answers later is shown as one that does not. */
const ANSWER_MS = 1000;
/** For the coordinator. */
const LOOK_MS = 1500;

export function addHttpOptions(command: Command): Command {
  return command
    .option('--http <host:port>', 'dashboard and metrics there; default: none')
    .option('--http-host <name...>', 'names that the port of --http may be called by, besides localhost')
    .option('--http-insecure', 'the port of --http may be reached from other machines: it has no passwords');
}

/** Before anything is begun. @throws HoldfastError INVALID_ARGUMENT */
export function checkHttp({ http, httpInsecure }: HttpFlags): void {
  if (http !== undefined) checkListen(parseAddress(http).host, httpInsecure ?? false);
}

export interface StartedHttp {
  /** For what the node prints. */
  told: { http?: string };
  /** To be called before the node is closed. */
  close(): Promise<void>;
}

/**
 * Where the flags want it. The node is closed if that fails.
 * @param open a coordinator that is asked within LOOK_MS
 * @throws HoldfastError BUSY, ACCESS
 */
export async function startHttp(
  { http, httpHost, httpInsecure }: HttpFlags,
  node: ClusterNode,
  open: (deadlineMs: number) => Coordinator,
): Promise<StartedHttp> {
  if (http === undefined) return { told: {}, close: async () => {} };
  const coordinator = open(LOOK_MS);
  try {
    const look = (): Promise<object> => lookAt(coordinator, ANSWER_MS);
    const names = httpHost ?? [];
    // Loaded only where it is wanted: every other command starts without it.
    const { HttpPort } = await import('../http/http-server.ts');
    const port = await HttpPort.start({ ...parseAddress(http), names, insecure: httpInsecure ?? false, node, look });
    const close = async (): Promise<void> => {
      await port.close();
      await coordinator.close();
    };
    return { told: { http: port.url }, close };
  } catch (error) {
    await coordinator.close();
    await node.close();
    throw error;
  }
}
