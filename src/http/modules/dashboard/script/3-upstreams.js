// Upstreams: their peers, in which state and why, who was picked, and the switches.

/** States of a peer by the API's words. A state is told by its name and its mark; colour only comes on top. */
const STATES = {
  up: { label: 'Up', tone: 'good', mark: 'M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z' },
  draining: { label: 'Draining', tone: 'calm', mark: 'M8 2.5a5.5 5.5 0 1 0 0 11z', rim: 'M8 2.5a5.5 5.5 0 0 1 0 11' },
  checking: { label: 'Checking', tone: 'calm', mark: '', rim: 'M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10z' },
  down: { label: 'Down', tone: 'off', mark: 'M3 3h10v10H3z' },
  unavail: { label: 'Unavailable', tone: 'bad', mark: 'M8 1.8L15 14H1z' },
  unresolved: { label: 'Unresolved', tone: 'bad', mark: 'M8 2L14 8L8 14L2 8z' },
  unhealthy: { label: 'Unhealthy', tone: 'bad', mark: '', rim: 'M3.5 3.5l9 9M12.5 3.5l-9 9' },
};
const stateOf = (word) => STATES[word] ?? { label: String(word ?? 'Unknown'), tone: 'warn', mark: 'M8 2L14 8L8 14L2 8z' };

/** What stands behind the words of `$upstream_failure_reason`. */
const REASONS = {
  refused: 'connection refused',
  unreachable: 'not reachable',
  unresolved: 'name not resolved',
  tls: 'TLS handshake failed',
  timeout_connect: 'no connection in time',
  timeout_read: 'no answer in time',
  timeout_write: 'took no request in time',
  reset: 'connection was reset',
  reset_on_reused: 'kept connection was reset',
  closed_early: 'closed before it answered',
  header_too_big: 'head of the answer too big',
  invalid_header: 'head of the answer invalid',
  caught_stderr: 'wrote what is an error here',
  no_live_peers: 'no live peers',
};

/** A reason in words; `undefined` for what is no word of that list. */
function reasonInWords(word) {
  const status = /^http_(\d{3})$/.exec(word)?.[1];
  return status ? `answered with ${status}` : REASONS[word];
}

/** The kernel's words in a line such as nginx logs, where there are any; the details have all of it. */
function brief(text) {
  const words = /\(\d+: ([^)]+)\)/.exec(text)?.[1];
  return words ? words[0].toLowerCase() + words.slice(1) : text;
}

/** Why a peer is in its state, as far as the API says it. */
function why(peer) {
  const known = reasonInWords(peer.reason);
  const said = peer.reason === undefined ? undefined : known ?? brief(String(peer.reason));
  // What failed last says nothing about a peer that is as somebody wanted it.
  const wished = known ? undefined : said;
  switch (peer.state) {
    case 'up': return '';
    case 'down': return wished ?? 'taken out';
    case 'draining': return wished ?? 'bound sessions only';
    case 'checking': return wished ?? 'first check is awaited';
    case 'unhealthy': return said ?? brief(peer.health_checks?.last_error ?? 'check failed');
    default: return said ?? (peer.fails ? `${count(peer.fails)} failures` : '');
  }
}

/** Since when it has not been serving, as text. */
function since(peer) {
  const time = ['up', 'down', 'draining'].includes(peer.state) ? undefined : age(peer.downstart);
  return time === undefined ? '' : `for ${span(time)}`;
}

/** The letter that stands for a peer where there is no room for its address: A to Z, then AA. */
function letter(at) {
  return at < 26 ? String.fromCharCode(65 + at) : letter(Math.floor(at / 26) - 1) + letter(at % 26);
}

/** A state as mark and name. */
function stateBadge() {
  const [path, rim] = [draw('path'), draw('path', { class: 'rim' })];
  const badge = make('span', { class: 'state' }, draw('svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true' }, path, rim), make('span'));
  return Object.assign(badge, { path, rim });
}

