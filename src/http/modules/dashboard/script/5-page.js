// The page's life: asking the API once a second, telling what has changed, changing what may be changed.

const api = `${document.querySelector('meta[name="tidegate-api"]').content.replace(/\/+$/, '')}/9`;

/** How often the API is asked, and how long an answer may take, in milliseconds. */
const BEAT = 1000;
const PATIENCE = 5000;

/** What is asked for at every beat, and what at every fifth only, by the API's paths. */
const QUICK = {
  nginx: 'nginx',
  connections: 'connections',
  requests: 'http/requests',
  server_zones: 'http/server_zones/',
  location_zones: 'http/location_zones/',
  caches: 'http/caches/',
  upstreams: 'http/upstreams/',
};
const SLOW = {
  processes: 'processes',
  limit_reqs: 'http/limit_reqs/',
  limit_conns: 'http/limit_conns/',
  resolvers: 'resolvers/',
  workers: 'workers/',
};

/** Whether the switches are shown: the API can be written to, and this user may. */
let writable = false;
let paused = false;
let beats = 0;
let offered;
let answeredAt;
let latest = {};
let timer;
let underWay = false;

/** An answer that says no. */
class Refusal extends Error {}

/** Asks the API; what it refuses is told in its own words. */
async function call(path, options = {}) {
  const answer = await fetch(`${api}/${path}`, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE), ...options });
  const text = await answer.text();
  let value;
  try {
    value = text === '' ? undefined : JSON.parse(text);
  } catch {
    throw new Refusal(`${answer.status} ${answer.statusText}: no JSON at ${api}/${path}`);
  }
  if (!answer.ok) {
    const { error } = value ?? {};
    throw new Refusal(error ? `${answer.status} ${error.text} (${error.code})` : `${answer.status} ${answer.statusText} at ${api}/${path}`);
  }
  return value;
}

/** What the API has: only that is asked for. */
async function offers() {
  const roots = await call('');
  const below = roots.includes('http') ? await call('http/') : [];
  return new Set([...roots, ...below.map((name) => `http/${name}`)]);
}

async function beat() {
  if (underWay) {
    return;
  }
  underWay = true;
  clearTimeout(timer);
  const began = performance.now();
  try {
    offered ??= await offers();
    const wanted = Object.entries(beats % 5 === 0 ? { ...QUICK, ...SLOW } : QUICK)
      .filter(([, path]) => offered.has(path.replace(/\/$/, '')));
    const answers = await Promise.all(wanted.map(async ([name, path]) => [name, await call(path), performance.now()]));
    const fresh = Object.fromEntries(answers);
    const at = answers.length ? answers[0][2] : performance.now();
    if (moment(fresh.nginx?.timestamp) !== undefined) {
      clockAhead = moment(fresh.nginx.timestamp) - Date.now();
    }
    if (beats % 30 === 0) {
      await probe(fresh.upstreams);
    }
    beats += 1;
    answeredAt = Date.now();
    show(at, fresh);
    reached();
  } catch (fault) {
    unreached(fault);
  } finally {
    underWay = false;
    pace(began);
  }
}

/** Sets the time of the next beat. */
function pace(began) {
  clearTimeout(timer);
  if (!paused && !document.hidden) {
    timer = setTimeout(beat, Math.max(100, BEAT - (performance.now() - began)));
  }
}

function show(at, fresh) {
  tell(latest, fresh);
  latest = { ...latest, ...fresh };
  if (fresh.upstreams) {
    trackPeers(at, fresh.upstreams);
  }
  for (const kind of ['server_zones', 'location_zones']) {
    if (fresh[kind]) {
      trackZones(at, kind, fresh[kind]);
    }
  }
  if (fresh.caches) {
    trackCaches(at, fresh.caches);
  }
  showOverview(at, latest);
  showUpstreams(latest.upstreams);
  for (const name of Object.keys(tables)) {
    if (fresh[name]) {
      showTable(name, fresh[name]);
    }
  }
  title();
}

/** The title says how many peers are in trouble, for who has the page in a tab. */
function title() {
  const sick = peersOf(latest.upstreams).filter((peer) => stateOf(peer.state).tone === 'bad').length;
  document.title = sick ? `${sick} not serving · Tidegate` : 'Tidegate';
}

