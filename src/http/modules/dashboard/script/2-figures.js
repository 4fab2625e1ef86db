// Figures: how numbers are written, and what counters say when they are read again and again.

const NONE = '–';
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const hundredth = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const short = new Intl.NumberFormat('en', { notation: 'compact', minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** A count: exact while that is short, rounded then. */
function count(value) {
  if (!Number.isFinite(value)) {
    return NONE;
  }
  return value < 1e6 ? whole.format(value) : short.format(value).replace(/([A-Z])$/, ' $1');
}

/** So many a second. */
function perSecond(value) {
  if (!Number.isFinite(value)) {
    return NONE;
  }
  return `${value > 0 && value < 9.95 ? tenth.format(value) : whole.format(value)}/s`;
}

/** Milliseconds, in the unit that suits them. */
function milliseconds(value) {
  if (!Number.isFinite(value)) {
    return NONE;
  }
  if (value >= 9950) {
    return `${whole.format(value / 1000)} s`;
  }
  if (value >= 995) {
    return `${tenth.format(value / 1000)} s`;
  }
  return value > 0 && value < 9.95 ? `${tenth.format(value)} ms` : `${whole.format(value)} ms`;
}

/** Bytes, in powers of ten. */
function bytes(value) {
  if (!Number.isFinite(value)) {
    return NONE;
  }
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let [size, unit] = [value, 0];
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit > 0 && size < 9.95 ? tenth.format(size) : whole.format(size)} ${units[unit]}`;
}

/** A span of time in its largest two units: `3 min 12 s`. */
function span(value) {
  if (!Number.isFinite(value)) {
    return NONE;
  }
  let rest = Math.max(0, Math.floor(value / 1000));
  const parts = [];
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]]) {
    const number = Math.floor(rest / length);
    rest -= number * length;
    if (number > 0 || (unit === 's' && parts.length === 0)) {
      parts.push(`${number} ${unit}`);
    }
  }
  return parts.slice(0, 2).join(' ');
}

/** Remarks in a row; a line ends between two of them, not within. Those that are not there are left out. */
function remarks(...parts) {
  return parts.filter(Boolean).map((part) => String(part).replaceAll(' ', '\u00a0')).join(' \u00a0·\u00a0 ');
}

/** A part of a whole, in percent. */
function percent(part, of) {
  if (!(of > 0)) {
    return NONE;
  }
  const value = 100 * part / of;
  return `${value > 0 && value < 9.95 ? tenth.format(value) : whole.format(value)} %`;
}

/** The time of an ISO date; `undefined` where there is none. */
function moment(text) {
  const time = Date.parse(text ?? '');
  return Number.isNaN(time) ? undefined : time;
}

/** How far the server's clock is ahead of this machine's, so that ages are right whatever this one says. */
let clockAhead = 0;
const serverNow = () => Date.now() + clockAhead;

/** How long ago, by the server's clock. */
function age(text) {
  const time = moment(text);
  return time === undefined ? undefined : serverNow() - time;
}

/** What some counters said in the last seconds. */
class Track {
  constructor(keep = 62) {
    this.keep = keep;
    this.samples = [];
  }

  /** A reading at a time of `performance.now()`. A counter that goes back was set to zero: what was before means nothing. */
  push(at, values) {
    const last = this.samples.at(-1);
    if (last && Object.keys(values).some((name) => typeof values[name] === 'number' && values[name] < last.values[name])) {
      this.samples = [];
    } else if (last && at - last.at < 400 && this.samples.length > 1) {
      // A rate over so short a time would say little.
      this.samples.pop();
    }
    this.samples.push({ at, values });
    if (this.samples.length > this.keep) {
      this.samples.shift();
    }
  }

  /** The latest reading, and the one before that is at least so many seconds older, or the oldest. */
  window(seconds) {
    const last = this.samples.at(-1);
    const old = this.samples.findLast((sample) => last.at - sample.at >= seconds * 1000 - 300) ?? this.samples[0];
    return old && old !== last ? { old, last, seconds: (last.at - old.at) / 1000 } : undefined;
  }

  /** So many a second, over the last three unless told otherwise; `NaN` while nothing can be said. */
  rate(name, seconds = 3) {
    const window = this.window(seconds);
    return window ? (window.last.values[name] - window.old.values[name]) / window.seconds : NaN;
  }

  /** The rate from reading to reading. */
  course(name) {
    const rates = [];
    for (let at = 1; at < this.samples.length; at += 1) {
      const [old, last] = [this.samples[at - 1], this.samples[at]];
      const seconds = Math.max(0.2, (last.at - old.at) / 1000);
      rates.push(Math.max(0, last.values[name] - old.values[name]) / seconds);
    }
    return rates;
  }

  /** Quantiles and mean of what a histogram has gathered in the last ten seconds, and how many that were. */
  times(name, seconds = 10) {
    const window = this.window(seconds);
    const [now, then] = [window?.last.values[name], window?.old.values[name]];
    return now?.buckets && then?.buckets ? spread(now, then) : undefined;
  }
}

const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx'];

/** Pushes what is read of each item, and its answers by class, onto the track of its key; forgets items that have gone. */
function remember(tracks, at, items, read, keep) {
  for (const [key, item] of items) {
    if (!tracks.has(key)) {
      tracks.set(key, new Track(keep));
    }
    const classes = Object.fromEntries(CLASSES.map((name) => [name, item.responses?.[name] ?? 0]));
    tracks.get(key).push(at, { ...read(item), ...classes });
  }
  for (const key of tracks.keys()) {
    if (!items.has(key)) {
      tracks.delete(key);
    }
  }
}

/** What came into a histogram between two readings. Its buckets are bounded by milliseconds and hold what is theirs alone. */
function spread(now, then = { count: 0, sum: 0, buckets: {} }) {
  const bounds = Object.keys(now.buckets).filter((bound) => bound !== 'inf').map(Number).sort((a, b) => a - b);
  const fresh = [...bounds, 'inf'].map((bound) => (now.buckets[bound] ?? 0) - (then.buckets[bound] ?? 0));
  const total = fresh.reduce((sum, number) => sum + number, 0);
  const quantile = (part) => {
    let left = part * total;
    for (let at = 0; at < bounds.length; at += 1) {
      if (left <= fresh[at]) {
        const below = bounds[at - 1] ?? 0;
        return below + (bounds[at] - below) * (fresh[at] ? left / fresh[at] : 1);
      }
      left -= fresh[at];
    }
    return bounds.at(-1);
  };
  return {
    count: total,
    mean: total > 0 ? (now.sum - then.sum) / total : NaN,
    half: total > 0 ? quantile(0.5) : NaN,
    most: total > 0 ? quantile(0.95) : NaN,
    buckets: fresh.map((number, at) => ({ below: bounds[at], number })),
  };
}
