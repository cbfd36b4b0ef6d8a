/** What there is of each request, by session and number. Pure. */
export class BySession<T> {
  readonly sessions: Map<bigint, Map<number, T>> = new Map();

  get(session: bigint, request: number): T | undefined {
    return this.sessions.get(session)?.get(request);
  }

  set(session: bigint, request: number, value: T): void {
    const requests = this.sessions.get(session);
    if (requests === undefined) this.sessions.set(session, new Map([[request, value]]));
    else requests.set(request, value);
  }

  delete(session: bigint, request: number): void {
    const requests = this.sessions.get(session);
    if (requests === undefined) return;
    requests.delete(request);
    if (requests.size === 0) this.sessions.delete(session);
  }
}
