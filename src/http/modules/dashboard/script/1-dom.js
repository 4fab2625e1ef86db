'use strict';

// Elements. Whatever comes from the API goes in as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** The element of the page with this id. */
const byId = (id) => document.getElementById(id);

/** A new element; `false` and `undefined` leave an attribute out. */
function make(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for pictures. */
function draw(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Changes a text only where it differs: what is selected or being read aloud stays. */
function say(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) {
    node.textContent = wanted;
  }
}

/** Changes an attribute only where it differs; `undefined` and `false` take it away. */
function mark(node, name, value) {
  if (value === undefined || value === false) {
    if (node.hasAttribute(name)) {
      node.removeAttribute(name);
    }
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/** Two lines in a cell: the figure, and below it what explains it. */
function lines(cell, main, below = '', tone = undefined) {
  if (!cell.figure) {
    cell.figure = make('span', { class: 'figure' });
    cell.below = make('span', { class: 'below' });
    cell.append(cell.figure, cell.below);
  }
  say(cell.figure, main);
  say(cell.below, below);
  mark(cell, 'data-tone', tone);
}

/** The element itself or the next behind it that stands for an item of a list. */
function keyed(element) {
  let place = element;
  while (place && !place.keyed) {
    place = place.nextElementSibling;
  }
  return place;
}

/**
 * Lets the children of a parent follow a list, in its order. `born` makes the element of a new item, `live` brings it up to
 * date; elements of items that are gone go. Other children stay where they are.
 */
function follow(parent, items, keyOf, born, live) {
  const known = (parent.known ??= new Map());
  const seen = new Set();
  let place = keyed(parent.firstElementChild);
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let element = known.get(key);
    if (!element) {
      element = born(item);
      element.keyed = true;
      known.set(key, element);
    }
    if (element === place) {
      place = keyed(place.nextElementSibling);
    } else {
      parent.insertBefore(element, place);
    }
    live(element, item);
  }
  for (const [key, element] of known) {
    if (!seen.has(key)) {
      element.remove();
      known.delete(key);
    }
  }
}

/**
 * A table that follows a list. A column is `{ head, title, number, kind, row, wanted(items), show(cell, item) }`: `row` marks
 * the one that names the row, `kind` is its class, `wanted` says whether it is there at all. Where the
 * page is narrower than `least` pixels rows become cards, so that the roles of a table are said expressly.
 */
class Table {
  constructor(caption, columns, keyOf, least) {
    this.columns = columns;
    this.keyOf = keyOf;
    const heads = columns.map((column) =>
      make('th', { scope: 'col', role: 'columnheader', class: classes(column), title: column.title }, column.head));
    this.body = make('tbody', { role: 'rowgroup' });
    this.element = make('table', { role: 'table' },
      make('caption', {}, caption),
      make('thead', { role: 'rowgroup' }, make('tr', { role: 'row' }, ...heads)),
      this.body);
    this.heads = heads;
    const fit = () => this.element.classList.toggle('cards', document.body.clientWidth < least);
    new ResizeObserver(fit).observe(document.body);
    fit();
  }

  update(items) {
    follow(this.body, items, this.keyOf, () => this.row(), (row, item) => {
      this.columns.forEach((column, at) => column.show(row.cells[at], item));
    });
    this.columns.forEach((column, at) => {
      if (column.wanted) {
        this.reveal(at, column.wanted(items));
      }
    });
  }

  /** Shows or hides a whole column. */
  reveal(at, shown) {
    mark(this.heads[at], 'hidden', !shown && '');
    for (const row of this.body.rows) {
      if (row.cells[at] && row.cells.length === this.columns.length) {
        mark(row.cells[at], 'hidden', !shown && '');
      }
    }
  }

  row() {
    const cells = this.columns.map((column) => column.row
      ? make('th', { scope: 'row', role: 'rowheader', class: column.kind })
      : make('td', { role: 'cell', class: classes(column), 'data-head': column.head }));
    return make('tr', { role: 'row' }, ...cells);
  }
}

const classes = ({ number, kind }) => [number && 'number', kind].filter(Boolean).join(' ') || false;

/** A frame around a table that may be wider than its page; while it is, keys can reach and scroll it. */
function framed(table, label) {
  const frame = make('div', { class: 'frame', role: 'region', 'aria-label': label }, table.element);
  new ResizeObserver(() => mark(frame, 'tabindex', frame.scrollWidth > frame.clientWidth && '0')).observe(frame);
  return frame;
}

/** The course of a rate over the last minute, as a small picture. What it shows stands beside it as a figure. */
class Spark {
  constructor(points = 60) {
    this.points = points;
    this.area = draw('path', { class: 'area' });
    this.line = draw('path', { class: 'line' });
    this.element = draw('svg', { class: 'spark', viewBox: '0 0 100 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      this.area, this.line);
  }

  update(values) {
    const recent = values.slice(-this.points);
    const top = Math.max(1, ...recent);
    const step = 100 / (this.points - 1);
    const from = 100 - (recent.length - 1) * step;
    const spots = recent.map((value, at) => `${(from + at * step).toFixed(2)},${(22.5 - 21 * value / top).toFixed(2)}`);
    if (spots.length > 1) {
      const course = `M${spots.join('L')}`;
      this.line.setAttribute('d', course);
      this.area.setAttribute('d', `${course}L100,24L${from.toFixed(2)},24Z`);
    }
  }
}
