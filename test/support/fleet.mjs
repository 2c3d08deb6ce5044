/** How many of each there are. */
export const FLEET = { monolith: 3, proxy: 2, 'control-plane': 2, service: 2 };

/** What tells `banyan up` so. */
export const fleetSettings = {
  BANYAN_MONOLITHS: String(FLEET.monolith),
  BANYAN_PROXIES: String(FLEET.proxy),
  BANYAN_CONTROL_PLANES: String(FLEET['control-plane']),
  BANYAN_SERVICES: String(FLEET.service),
  // Some dozens of pools on one Postgres.
  BANYAN_DB_POOL_SIZE: '5',
};