function showState(badge, word) {
  const state = stateOf(word);
  mark(badge, 'data-tone', state.tone);
  mark(badge.path, 'd', state.mark);
  mark(badge.rim, 'd', state.rim ?? '');
  say(badge.lastChild, state.label);
}

const peerKey = (upstream, id) => `${upstream}\n${id}`;
const peerTracks = new Map();

/** The peers of all upstreams in one list. */
const peersOf = (upstreams) => Object.values(upstreams ?? {}).flatMap((upstream) => upstream.peers ?? []);

/** Remembers the readings of all peers; forgets peers that have gone. */
function trackPeers(at, upstreams) {
  const peers = new Map(Object.entries(upstreams).flatMap(([name, upstream]) =>
    (upstream.peers ?? []).map((peer) => [peerKey(name, peer.id), peer])));
  remember(peerTracks, at, peers, ({ requests, sent, received, fails, response_time_hist: hist }) =>
    ({ requests, sent, received, fails, hist }), 12);
}

/** The columns of a class of answers: how many in all, and a second where there are any. */
const classColumn = (name, trackOf) => ({
  head: name,
  number: true,
  kind: 'narrow',
  show(cell, item) {
    const rate = trackOf(item)?.rate(name, 10);
    const alarming = name === '5xx' && rate > 0;
    lines(cell, count(item.responses?.[name]), rate > 0 ? perSecond(rate) : '', alarming ? 'bad' : undefined);
  },
});

/** How many rows of one group are shown until somebody asks for all. */
const FEW = 60;

/** One group of servers. */
class Upstream {
  constructor(name) {
    this.name = name;
    this.all = false;
    this.title = make('h3', {}, name);
    this.facts = make('p', { class: 'facts' });
    this.picks = make('ol', { class: 'picks' });
    this.strip = make('div', { class: 'strip', hidden: true }, make('span', { class: 'strip-head' }, 'Recent picks'), this.picks);
    const trackOf = (peer) => peerTracks.get(peerKey(name, peer.id));
    this.table = new Table(`Peers of ${name}`, [
      { head: 'Peer', row: true, kind: 'peer', show: (cell, peer) => this.showName(cell, peer) },
      { head: 'State', kind: 'condition', show: (cell, peer) => showPeerState(cell, peer) },
      { head: 'Service', kind: 'service', wanted: () => writable, show: (cell, peer) => this.showSwitch(cell, peer) },
      { head: 'Weight', number: true, kind: 'weighing', show: (cell, peer) => this.showWeight(cell, peer) },
      {
        head: 'Load',
        number: true,
        kind: 'narrow',
        title: 'Load as the peer reported it last',
        wanted: (peers) => peers.some((peer) => peer.load !== undefined),
        show: (cell, peer) => lines(cell, Number.isFinite(peer.load) ? hundredth.format(peer.load) : NONE),
      },
      { head: 'Active', number: true, kind: 'narrow', show: (cell, peer) => lines(cell, count(peer.active), peer.max_conns ? `of ${peer.max_conns}` : '') },
      { head: 'Requests', number: true, show: (cell, peer) => lines(cell, perSecond(trackOf(peer)?.rate('requests')), count(peer.requests)) },
      { head: 'Latency', number: true, title: 'Average as the API has it; below, the 95th percentile of the last ten seconds', show: (cell, peer) => showTimes(cell, peer, trackOf(peer)) },
      ...['2xx', '3xx', '4xx', '5xx'].map((name) => classColumn(name, trackOf)),
      { head: 'Failures', number: true, kind: 'failing', title: 'Failed attempts; below, how often that made the peer unavailable', show: (cell, peer) => showFailures(cell, peer, trackOf(peer)) },
      { head: 'Last check', kind: 'check', wanted: (peers) => peers.some((peer) => checked(peer)), show: (cell, peer) => showCheck(cell, peer) },
    ], (peer) => peer.id, 1000);
    this.sheets = new Map();
    this.more = make('button', { type: 'button', class: 'more', hidden: true });
    this.more.addEventListener('click', () => {
      this.all = !this.all;
      this.update(this.latest);
    });
    this.element = make('article', { class: 'upstream', 'aria-label': `Upstream ${name}` },
      make('div', { class: 'upstream-head' }, this.title, this.facts), this.strip,
      framed(this.table, `Peers of ${name}`), this.more);
  }

