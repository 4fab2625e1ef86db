// The other parts of the page: overview, zones, caches, limits, resolvers, workers.

/** One figure of the overview. */
class Tile {
  constructor(name, withSpark = false) {
    this.main = make('span', { class: 'tile-main' });
    this.below = make('span', { class: 'tile-below' });
    this.spark = withSpark ? new Spark() : undefined;
    this.element = make('div', { class: withSpark ? 'tile broad' : 'tile' },
      make('h3', {}, name), make('p', {}, this.main, this.below), this.spark?.element);
  }

  show(main, below = '', tone = undefined) {
    say(this.main, main);
    say(this.below, below);
    mark(this.element, 'data-tone', tone);
  }
}

const tiles = {
  requests: new Tile('Requests', true),
  latency: new Tile('Latency'),
  connections: new Tile('Connections'),
  peers: new Tile('Peers up'),
  generation: new Tile('Configuration'),
};
byId('overview').append(...Object.values(tiles).map((tile) => tile.element));

const totals = new Track();
const cacheTracks = new Map();
const zoneTracks = { server_zones: new Map(), location_zones: new Map() };

/** Remembers the readings of the zones of one kind; forgets zones that have gone. */
function trackZones(at, kind, zones) {
  remember(zoneTracks[kind], at, new Map(Object.entries(zones)),
    ({ requests, discarded, received, sent, request_time_hist: hist }) =>
      ({ requests, discarded, received, sent, hist }));
}

/** How requests fare with a cache: what it gives, and what has to be fetched. */
const GIVEN = ['hit', 'stale', 'updating', 'revalidated'];
const FETCHED = ['miss', 'expired', 'bypass'];

/** The sum of one number over ways to fare. */
const over = (cache, ways, name) => ways.reduce((sum, way) => sum + (cache[way]?.[name] ?? 0), 0);

/** Remembers the readings of caches, for longer than those of zones: few requests make no ratio. */
function trackCaches(at, caches) {
  remember(cacheTracks, at, new Map(Object.entries(caches)), (cache) => ({
    given: over(cache, GIVEN, 'responses'),
    fetched: over(cache, FETCHED, 'responses'),
    written: over(cache, FETCHED, 'bytes_written'),
  }));
}

/** The histograms of all zones as one. */
function together(zones) {
  const sum = { count: 0, sum: 0, buckets: {} };
  let any = false;
  for (const { request_time_hist: hist } of Object.values(zones ?? {})) {
    if (hist?.buckets) {
      any = true;
      sum.count += hist.count;
      sum.sum += hist.sum;
      for (const [bound, number] of Object.entries(hist.buckets)) {
        sum.buckets[bound] = (sum.buckets[bound] ?? 0) + number;
      }
    }
  }
  return any ? sum : undefined;
}

function showOverview(at, data) {
  const { nginx = {}, connections = {}, requests = {}, server_zones: zones, upstreams, processes } = data;
  totals.push(at, { requests: requests.total, accepted: connections.accepted, hist: together(zones) });
  tiles.requests.show(perSecond(totals.rate('requests')),
    remarks(`${count(requests.current)} under way`, `${count(requests.total)} in all`));
  tiles.requests.spark.update(totals.course('requests'));
  const times = totals.times('hist');
  tiles.latency.element.hidden = !times;
  if (times) {
    tiles.latency.show(milliseconds(times.half),
      times.count > 0 ? `p95 ${milliseconds(times.most)}` : 'no requests just now');
  }
  const dropped = connections.dropped > 0 && `${count(connections.dropped)} dropped`;
  tiles.connections.show(count(connections.active + connections.idle),
    remarks(`${count(connections.idle)} idle`, `${perSecond(totals.rate('accepted'))} new`, dropped),
    dropped ? 'warn' : undefined);
  showPeersTile(peersOf(upstreams));
  const failed = nginx.last_reload?.succeeded === false;
  const loaded = age(nginx.load_timestamp);
  tiles.generation.show(`Generation ${nginx.generation ?? NONE}`,
    failed ? 'last reload failed' : loaded === undefined ? '' : `loaded ${span(loaded)} ago`,
    failed ? 'bad' : undefined);
  showAttention(data, failed);
  say(byId('identity'), remarks(nginx.address, nginx.build, nginx.version && `as nginx ${nginx.version}`));
  say(byId('footer'), remarks(
    nginx.ppid && `master ${nginx.ppid}`,
    nginx.pid && `worker ${nginx.pid}`,
    processes && `${count(processes.respawned)} workers replaced after a crash`,
    `read from ${api}`,
  ));
}

function showPeersTile(peers) {
  const { of, total } = tally(peers.map((peer) => peer.state));
  const up = of.get('up') ?? 0;
  of.delete('up');
  const others = [...of].map(([state, number]) => `${number} ${stateOf(state).label.toLowerCase()}`);
  const bad = [...of.keys()].some((state) => stateOf(state).tone === 'bad');
  tiles.peers.element.hidden = total === 0;
  tiles.peers.show(`${count(up)} of ${count(total)}`, remarks(...others) || 'all up', bad ? 'bad' : undefined);
}

