interface Route {
  method: string;
  url: string;
  matches: RegExp;
}

/** Every route the server answers, so that a wrong method can be told from a wrong path, and tests can list them. */
export class RouteTable {
  private readonly routes: Route[] = [];

  add(methods: string | string[], url: string): void {
    const pattern = url
      .split('/')
      .map((part) =>
        part.startsWith(':') ? '[^/]+' : part === '*' ? '.*' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'),
      )
      .join('/');
    for (const method of [methods].flat()) this.routes.push({ method, url, matches: new RegExp(`^${pattern}$`) });
  }

  /** All routes as `GET /v1/products/:id`. */
  list(): string[] {
    return this.routes.map(({ method, url }) => `${method} ${url}`);
  }

  /** The methods a path answers, in the order of the Allow header; empty for an unknown path. */
  methodsAt(target: string): string[] {
    const path = target.split(/[?#]/, 1)[0] ?? '';
    return [...new Set(this.routes.filter((route) => route.matches.test(path)).map((route) => route.method))].sort();
  }
}