  update(upstream) {
    this.latest = upstream;
    const peers = upstream.peers ?? [];
    this.letters = new Map(peers.map((peer, at) => [peer.id, letter(at)]));
    this.recent = tally(upstream.picks ?? []);
    const serving = peers.filter((peer) => peer.state === 'up').length;
    say(this.facts, remarks(
      `${serving} of ${peers.length} up`,
      upstream.method && String(upstream.method).replaceAll('_', ' '),
      upstream.zone && `zone ${upstream.zone}`,
      `${count(upstream.keepalive)} kept connections`,
      upstream.unresolved?.length > 0 && `${count(upstream.unresolved.length)} not resolved`,
      upstream.zombies > 0 && `${count(upstream.zombies)} removed but still busy`,
      upstream.queue && `queue ${upstream.queue.size} of ${upstream.queue.max_size}, ${count(upstream.queue.overflows)} overflows`,
    ));
    this.showPicks(upstream.picks ?? []);
    const sick = peers.filter((peer) => peer.state !== 'up');
    const shown = this.all || peers.length <= FEW ? peers
      : peers.filter((peer, at) => at < FEW || (sick.includes(peer) && sick.length <= FEW));
    this.table.update(shown);
    this.showSheets(shown);
    mark(this.more, 'hidden', peers.length <= FEW && '');
    say(this.more, this.all ? `Show the first ${FEW} only` : `Show all ${count(peers.length)} peers`);
  }

  showName(cell, peer) {
    if (!cell.button) {
      cell.tag = make('span', { class: 'letter', 'aria-hidden': 'true' });
      cell.address = make('span', { class: 'address' });
      cell.button = make('button', { type: 'button', class: 'unfold', 'aria-expanded': 'false', title: 'Details' }, cell.tag, cell.address);
      cell.below = make('span', { class: 'below' });
      cell.append(cell.button, cell.below);
      cell.button.addEventListener('click', () => this.unfold(cell));
    }
    cell.peer = peer;
    say(cell.tag, this.letters.get(peer.id));
    mark(cell.tag, 'data-hue', peer.id % 8);
    say(cell.address, peer.server ?? peer.name);
    mark(cell.address, 'title', peer.server);
    say(cell.below, remarks(peer.backup && 'backup', peer.name !== peer.server && peer.name));
  }

  /** Shows or hides what else is known about a peer, in a row of its own below. */
  unfold(cell) {
    const { id } = cell.peer;
    const sheet = this.sheets.get(id);
    if (sheet) {
      sheet.row.remove();
      this.sheets.delete(id);
    } else {
      this.sheets.set(id, new Sheet());
    }
    mark(cell.button, 'aria-expanded', sheet ? 'false' : 'true');
    this.update(this.latest);
  }

  showSheets(peers) {
    const width = this.table.heads.filter((head) => !head.hidden).length;
    for (const [id, sheet] of this.sheets) {
      const peer = peers.find((other) => other.id === id);
      const row = this.table.body.known.get(id);
      if (peer) {
        mark(sheet.cell, 'colspan', width);
        sheet.update(peer, peerTracks.get(peerKey(this.name, id)));
        if (row.nextElementSibling !== sheet.row) {
          row.after(sheet.row);
        }
      } else {
        sheet.row.remove();
        this.sheets.delete(id);
      }
    }
  }

