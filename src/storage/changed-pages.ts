/** The pages of a table that changed since they were last handed out for writing. Pure. */
export class ChangedPages {
  private readonly pages: Set<number> = new Set();

  /** Marks a page as changed, or has it written again though nothing in it changed. */
  touch(page: number): void {
    this.pages.add(page);
  }

  /** Hands them out, ascending; from now on they count as written. */
  take(): number[] {
    const pages = [...this.pages].sort((a, b) => a - b);
    this.pages.clear();
    return pages;
  }

  get size(): number {
    return this.pages.size;
  }
}