/** What needs somebody's eye, in one list: nothing is shown while all is well. */
function showAttention(data, reloadFailed) {
  const items = [];
  if (reloadFailed) {
    const error = data.nginx.last_reload.error ?? '';
    items.push({ key: 'reload', state: 'unhealthy', what: 'Last reload failed', why: error });
  }
  for (const [name, upstream] of Object.entries(data.upstreams ?? {})) {
    for (const server of upstream.unresolved ?? []) {
      const what = `${server} in ${name}`;
      const unknown = 'nobody has known this name since the start';
      items.push({ key: `${name}\n${server}`, state: 'unresolved', what, why: unknown });
    }
    for (const peer of upstream.peers ?? []) {
      if (!['up', 'draining', 'down'].includes(peer.state)) {
        const what = `${peer.server} in ${name}`;
        const known = [why(peer), since(peer)].filter(Boolean).join(', ');
        items.push({ key: peerKey(name, peer.id), state: peer.state, what, why: known });
      }
    }
  }
  const box = byId('attention');
  box.hidden = items.length === 0;
  if (!box.list) {
    box.list = make('ul');
    box.head = make('h3', {}, 'Needs attention');
    box.rest = make('p', { class: 'below' });
    box.append(box.head, box.list, box.rest);
  }
  const shown = items.slice(0, 8);
  const empty = () => make('li', {}, stateBadge(), make('span', { class: 'what' }), make('span', { class: 'why' }));
  follow(box.list, shown, (item) => item.key, empty, (row, item) => {
    const [badge, what, reason] = row.children;
    showState(badge, item.state);
    if (item.key === 'reload') {
      say(badge.lastChild, 'Reload');
    }
    say(what, item.what);
    say(reason, item.why);
  });
  say(box.rest, items.length > shown.length ? `and ${items.length - shown.length} more` : '');
}

/** A table of zones. */
function zoneTable(kind, caption) {
  const trackOf = (zone) => zoneTracks[kind].get(zone.name);
  const volume = (head, name) => ({
    head,
    number: true,
    show: (cell, zone) => lines(cell, `${bytes(trackOf(zone)?.rate(name))}/s`, bytes(zone[name])),
  });
  return new Table(caption, [
    named('Zone'),
    {
      head: 'Requests',
      number: true,
      kind: 'rate',
      show(cell, zone) {
        lines(cell, perSecond(trackOf(zone)?.rate('requests')), count(zone.requests));
      },
    },
    lastMinute(trackOf, 'requests'),
    {
      ...figure('Under way', (zone) => zone.processing),
      wanted: (zones) => zones.some((zone) => zone.processing !== undefined),
    },
    {
      head: 'Latency',
      number: true,
      title: 'Median of the last ten seconds; below, their 95th percentile',
      wanted: (zones) => zones.some((zone) => zone.request_time_hist),
      show(cell, zone) {
        const times = trackOf(zone)?.times('hist');
        lines(cell, milliseconds(times?.half), times?.count > 0 ? `p95 ${milliseconds(times.most)}` : '');
      },
    },
    ...['2xx', '3xx', '4xx', '5xx'].map((name) => classColumn(name, trackOf)),
    figure('Discarded', (zone) => zone.discarded, 'Requests that ended without an answer'),
    volume('Received', 'received'),
    volume('Sent', 'sent'),
  ], (zone) => zone.name, 1000);
}

const figure = (head, read, title) =>
  ({ head, title, number: true, show: (cell, item) => lines(cell, count(read(item))) });
const lastMinute = (trackOf, name, title) => ({
  head: 'Last minute',
  kind: 'course',
  title,
  show(cell, item) {
    if (!cell.spark) {
      cell.spark = new Spark();
      cell.append(cell.spark.element);
    }
    cell.spark.update(trackOf(item)?.course(name) ?? []);
  },
});
const named = (head) => ({ head, row: true, show: (cell, item) => say(cell, item.name) });