  showPicks(picks) {
    this.strip.hidden = picks.length === 0;
    const recent = picks.slice(-48);
    while (this.picks.children.length < recent.length) {
      this.picks.append(make('li', { class: 'letter' }));
    }
    while (this.picks.children.length > recent.length) {
      this.picks.firstChild.remove();
    }
    recent.forEach((id, at) => {
      const spot = this.picks.children[recent.length - 1 - at];
      say(spot, this.letters.get(id) ?? '·');
      mark(spot, 'data-hue', this.letters.has(id) ? id % 8 : false);
    });
    mark(this.picks, 'aria-label', `Recent picks of ${this.name}, newest first`);
  }

  showWeight(cell, peer) {
    const share = this.recent.total ? `${percent(this.recent.of.get(peer.id) ?? 0, this.recent.total)} of picks` : '';
    if (!writable) {
      cell.input?.remove();
      cell.input = undefined;
      if (cell.figure) {
        cell.figure.hidden = false;
      }
      lines(cell, count(peer.weight), share);
      return;
    }
    lines(cell, '', share);
    if (!cell.input) {
      cell.figure.hidden = true;
      cell.input = make('input', { type: 'number', min: '1', max: '65535', step: '1', inputmode: 'numeric', class: 'weight' });
      cell.input.addEventListener('change', () => {
        const weight = Number(cell.input.value);
        change(this.name, cell.peer, { weight }, `weight ${weight}`).finally(() => {
          cell.input.value = String(cell.peer.weight);
        });
      });
      cell.prepend(cell.input);
    }
    cell.peer = peer;
    mark(cell.input, 'aria-label', `Weight of ${peer.server}`);
    if (document.activeElement !== cell.input && cell.input.value !== String(peer.weight)) {
      cell.input.value = String(peer.weight);
    }
  }

  /** Three buttons: in service, drained, taken out. */
  showSwitch(cell, peer) {
    if (!writable) {
      return;
    }
    if (!cell.group) {
      const button = (mode, text) => {
        const element = make('button', { type: 'button', 'data-mode': mode }, text);
        element.addEventListener('click', () => this.put(cell.peer, mode));
        return element;
      };
      cell.buttons = [button('in', 'In'), button('drain', 'Drain'), button('down', 'Down')];
      cell.group = make('span', { class: 'switch', role: 'group' }, ...cell.buttons);
      cell.append(cell.group);
    }
    cell.peer = peer;
    mark(cell.group, 'aria-label', `Service of ${peer.server}`);
    const mode = { down: 'down', draining: 'drain' }[peer.state] ?? 'in';
    for (const button of cell.buttons) {
      mark(button, 'aria-pressed', button.dataset.mode === mode ? 'true' : 'false');
    }
  }

  async put(peer, mode) {
    const last = (this.latest.peers ?? []).every((other) => other.id === peer.id || other.state !== 'up');
    if (mode !== 'in' && peer.state === 'up' && last) {
      const sure = await ask(`${peer.server} is the last peer of ${this.name} that is up. Without it, requests will fail.`);
      if (!sure) {
        return;
      }
    }
    const body = { in: { down: false, drain: false }, drain: { down: false, drain: true }, down: { down: true, drain: false } }[mode];
    await change(this.name, peer, body, { in: 'in service', drain: 'draining', down: 'taken out' }[mode]);
  }
}

/** How often each value is in a list: a peer's id among the recent picks, a state among the peers. */
function tally(values) {
  const of = new Map();
  for (const value of values) {
    of.set(value, (of.get(value) ?? 0) + 1);
  }
  return { of, total: values.length };
}

function showPeerState(cell, peer) {
  if (!cell.badge) {
    cell.badge = stateBadge();
    cell.why = make('span', { class: 'below' });
    cell.since = make('span', { class: 'below' });
    cell.append(cell.badge, cell.why, cell.since);
  }
  showState(cell.badge, peer.state);
  say(cell.why, why(peer));
  say(cell.since, since(peer));
}