/** Keeps a list of what changed from one reading to the next, and reads it aloud. */
function tell(before, now) {
  const news = [];
  if (before.nginx && now.nginx && before.nginx.generation !== now.nginx.generation) {
    news.push({ text: `Configuration loaded anew: generation ${now.nginx.generation}`, tone: 'calm' });
    // What the API has may be something else now.
    offered = undefined;
  }
  for (const [name, upstream] of Object.entries(now.upstreams ?? {})) {
    const old = before.upstreams?.[name];
    if (!old) {
      continue;
    }
    const known = new Map((old.peers ?? []).map((peer) => [peer.id, peer]));
    for (const peer of upstream.peers ?? []) {
      const was = known.get(peer.id);
      known.delete(peer.id);
      if (!was) {
        news.push({ text: `${peer.server} was added to ${name}`, tone: 'calm' });
      } else if (was.state !== peer.state) {
        const { label, tone } = stateOf(peer.state);
        const reason = why(peer);
        news.push({ text: `${peer.server} in ${name}: ${label.toLowerCase()}${reason ? `, ${reason}` : ''}`, tone });
      }
    }
    for (const gone of known.values()) {
      news.push({ text: `${gone.server} was removed from ${name}`, tone: 'off' });
    }
  }
  if (news.length === 0) {
    return;
  }
  byId('journal').hidden = false;
  const time = clock.format(new Date());
  for (const { text, tone } of news) {
    byId('journal-list').prepend(make('li', { 'data-tone': tone }, make('time', {}, time), make('span', {}, text)));
  }
  while (byId('journal-list').children.length > 40) {
    byId('journal-list').lastChild.remove();
  }
  say(byId('news'), news.slice(0, 5).map(({ text }) => text).join('. '));
}

function reached() {
  byId('outage').hidden = true;
  document.body.classList.remove('stale');
  pulse();
}

function unreached(fault) {
  const reason = fault instanceof Refusal ? fault.message
    : fault.name === 'TimeoutError' ? `no answer within ${PATIENCE / 1000} seconds`
    : fault instanceof TypeError ? 'no connection' : String(fault.message ?? fault);
  const last = answeredAt ? ` The figures below are those of ${clock.format(answeredAt)}.` : '';
  const outage = byId('outage');
  outage.hidden = false;
  say(outage, `The API at ${api} cannot be reached: ${reason}.${last}`);
  document.body.classList.add('stale');
  offered = undefined;
  pulse('lost');
  document.title = 'API not reached · Tidegate';
}

function pulse(mode = paused ? 'paused' : 'live') {
  mark(byId('pulse'), 'data-mode', mode);
  say(byId('pulse-text'), { live: 'Live', paused: 'Paused', lost: 'No answer' }[mode]);
}

/**
 * Asks what this user may do with peers. Without a name and password first, for a browser would ask for them unbidden; where
 * they are wanted, a button lets the user say when.
 */
async function probe(upstreams, credentials = 'omit') {
  const name = Object.keys(upstreams ?? {})[0];
  if (name === undefined) {
    return;
  }
  const answer = await fetch(`${api}/http/upstreams/${encodeURIComponent(name)}/servers/`,
    { method: 'OPTIONS', cache: 'no-store', credentials, signal: AbortSignal.timeout(PATIENCE) });
  const allowed = answer.ok && /\b(PATCH|POST)\b/.test(answer.headers.get('allow') ?? '');
  if (credentials !== 'omit' || !signedIn) {
    writable = allowed;
    signedIn = allowed && credentials !== 'omit';
    byId('sign-in').hidden = answer.status !== 401;
  }
}

let signedIn = false;

/** Changes a peer, and tells how that went. */
async function change(upstream, peer, body, what) {
  try {
    await call(`http/upstreams/${encodeURIComponent(upstream)}/servers/${encodeURIComponent(peer.id)}`,
      { method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    notice(`${peer.server}: ${what}.`);
  } catch (fault) {
    notice(`${peer.server} was not changed: ${fault.message}`, 'bad');
  }
  await beat();
}

let fading;

function notice(text, tone = 'good') {
  const box = byId('notice');
  say(byId('notice-text'), text);
  mark(box, 'data-tone', tone);
  box.hidden = false;
  say(byId(tone === 'bad' ? 'alarm' : 'news'), text);
  clearTimeout(fading);
  if (tone !== 'bad') {
    fading = setTimeout(() => { box.hidden = true; }, 6000);
  }
}

/** Asks before something that cannot be meant lightly. */
function ask(text) {
  const dialog = byId('sure');
  say(byId('sure-text'), text);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((settle) => {
    dialog.addEventListener('close', () => settle(dialog.returnValue === 'yes'), { once: true });
  });
}

byId('notice-close').addEventListener('click', () => { byId('notice').hidden = true; });
byId('pause').addEventListener('click', () => {
  paused = !paused;
  mark(byId('pause'), 'aria-pressed', paused ? 'true' : 'false');
  pulse();
  if (!paused) {
    beat();
  } else {
    clearTimeout(timer);
  }
});
byId('sign-in').addEventListener('click', () => probe(latest.upstreams, 'same-origin').then(beat, unreached));
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    clearTimeout(timer);
  } else if (!paused) {
    beat();
  }
});

beat();