/** The table of caches. */
function cacheTable() {
  const trackOf = (cache) => cacheTracks.get(cache.name);
  const ways = (head, title, ...names) => ({
    head,
    title,
    number: true,
    show(cell, cache) {
      lines(cell, count(over(cache, names, 'responses')), bytes(over(cache, names, 'bytes')));
    },
  });
  return new Table('Caches', [
    {
      head: 'Cache',
      row: true,
      title: 'Loading: files of an earlier process are still being found',
      show: (cell, cache) => lines(cell, cache.name, cache.cold ? 'loading' : ''),
    },
    {
      head: 'Size',
      number: true,
      kind: 'size',
      title: 'What its files take on the disk; below, of how much',
      show(cell, cache) {
        const most = cache.max_size;
        lines(cell, bytes(cache.size), most === undefined ? 'no limit' : `${percent(cache.size, most)} of ${bytes(most)}`);
      },
    },
    {
      head: 'Hit ratio',
      number: true,
      title: 'The part of all answers that it gave in the last minute; below, ever since. '
        + 'What is fetched in the background counts as fetched.',
      show(cell, cache) {
        const window = trackOf(cache)?.window(60);
        const [given, fetched] = ['given', 'fetched'].map((name) => window
          ? window.last.values[name] - window.old.values[name] : NaN);
        const [all, others] = [over(cache, GIVEN, 'responses'), over(cache, FETCHED, 'responses')];
        lines(cell, percent(given, given + fetched), all + others > 0 ? `${percent(all, all + others)} in all` : '');
      },
    },
    lastMinute(trackOf, 'given', 'Answers that it gave'),
    ways('Hit', 'Fresh answers', 'hit'),
    ways('Stale', 'Old answers, for want of better ones or while they were fetched anew', 'stale', 'updating'),
    ways('Revalidated', 'Old answers that still held', 'revalidated'),
    ways('Miss', 'Answers that were not there', 'miss'),
    ways('Expired', 'Answers that were too old', 'expired'),
    ways('Bypassed', 'Answers that were not looked for', 'bypass'),
    {
      head: 'Written',
      number: true,
      title: 'Bytes of files that were stored',
      show(cell, cache) {
        lines(cell, `${bytes(trackOf(cache)?.rate('written'))}/s`, bytes(over(cache, FETCHED, 'bytes_written')));
      },
    },
  ], (cache) => cache.name, 1000);
}

const tables = {
  server_zones: zoneTable('server_zones', 'Server zones'),
  location_zones: zoneTable('location_zones', 'Location zones'),
  caches: cacheTable(),
  limit_reqs: new Table('Limits of request rates', [
    named('limit_req zone'),
    figure('Passed', (zone) => zone.passed),
    figure('Delayed', (zone) => zone.delayed),
    figure('Rejected', (zone) => zone.rejected),
    figure('Would be delayed', (zone) => zone.delayed_dry_run, 'In a dry run'),
    figure('Would be rejected', (zone) => zone.rejected_dry_run, 'In a dry run'),
  ], (zone) => zone.name, 640),
  limit_conns: new Table('Limits of connections', [
    named('limit_conn zone'),
    figure('Passed', (zone) => zone.passed),
    figure('Rejected', (zone) => zone.rejected),
    figure('Would be rejected', (zone) => zone.rejected_dry_run, 'In a dry run'),
  ], (zone) => zone.name, 640),
  resolvers: new Table('Questions to name servers', [
    named('Resolver zone'),
    figure('Names', (zone) => zone.requests?.name),
    figure('Services', (zone) => zone.requests?.srv),
    figure('Addresses', (zone) => zone.requests?.addr),
    figure('Answered', (zone) => zone.responses?.noerror),
    figure('No such name', (zone) => zone.responses?.nxdomain),
    figure('Server failure', (zone) => zone.responses?.servfail),
    figure('Timed out', (zone) => zone.responses?.timedout),
    figure('Other faults', (zone) => ['formerr', 'notimp', 'refused', 'unknown']
      .reduce((sum, name) => sum + (zone.responses?.[name] ?? 0), 0)),
  ], (zone) => zone.name, 640),
  workers: new Table('Workers', [
    named('Worker'),
    { head: 'Process', number: true, show: (cell, worker) => lines(cell, worker.pid ?? NONE) },
    figure('Accepted', (worker) => worker.connections?.accepted),
    figure('Dropped', (worker) => worker.connections?.dropped),
    figure('Active', (worker) => worker.connections?.active),
    figure('Idle', (worker) => worker.connections?.idle),
    figure('Requests', (worker) => worker.http?.requests?.total),
    figure('Under way', (worker) => worker.http?.requests?.current),
  ], (worker) => worker.name, 640),
};

for (const [section, names] of Object.entries({
  'server-zones': ['server_zones'],
  'location-zones': ['location_zones'],
  caches: ['caches'],
  limits: ['limit_reqs', 'limit_conns'],
  resolvers: ['resolvers'],
  workers: ['workers'],
})) {
  for (const name of names) {
    const frame = framed(tables[name], tables[name].element.caption.textContent);
    tables[name].frame = frame;
    byId(section).append(frame);
  }
}

/** A table of one kind, and whether its part of the page is there at all. */
function showTable(name, zones) {
  const items = Array.isArray(zones)
    ? zones.map((item, at) => ({ ...item, name: String(item.id ?? at) }))
    : Object.entries(zones ?? {}).map(([key, item]) => ({ ...item, name: key }));
  const { frame } = tables[name];
  frame.hidden = items.length === 0;
  const section = frame.parentElement;
  section.hidden = [...section.querySelectorAll('.frame')].every((other) => other.hidden);
  tables[name].update(items);
}

const upstreamBoxes = new Map();

function showUpstreams(upstreams) {
  const section = byId('upstreams');
  const list = Object.entries(upstreams ?? {});
  section.hidden = list.length === 0;
  follow(section, list, ([name]) => name, ([name]) => {
    const box = new Upstream(name);
    upstreamBoxes.set(name, box);
    return box.element;
  }, (_, [name, upstream]) => upstreamBoxes.get(name).update(upstream));
}