function showTimes(cell, peer, track) {
  const recent = track?.times('hist');
  const below = recent?.count > 0 ? `p95 ${milliseconds(recent.most)}` : '';
  lines(cell, milliseconds(peer.response_time), below);
}

function showFailures(cell, peer, track) {
  const fresh = track?.rate('fails', 10) > 0;
  lines(cell, count(peer.fails), peer.unavail ? `out ${count(peer.unavail)}×` : '', fresh ? 'bad' : undefined);
}

const checked = (peer) => (peer.health_checks?.checks ?? 0) > 0;

function showCheck(cell, peer) {
  const { checks = 0, fails = 0, last_passed: passed, last_at: at } = peer.health_checks ?? {};
  if (!checks) {
    lines(cell, NONE);
    return;
  }
  const ago = age(at);
  const when = ago === undefined ? '' : ago < 2000 ? ' just now' : ` ${span(ago)} ago`;
  const tone = passed === false ? 'bad' : undefined;
  lines(cell, `${passed === false ? 'Failed' : passed ? 'Passed' : 'Made'}${when}`, `${count(fails)} of ${count(checks)} failed`, tone);
}

/** What else is known about a peer. */
class Sheet {
  constructor() {
    this.facts = make('dl', { class: 'sheet-facts' });
    this.bars = make('ol', { class: 'bars' });
    this.barsTitle = make('h4', {}, 'Response times');
    this.cell = make('td', { role: 'cell' },
      make('div', { class: 'sheet' }, this.facts, make('div', {}, this.barsTitle, this.bars)));
    this.row = make('tr', { role: 'row', class: 'sheet-row' }, this.cell);
  }

  update(peer, track) {
    const codes = Object.entries(peer.responses?.codes ?? {}).map(([code, number]) => `${code}: ${count(number)}`).join('   ');
    const checks = peer.health_checks ?? {};
    const facts = [
      ['Id', peer.id],
      ['Named', peer.name],
      ['Service', peer.service],
      ['Answers', codes || NONE],
      ['Time to head', Number.isFinite(peer.header_time) && milliseconds(peer.header_time)],
      ['Received', `${bytes(peer.received)} (${bytes(track?.rate('received'))}/s)`],
      ['Sent', `${bytes(peer.sent)} (${bytes(track?.rate('sent'))}/s)`],
      ['Last picked', moment(peer.selected) && `${span(age(peer.selected))} ago`],
      ['Out of service', peer.downtime ? `${span(peer.downtime)} in all` : undefined],
      ['Became unhealthy', checks.unhealthy ? `${count(checks.unhealthy)}×` : undefined],
      ['Failed last by', peer.reason && (reasonInWords(peer.reason) ?? peer.reason)],
      ['Check said', checks.last_error !== peer.reason && checks.last_error],
    ].filter(([, value]) => value !== undefined && value !== false && value !== '');
    follow(this.facts, facts, ([name]) => name, ([name]) => make('div', {}, make('dt', {}, name), make('dd')),
      (element, [, value]) => say(element.lastChild, value));
    const spreadNow = peer.response_time_hist?.buckets ? spread(peer.response_time_hist) : undefined;
    this.barsTitle.hidden = !spreadNow?.count;
    const buckets = spreadNow?.count ? spreadNow.buckets.filter((bucket) => bucket.number > 0) : [];
    const top = Math.max(1, ...buckets.map((bucket) => bucket.number));
    follow(this.bars, buckets, (bucket) => bucket.below ?? 'more',
      (bucket) => make('li', {}, make('span', {}, bucket.below ? `up to ${milliseconds(bucket.below)}` : 'longer'),
        draw('svg', { viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, draw('rect', { height: 8 })), make('span')),
      (element, bucket) => {
        mark(element.querySelector('rect'), 'width', Math.max(0.5, 100 * bucket.number / top).toFixed(1));
        say(element.lastChild, count(bucket.number));
      });
  }
}
