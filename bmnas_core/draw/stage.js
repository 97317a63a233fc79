// Shows a search: its pictures, what changed in them, and its numbers over time.
// SearchStepper shows it through anywidget, a replay without a kernel. Its data are draw/scene.py's.

const INK = "#1F2328", BLUE = "#0072B2", GREY = "#7D848C", LINE = "#C2C9D1", MUTED = "#5B6470";
const GHOST = "#8A929B"; // of the previous search
const POINTS = 300; // of a line in a chart, at most
const LEAST = 0.55; // of a picture's own size; where there is less room, it scrolls
const PHONE = 620; // pixels that a picture is wide on a narrow screen
const MOST_KEPT = 20000; // frames; beyond, every second is dropped
const SMOOTH = 15; // steps that the mean of a loss is over

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    name in element ? element[name] = value : element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
const escape = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const digits = value => value.toFixed(value && Math.abs(value) < 0.0005 ? 4 : 3);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// --- a search's numbers

class Run {
  constructor({ scene, frames, genotypes }) {
    Object.assign(this, { scene, frames, genotypes });
    const sizes = [];
    for (const field of scene.fields) sizes[field.decision] = (sizes[field.decision] ?? 0) + 1;
    this.sizes = sizes;
  }
  get last() { return this.frames.length - 1; }
  index(step) { // of the last frame at or before a step
    const after = this.frames.findIndex(frame => frame.step > step);
    return after < 0 ? this.last : Math.max(0, after - 1);
  }
  weight(i, field) { return this.frames[i].weights[field] / this.scene.resolution; }
  genotype(i) { return this.genotypes[this.frames[i].genotype]; }
  changed(i) { return i > 0 && this.frames[i].genotype !== this.frames[i - 1].genotype; }

  // How far weights are from the mean of their decision, as a share of the farthest: 0.5 is the mean.
  magnified(i) {
    const { fields } = this.scene, sums = this.sizes.map(() => 0);
    fields.forEach((field, k) => { sums[field.decision] += this.weight(i, k); });
    const off = fields.map((field, k) =>
      this.weight(i, k) - sums[field.decision] / this.sizes[field.decision]);
    const most = Math.max(...off.map(Math.abs), 1e-9);
    return { values: off.map(d => 0.5 + d / most / 2), factor: 0.5 / most };
  }

  // What genotype `after` has that `before` has not, as Genotype.changes_from says it: the numbers
  // of the fields that were and are picked. Inputs of a symmetric operation have no order.
  changes(before, after) {
    const { fields, operations } = this.scene, found = [];
    const steps = new Map();
    fields.forEach(({ cell, step, decision }) => {
      const key = `${cell} ${step}`;
      if (!steps.has(key)) steps.set(key, new Set());
      steps.get(key).add(decision);
    });
    for (const decisions of steps.values()) {
      const pairs = [...decisions].map(d => [before.picks[d], after.picks[d]]);
      const inputs = pairs.filter(([k]) => fields[k]?.what !== "operation");
      const [operation] = pairs.filter(([k]) => fields[k]?.what === "operation");
      const name = k => fields[k]?.name;
      if (operation) {
        const crossed = inputs.length === 2 && (
          name(inputs[0][0]) === name(inputs[1][1]) || name(inputs[1][0]) === name(inputs[0][1]));
        if (operation[0] !== operation[1]) found.push(operation);
        if (crossed && operation.some(k => operations[name(k)]?.symmetric)) {
          [inputs[0][0], inputs[1][0]] = [inputs[1][0], inputs[0][0]];
        }
      }
      found.push(...inputs.filter(([old, now]) => name(old) !== name(now)));
    }
    return found;
  }
}

// --- a picture whose parts show weights

const blend = p => {
  const part = (from, to) => Math.round(from + (to - from) * p);
  return `rgb(${part(255, 0)}, ${part(255, 114)}, ${part(255, 178)})`;
};

class Picture {
  // `key` says which of a field's ids are this picture's.
  constructor(box, svg, fields, key, label) {
    box.innerHTML = svg;
    this.svg = box.querySelector("svg");
    this.key = key;
    for (const name of ["width", "height", "style"]) this.svg.removeAttribute(name);
    const prefix = this.svg.querySelector("g.graph").id;
    this.parts = [];
    const byId = new Map();
    for (const group of this.svg.querySelectorAll("g.node, g.edge")) {
      byId.set(group.id.slice(prefix.length + 1), group);
    }
    const known = new Map();
    fields.forEach((field, k) => {
      const id = field?.[key];
      if (!byId.has(id)) return;
      if (!known.has(id)) {
        known.set(id, this.#part(byId.get(id), field));
        this.parts.push(known.get(id));
      }
      known.get(id).fields.push(k);
    });
    this.parts.sort((a, b) =>
      a.group.compareDocumentPosition(b.group) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1);
    const { width, height } = this.svg.viewBox.baseVal;
    this.svg.style.minWidth = `${LEAST * width}px`;
    this.svg.style.minHeight = `${LEAST * height}px`;
    this.svg.setAttribute("role", "group");
    this.svg.setAttribute("aria-label", label);
    this.parts[0]?.group.setAttribute("tabindex", "0");
  }
  get aspect() {
    const { width, height } = this.svg.viewBox.baseVal;
    return height / width;
  }
  #part(group, field) {
    group.querySelector("title")?.remove(); // an old weight
    group.setAttribute("tabindex", "-1");
    group.setAttribute("role", "button");
    group.setAttribute("aria-label", field.tip);
    group.classList.add("bmnas-part");
    const [path, polygon, text] = ["path", "polygon", "text"].map(n => group.querySelector(n));
    const part = { group, path, polygon, text, fields: [], rise: null, tip: field.tip };
    if (path && group.classList.contains("edge")) { // ten pixels to aim at
      const wide = path.cloneNode();
      wide.setAttribute("class", "bmnas-aim");
      group.append(wide);
    } else if (this.key !== "net" && text) {
      part.rise = text.cloneNode();
      const points = polygon.getAttribute("points").split(" ").map(p => Number(p.split(",")[0]));
      const place = this.key === "heat" ? [Math.max(...points) - 2, "end", 9]
        : [Math.min(...points) + 1, "start", 8];
      ["x", "text-anchor", "font-size"].forEach((n, k) => part.rise.setAttribute(n, place[k]));
      part.rise.setAttribute("aria-hidden", "true");
      group.append(part.rise);
    }
    return part;
  }
  paint(weights, shown, picked, rises) {
    for (const { group, path, polygon, text, fields, rise } of this.parts) {
      const k = fields[0], p = clamp(shown[k], 0, 1), own = fields.some(f => picked.has(f));
      if (rise) {
        polygon.style.fill = blend(p);
        polygon.style.stroke = own ? INK : this.key === "heat" ? "#fff" : LINE;
        polygon.style.strokeWidth = own ? 2 : this.key === "heat" ? 1 : 0.6;
        const two = weights[k].toFixed(2).replace(/^0/, "");
        text.textContent = this.key === "heat" ? two : text.textContent.replace(/\S+$/, two);
        text.style.fill = rise.style.fill = p > 0.7 ? "#fff" : INK;
        rise.textContent = rises[k] > 0 ? "▲" : rises[k] < 0 ? "▼" : "";
      } else if (path) {
        const colour = own ? BLUE : GREY, opacity = 0.16 + 0.84 * p ** 0.7;
        Object.assign(path.style, {
          stroke: colour, strokeWidth: 0.5 + 5.5 * p, strokeOpacity: opacity });
        Object.assign(polygon.style, {
          stroke: colour, fill: colour, strokeWidth: 0.5 + 5.5 * p, strokeOpacity: opacity,
          fillOpacity: opacity });
      }
    }
  }
  light(fields) {
    for (const part of this.parts) {
      part.group.classList.toggle("bmnas-lit", part.fields.some(k => fields.includes(k)));
    }
  }
}

// --- charts

const ticks = (low, high) => {
  const rough = (high - low) / 3 || 1, scale = 10 ** Math.floor(Math.log10(rough));
  const step = scale * [1, 2, 5, 10].find(m => m * scale >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) found.push(k * step);
  return found;
};
const plain = value => String(Number(value.toPrecision(6)));

// Lines over steps, as an SVG. A line is {points: [[x, y], …], colour, width, dash, name, dots}.
const chart = (box, { lines, end, at, limits, name, log = false, height = 130 }) => {
  const width = Math.max(180, box.clientWidth || 300), left = 38, right = width - 8;
  const top = 8, bottom = height - 18;
  const ys = lines.flatMap(line => line.points.map(point => point[1]));
  let [low, high] = limits ?? [Math.min(...ys), Math.max(...ys)];
  if (!(high > low)) [low, high] = Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
  const scale = log ? Math.log10 : y => y;
  const [from, to] = log ? [to10(low), to10(high)] : [low, high];
  const px = x => left + (right - left) * x / Math.max(1, end);
  const py = y => {
    const share = (scale(y) - scale(from)) / (scale(to) - scale(from));
    return log ? top + (bottom - top) * share : bottom - (bottom - top) * share; // rank 1 on top
  };
  const parts = [];
  const marks = log ? [1, 10, 100, 1000].filter(m => m >= from && m <= to) : ticks(low, high);
  for (const y of marks) {
    parts.push(`<path d="M${left} ${py(y)}H${right}" stroke="#E4E8EC"/>`,
      `<text x="${left - 5}" y="${py(y) + 4}" text-anchor="end">${plain(y)}</text>`);
  }
  for (const x of ticks(0, end).filter(Number.isInteger)) {
    parts.push(`<text x="${px(x)}" y="${height - 4}" text-anchor="middle">${plain(x)}</text>`);
  }
  for (const { points, colour, width: w = 2, dash = "", dots = false } of lines) {
    const every = Math.max(1, Math.ceil(points.length / POINTS));
    const kept = points.filter((_, k) => k % every === 0 || k === points.length - 1);
    const places = kept.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`);
    if (places.length > 1) {
      parts.push(`<polyline points="${places.join(" ")}" fill="none" stroke="${colour}"
        stroke-width="${w}" stroke-dasharray="${dash}" stroke-linejoin="round"/>`);
    }
    for (const place of dots || places.length === 1 ? places : []) {
      const [x, y] = place.split(" ");
      parts.push(`<circle cx="${x}" cy="${y}" r="3" fill="${colour}"/>`);
    }
  }
  if (at !== undefined) {
    parts.push(`<path class="bmnas-now" d="M0 ${top - 4}V${bottom}" stroke="${INK}"
      stroke-dasharray="4 3" transform="translate(${px(at)} 0)"/>`);
  }
  const named = lines.filter(line => line.name).map(line =>
    `<span><svg width="20" height="8" aria-hidden="true"><path d="M0 4H20" stroke-width="3"
      stroke="${line.colour}" stroke-dasharray="${line.dash ?? ""}"/></svg> ${escape(line.name)}</span>`);
  box.innerHTML = `<svg width="${width}" height="${height}" role="img" aria-label="${escape(name)}"
    class="bmnas-chart">${parts.join("")}</svg><div class="bmnas-key">${named.join("")}</div>`;
  const svg = box.firstChild;
  svg.dataset.scale = JSON.stringify([left, right, Math.max(1, end)]);
};
const to10 = rank => Math.max(1, rank);

const smoothed = points => {
  let sum = 0;
  return points.map(([x, y], k) => {
    sum += y - (k >= SMOOTH ? points[k - SMOOTH][1] : 0);
    return [x, sum / Math.min(k + 1, SMOOTH)];
  });
};
const column = (run, name) => run.frames
  .filter(frame => frame[name] !== null && frame[name] !== undefined)
  .map(frame => [frame.step, frame[name]]);

// Values (rows, columns) as a strip: positive ones orange, negative ones blue.
const strip = (name, { rows, columns, most, data }) => {
  const canvas = make("canvas", { width: columns, height: rows, role: "img",
    ariaLabel: `values of ${name}, up to ${most}` });
  const image = new ImageData(columns, rows), ends = { true: [196, 68, 0], false: [0, 114, 178] };
  Uint8Array.from(atob(data), c => c.charCodeAt(0)).forEach((byte, k) => {
    const value = (byte > 127 ? byte - 256 : byte) / 127, size = Math.abs(value);
    const colour = ends[value > 0].map(end => Math.round(255 + (end - 255) * size));
    image.data.set([...colour, 255], 4 * k);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return make("div", { className: "bmnas-node" }, make("span", {}, name), canvas);
};

// --- the stage

const PANELS = {
  hypernet: "Hypernet",
  network: "Derived network",
  weights: "α, β, γ",
  curves: "Curves",
  rank: "Rank",
  sample: "Sample",
};
const MODES = { // panels that have a place of their own; the others are tabs
  wide: ["hypernet", "weights", "network"],
  middle: ["hypernet"],
  narrow: [],
};

export class Stage {
  // `tell` takes messages to the kernel; null without one.
  constructor(el, { tell = null, lead = true, group = null } = {}) {
    Object.assign(this, { el, tell, group, run: null, ghost: null, at: 0, since: null });
    Object.assign(this, { follow: true, magnify: false, pinned: null, pointed: null, said: {} });
    this.tab = "network";
    el.classList.add("bmnas-stage");
    el.innerHTML = "";
    this.#head(lead, tell);
    this.body = make("div", { className: "bmnas-body" });
    this.tabs = make("div", { className: "bmnas-tabs", role: "tablist", ariaLabel: "Pictures" });
    this.panels = {};
    for (const [name, title] of Object.entries(PANELS)) {
      const note = make("span", { className: "bmnas-note" }), box = make("div", {
        className: "bmnas-box" });
      const head = make("div", { className: "bmnas-title" }, make("b", {}, title), note);
      const panel = make("section", { className: `bmnas-panel bmnas-${name}`,
        id: `bmnas-${Math.random().toString(36).slice(2)}` }, head, box);
      this.panels[name] = { panel, head, box, note };
    }
    this.detail = make("section", { className: "bmnas-panel bmnas-detail", ariaLabel: "Details",
      tabIndex: 0 }); // as all that scrolls and has nothing else to focus
    for (const name of ["curves", "rank", "sample"]) this.panels[name].box.tabIndex = 0;
    this.body.append(this.tabs, ...Object.values(this.panels).map(p => p.panel), this.detail);
    this.panels.curves.box.append(make("div"), make("div"));
    this.panels.rank.box.append(make("div"));
    this.#sampler();
    this.point = make("div", { className: "bmnas-point" });
    this.changed = make("div", { className: "bmnas-changes" });
    this.detail.append(this.changed, this.point);
    el.append(this.body);
    this.#listen();
  }

  // A search, and the one before it as a ghost; at a step, or at the last one.
  load(data, { ghost = null, step = null } = {}) {
    this.run = new Run(data);
    this.ghost = ghost;
    this.alike = ghost && JSON.stringify(ghost.scene.fields) === JSON.stringify(data.scene.fields);
    this.pinned = this.pointed = this.other = this.ticked = this.listed = null;
    const { scene } = this.run, { hypernet, weights } = this.panels;
    this.graph = new Picture(hypernet.box, scene.graph, scene.fields, "graph",
      "Hypernet: arrow keys go from weight to weight");
    this.heat = new Picture(weights.box, scene.heat, scene.fields, "heat",
      "α, β, γ as weights: arrow keys go from weight to weight");
    this.net = null;
    this.shownNet = null;
    this.follow = step === null;
    this.show(step === null ? this.run.last : this.run.index(step), { quiet: true });
    this.flowed = this.guessed = null;
    this.fit();
    if (this.mode && this.tab === "sample" && this.tell) this.#sampling();
  }

  // More of the search that is shown; `since` is the step that changes are marked from.
  add({ frames, genotypes, start, since = null, show = false }) {
    if (start > this.run.genotypes.length) return; // what is between is on its way
    genotypes.forEach((one, k) => { this.run.genotypes[start + k] = one; });
    const end = this.run.frames.at(-1)?.step ?? -1;
    this.run.frames.push(...frames.filter(frame => frame.step > end));
    if (this.run.last > MOST_KEPT) {
      this.run.frames = this.run.frames.filter((frame, k, { length }) =>
        k % 2 === 0 || k === length - 1 || frame.score !== null);
      this.at = Math.min(this.run.last, this.at >> 1);
    }
    if (show) this.follow = true;
    if (this.follow) this.show(this.run.last, { since, quiet: true });
    else this.#refresh();
    for (const peer of this.#peers) peer.#time(); // whose slider leads
  }

  show(i, { since = null, quiet = false } = {}) {
    const { run } = this;
    this.at = clamp(i, 0, run.last);
    this.since = since === null ? Math.max(0, this.at - 1) : run.index(since);
    this.asked = null; // a step that another stage may have
    if (!quiet) {
      const { run: longest } = this.#longest;
      this.follow = i >= longest.last;
      this.asked = longest.frames[clamp(i, 0, longest.last)].step;
      this.#share({ step: this.asked, now: this.follow });
    }
    this.#refresh();
    if (!quiet) this.tell?.({ do: "show", step: run.frames[this.at].step, follow: this.follow });
    this.el.dispatchEvent(new CustomEvent("bmnas-shown", { detail: this.at }));
  }

  // Mark what differs from a genotype, whatever frame is shown; null ends that.
  compare(genotype) {
    this.other = genotype;
    this.#refresh();
  }

  say(said) { this.said = said; this.run && this.#status(); }

  // Sizes for the room there is.
  fit() {
    if (!this.run || !this.el.clientWidth) return;
    const width = this.el.clientWidth, { hypernet, weights, network } = this.panels;
    const mode = width >= 1180 ? "wide" : width >= 620 ? "middle" : "narrow";
    if (mode === "narrow" && !this.mode) this.tab = "hypernet";
    if (mode !== this.mode || this.tabbed !== this.run) this.#arrange(mode);
    const aspects = { hypernet: this.graph.aspect, weights: this.heat.aspect,
      network: this.net?.aspect ?? 0.4 };
    const room = Math.max(440, this.#room()), gap = 8, title = 26;
    let rows;
    if (mode === "wide") {
      const left = (width - gap) * 0.56, first = Math.max(left * aspects.hypernet,
        (width - gap - left) * aspects.weights) + title;
      const second = Math.max(240, (width * 0.56) * aspects.network + title);
      const top = Math.min(first, Math.max(room * 0.4, room - second - gap));
      rows = `${top}px ${Math.min(room - top - gap, Math.max(260, second))}px`;
      this.body.style.gridTemplateColumns = "56% minmax(0, 1fr) 260px";
    } else if (mode === "middle") {
      const first = width * aspects.hypernet + title;
      const second = Math.max(this.tab === "sample" ? 360 : 200,
        (width - 250) * aspects.network + title);
      const share = Math.min(1, (room - gap) / (first + second));
      rows = `${first * share}px ${Math.max(200, second * share)}px`;
      this.body.style.gridTemplateColumns = "minmax(0, 1fr) 236px";
    } else {
      const tallest = Math.max(...Object.values(aspects)) * Math.max(width, PHONE) + 44;
      rows = `${clamp(tallest, 220, room * 0.8)}px auto`;
      this.body.style.gridTemplateColumns = "minmax(0, 1fr)";
    }
    this.body.style.gridTemplateRows = rows;
    this.#charts();
  }

  #resize() { requestAnimationFrame(() => this.fit()); }

  // --- inside

  #head(lead, tell) {
    this.slider = make("input", { type: "range", min: 0, ariaLabel: "time" });
    this.ticks = make("div", { className: "bmnas-ticks", ariaHidden: "true" });
    this.step = make("span", { className: "bmnas-step" });
    this.now = make("button", { className: "bmnas-button", title: "Show the latest step" },
      tell ? "Back to now" : "Last step");
    this.magnifier = make("button", { className: "bmnas-button", ariaPressed: "false",
      title: "Exaggerate differences: how far each weight is from the mean of its candidates" }, "Magnify");
    this.full = make("button", { className: "bmnas-button", ariaLabel: "full screen",
      title: "Full screen" });
    this.full.innerHTML = `<svg width="14" height="12" fill="none" stroke="currentColor"
      stroke-width="2" aria-hidden="true"><path d="M1 4V1H5M9 1H13V4M13 8V11H9M5 11H1V8"/></svg>`;
    const time = make("div", { className: "bmnas-slider" }, this.ticks, this.slider);
    this.line = make("div", { className: "bmnas-time" },
      this.step, time, this.now, this.magnifier, this.full);
    if (!lead) this.line.classList.add("bmnas-follows");
    this.status = make("div", { className: "bmnas-status", role: "status" });
    this.head = make("div", { className: "bmnas-head" }, this.line, this.status);
    this.el.append(this.head);
  }

  #listen() {
    this.slider.oninput = () => this.show(Number(this.slider.value));
    this.slider.onpointerdown = () => this.el.classList.add("bmnas-dragged");
    this.slider.onpointerup = () => this.el.classList.remove("bmnas-dragged");
    this.now.onclick = () => { if (!this.now.classList.contains("bmnas-off")) this.show(Infinity); };
    this.magnifier.onclick = () => {
      this.magnify = !this.magnify;
      this.magnifier.ariaPressed = String(this.magnify);
      this.#refresh();
      this.#share({ magnify: this.magnify });
    };
    this.full.onclick = () => {
      const root = this.el.closest(".bmnas-root") ?? document.documentElement;
      document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen();
    };
    const partOf = target => {
      const group = target.closest?.(".bmnas-part");
      if (!group || !this.run) return null;
      for (const picture of [this.graph, this.heat, this.net]) {
        const part = picture?.parts.find(part => part.group === group);
        if (part) return { part, picture };
      }
      return null;
    };
    this.body.addEventListener("pointerover", event => {
      const found = partOf(event.target);
      this.#pointAt(found ? found.part.fields : null);
    });
    this.body.addEventListener("pointerleave", () => this.#pointAt(null));
    this.body.addEventListener("focusin", event => {
      const found = partOf(event.target);
      if (found) this.#pointAt(found.part.fields);
    });
    this.body.addEventListener("focusout", () => this.#pointAt(null));
    this.body.addEventListener("click", event => {
      const found = partOf(event.target), chart = event.target.closest?.(".bmnas-chart");
      if (found) this.#pin(found.part.fields);
      else if (chart && this.run) {
        const [left, right, end] = JSON.parse(chart.dataset.scale);
        const x = event.clientX - chart.getBoundingClientRect().left;
        this.show(this.run.index(Math.round(end * clamp((x - left) / (right - left), 0, 1))));
      }
    });
    this.body.addEventListener("keydown", event => {
      const found = partOf(event.target);
      if (!found) return;
      const { part, picture } = found, { parts } = picture;
      const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key in moves) {
        const next = parts[(parts.indexOf(part) + moves[event.key] + parts.length) % parts.length];
        part.group.setAttribute("tabindex", "-1");
        next.group.setAttribute("tabindex", "0");
        next.group.focus();
      } else if (event.key === "Enter" || event.key === " ") this.#pin(part.fields);
      else if (event.key === "Escape") this.#pin(null);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.tabs.addEventListener("click", event => {
      const tab = event.target.closest("[role=tab]");
      if (tab) this.#open(tab.dataset.panel);
      if (tab) this.#share({ tab: tab.dataset.panel });
    });
    this.tabs.addEventListener("keydown", event => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const all = [...this.tabs.children], k = all.indexOf(event.target);
      const next = all[(k + move + all.length) % all.length];
      this.#open(next.dataset.panel);
      this.#share({ tab: next.dataset.panel });
      this.tabs.querySelector("[aria-selected=true]").focus();
      event.preventDefault();
    });
    (globalThis.bmnasStages ??= new Set()).add(this);
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.el);
    this.onresize = () => this.fit();
    window.addEventListener("resize", this.onresize);
    document.addEventListener("fullscreenchange", this.onresize);
  }

  dispose() {
    this.resized.disconnect();
    window.removeEventListener("resize", this.onresize);
    globalThis.bmnasStages.delete(this);
    document.removeEventListener("fullscreenchange", this.onresize);
  }

  // The other stages of the group, and the one of all that has the most frames.
  get #peers() {
    const all = this.group ? [...globalThis.bmnasStages] : [];
    return all.filter(one => one !== this && one.group === this.group && one.run);
  }
  get #longest() {
    return this.#peers.reduce((a, b) => b.run.last > a.run.last ? b : a, this);
  }

  // Have the other stages of the group do the same.
  #share(what) { for (const peer of this.#peers) peer.share(what); }

  share({ step, now, tab, magnify }) {
    if (tab) this.#open(tab);
    if (magnify !== undefined) this.magnify = magnify;
    if (step !== undefined) {
      this.at = now ? this.run.last : this.run.index(step);
      this.since = Math.max(0, this.at - 1);
      this.follow = now;
    }
    this.#refresh();
    if (step === undefined) return;
    this.tell?.({ do: "show", step: this.run.frames[this.at].step, follow: this.follow });
  }

  // The height that the pictures may have, for everything to be on one screen.
  #room() {
    const root = this.el.closest(".bmnas-root"), bar = root?.querySelector(".bmnas-bar");
    let scroller = this.el.parentElement;
    while (scroller && !scroller.matches(SCROLLERS)) scroller = scroller.parentElement;
    const inside = scroller && scroller !== document.body && !document.fullscreenElement;
    const height = inside ? Math.min(scroller.clientHeight, window.innerHeight) : window.innerHeight;
    return height - (bar?.offsetHeight ?? this.above ?? 0)
      - this.head.offsetHeight - 12;
  }

  #arrange(mode) {
    this.mode = mode;
    this.tabbed = this.run; // whose tabs there are: not all searches have ranks
    this.body.dataset.mode = mode;
    const tabbed = Object.keys(PANELS).filter(name => !MODES[mode].includes(name)
      && (name !== "rank" || this.run.scene.size)
      && (name !== "sample" || (this.tell && this.run.scene.samples)));
    if (!tabbed.includes(this.tab)) this.tab = tabbed[0];
    this.tabs.replaceChildren(...tabbed.map(name => make("button",
      { role: "tab" }, PANELS[name])));
    tabbed.forEach((name, k) => {
      this.tabs.children[k].dataset.panel = name;
      this.tabs.children[k].setAttribute("aria-controls", this.panels[name].panel.id);
    });
    for (const [name, { panel }] of Object.entries(this.panels)) {
      const own = tabbed.includes(name);
      panel.classList.toggle("bmnas-tabbed", own);
      own ? panel.setAttribute("role", "tabpanel") : panel.removeAttribute("role");
      panel.setAttribute("aria-label", PANELS[name]);
      panel.hidden = !own && !MODES[mode].includes(name);
    }
    this.#open(this.tab);
  }

  #open(name) {
    if (![...this.tabs.children].some(tab => tab.dataset.panel === name)) return;
    this.tab = name;
    for (const tab of this.tabs.children) {
      const selected = tab.dataset.panel === name;
      tab.setAttribute("aria-selected", selected);
      tab.tabIndex = selected ? 0 : -1;
      this.panels[tab.dataset.panel].panel.hidden = !selected;
    }
    if (name === "sample" && this.tell && this.menued !== this.run) this.#sampling();
    if (this.mode === this.body.dataset.mode) this.#resize();
    this.#charts();
  }

  // --- a sample on its way through the hypernet

  #sampler() {
    this.inputs = make("div", { className: "bmnas-inputs" });
    this.nodes = make("div", { className: "bmnas-nodes" });
    this.guess = make("div", { className: "bmnas-guess" });
    this.panels.sample.box.append(
      make("div", { className: "bmnas-flow" }, this.inputs, this.nodes, this.guess));
  }

  // Tell the kernel which sample is looked at, from when the tab is first open.
  #sampling() {
    if (this.menued !== this.run) this.#offerSamples();
    const rows = [...this.inputs.querySelectorAll("select")].map(menu => Number(menu.value));
    this.tell({ do: "sample", rows });
  }

  #offerSamples() {
    this.menued = this.run;
    this.guessed = null;
    this.inputs.replaceChildren(...this.run.scene.samples.map(({ name, options, by_class: byClass }, m) => {
      const menu = make("select", { className: "bmnas-menu", ariaLabel: `${name} to look at` });
      menu.append(...options.map(({ row, label }) => make("option", { value: row }, label)));
      menu.selectedIndex = byClass ? Math.min(options.length - 1, m * 7) : 0;
      menu.onchange = () => { this.guessed = null; this.#sampling(); };
      return make("div", { className: "bmnas-input" }, make("b", {}, name), menu,
        make("div", { className: "bmnas-seen" }));
    }));
  }

  sample(flow) {
    const { seen, rows, nodes, kind, names, scores, label, step } = this.flowed = flow;
    if (this.menued !== this.run) this.#offerSamples();
    this.inputs.querySelectorAll("select").forEach((menu, m) => { menu.value = rows[m]; });
    seen?.forEach(({ image, sound }, m) => {
      const place = this.inputs.children[m].lastChild, parts = [];
      const { name } = this.run.scene.samples[m];
      if (image) parts.push(make("img", { src: image, alt: `${name}, as the network sees it` }));
      if (sound) {
        parts.push(make("audio", { src: sound, controls: true, ariaLabel: `${name}, as the network hears it` }));
      }
      place.replaceChildren(...parts);
    });
    const key = "Orange: positive, blue: negative. A row is a position, a column a channel.";
    this.nodes.replaceChildren(...nodes.map(node => strip(node.name, node)),
      make("div", { className: "bmnas-hint" }, key));
    this.#details();
    const before = this.guessed, order = scores.map((_, k) => k).sort((a, b) => scores[b] - scores[a]);
    const shown = [...new Set([...order.slice(0, 5), ...label === null ? [] : [label]])];
    const text = value => kind === "values" ? plain(value) : value.toFixed(2);
    this.guess.replaceChildren(make("b", {}, `Prediction at step ${step}`), ...shown.map(k => {
      const bar = make("div", { className: "bmnas-bar-of", hidden: kind === "values" },
        make("i", { style: `width: ${100 * scores[k]}%` }));
      if (before) bar.append(make("u", { style: `left: ${100 * before[k]}%`, title: "before" }));
      const was = before ? ` (was ${text(before[k])})` : "";
      return make("div", { className: "bmnas-class" },
        make("span", {}, `${names[k]}${k === label ? " ✓ true class" : ""}`), bar,
        make("span", {}, `${text(scores[k])}${was}`));
    }));
    this.guessed = scores;
  }

  #refresh() {
    const { run, at, since } = this, { fields } = run.scene;
    const values = fields.map((_, k) => run.weight(at, k));
    const moved = fields.map((_, k) => values[k] - run.weight(since, k));
    const most = Math.max(...moved.map(Math.abs));
    const rises = moved.map(d => most > 0 && Math.abs(d) >= 0.4 * most ? Math.sign(d) : 0);
    const genotype = run.genotype(at), picked = new Set(genotype.picks);
    const { values: far, factor } = run.magnified(at), shown = this.magnify ? far : values;
    this.graph.paint(values, shown, picked, rises);
    this.heat.paint(values, shown, picked, rises);
    const note = this.magnify ? `differences from the mean, ×${Number(factor.toPrecision(2))}` : "";
    this.panels.hypernet.note.textContent = note;
    const from = run.frames[since].step;
    this.panels.weights.note.textContent = most > 0 ? `▲▼ moved most since step ${from}` : "";
    this.#network(this.#before, genotype);
    this.#status();
    this.#time();
    this.#details();
    this.#charts();
  }

  // The genotype that the one shown is compared with.
  get #before() { return this.other ?? this.run.genotypes[this.run.frames[this.since].genotype]; }

  #network(before, genotype) {
    const { run, panels } = this, changes = run.changes(before, genotype);
    const key = `${run.genotypes.indexOf(genotype)} ${changes.join()}`;
    if (key === this.shownNet) return;
    this.shownNet = key;
    const { fields } = run.scene, taken = new Set(genotype.picks), aspect = this.net?.aspect;
    const shown = fields.map((field, k) => taken.has(k) ? field : null);
    const { activeElement: focused } = document;
    const kept = panels.network.box.contains(focused) ? focused.id.replace(/^[^-]*/, "") : null;
    this.net = new Picture(panels.network.box, genotype.svg, shown, "net",
      "Derived network: arrow keys go from part to part");
    if (kept) this.net.parts.find(({ group }) => group.id.endsWith(kept))?.group.focus();
    for (const part of this.net.parts) {
      const marked = part.fields.some(k => changes.some(([, now]) => now === k));
      part.group.classList.toggle("bmnas-changed", marked);
      part.group.setAttribute("aria-label", part.tip);
    }
    panels.network.note.textContent = changes.length ? "changes dashed" : "";
    if (this.net.aspect !== aspect) requestAnimationFrame(() => this.fit());
  }

  #status() {
    const { run, at, said } = this, frame = run.frames[at];
    const words = [frame.text];
    if (said.left !== undefined) words.push(`${said.left} of ${said.total} steps left`);
    if (at < run.last && this.tell) words.push(`looking back, the search is at step ${run.frames[run.last].step}`);
    const { rank } = run.genotype(at);
    if (rank) words.push(`rank ${rank.toLocaleString("en")} of ${run.scene.size.toLocaleString("en")}`);
    if (said.note) words.push(said.note);
    const text = words.join(" · ");
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.ariaLive = said.running ? "off" : "polite";
    this.now.classList.toggle("bmnas-off", at === run.last);
    this.now.setAttribute("aria-disabled", at === run.last);
  }

  #time() {
    const { run, slider } = this, { run: longest } = this.#longest;
    slider.max = longest.last;
    slider.value = this.follow ? longest.last : longest.index(this.asked ?? run.frames[this.at].step);
    slider.setAttribute("aria-valuetext", `step ${run.frames[this.at].step}`);
    this.step.textContent = `step ${run.frames[this.at].step}`;
    if (this.ticked === run.last + 1) return;
    this.ticked = run.last + 1;
    const marks = [];
    for (let i = 1; i <= run.last; i++) if (run.changed(i)) marks.push(i);
    const every = Math.ceil(marks.length / POINTS);
    const place = i => `calc(8px + ${i / Math.max(1, run.last)} * (100% - 16px))`;
    const first = run.frames[0].step, end = run.frames[run.last].step;
    const steps = ticks(first, end).filter(s => Number.isInteger(s) && s > first && s < end - (end - first) / 12);
    this.ticks.replaceChildren(
      ...marks.filter((_, k) => k % every === 0).map(i => make("i", { style: `left: ${place(i)}` })),
      ...[first, ...steps, end].map(s => make("span", { style: `left: ${place(run.index(s))}` }, String(s))),
    );
  }

  #pointAt(fields) {
    if (fields === this.pointed) return;
    this.pointed = fields;
    this.#details();
  }

  #pin(fields) {
    const same = fields && this.pinned && fields.join() === this.pinned.join();
    this.pinned = same ? null : fields;
    for (const { parts } of [this.graph, this.heat, this.net]) {
      for (const { group, fields: own } of parts) {
        group.setAttribute("aria-pressed", String(own.some(k => this.pinned?.includes(k))));
      }
    }
    this.#details();
  }

  // What is pointed at, or pinned: lit in all pictures, with its history; and what changed.
  #details() {
    const { run, at, since } = this, { fields, operations } = run.scene;
    const lit = this.pointed ?? this.pinned ?? [];
    for (const picture of [this.graph, this.heat, this.net]) picture?.light(lit);
    if (lit.length) {
      const k = lit[0], field = fields[k], p = run.weight(at, k), was = run.weight(since, k);
      const moved = p === was ? "" : ` ${p > was ? "▲" : "▼"} ${digits(Math.abs(p - was))}`;
      const tip = lit.length > 1 // which share a weight
        ? field.tip.replace(/[XY]$/, "X and Y").replace(/(1st|2nd) input$/, "both inputs") : field.tip;
      for (const picture of [this.graph, this.heat]) {
        const part = picture.parts.find(part => part.fields.includes(k));
        part?.group.setAttribute("aria-label", `${tip}: ${digits(p)}`);
      }
      const spark = make("div"), about = operations[field.name];
      const parts = [make("div", { className: "bmnas-tip" }, `${field.letter}  ${tip}`),
        make("div", { className: "bmnas-value" }, make("b", {}, digits(p)), moved), spark];
      if (field.what === "operation" && about) {
        parts.push(make("div", { className: "bmnas-about" }, about.about),
          make("div", { className: "bmnas-about" }, about.shapes));
      }
      const place = `c${field.cell}_s${field.step}`;
      const made = this.flowed?.made[place]?.[field.name];
      if (field.what === "operation" && made) {
        const { x, y } = this.flowed.inputs[place];
        parts.push(make("div", { className: "bmnas-about" }, "This sample, at the search's latest step:"),
          strip("x", x), strip("y", y), strip(field.label, made));
      }
      this.point.replaceChildren(...parts);
      const line = one => one.frames.map(frame => [frame.step, frame.weights[k] / one.scene.resolution]);
      const lines = [{ points: line(run), colour: BLUE, width: 2 }];
      if (this.alike) lines.unshift({ points: line(this.ghost), colour: GHOST, width: 1.5, dash: "3 3" });
      chart(spark, { lines, end: this.#end, at: run.frames[at].step, height: 66,
        name: `${tip} over the steps` });
    } else {
      this.point.replaceChildren(make("div", { className: "bmnas-hint" },
        "Point at an edge, an operation or a square to see its history, and what an operation computes. Click to keep it; press Esc to let it go."));
    }
    const { other } = this, changes = run.changes(this.#before, run.genotype(at));
    const step = run.frames[since].step;
    const key = `${at} ${since} ${other?.name} ${changes.join()}`;
    if (key === this.listed) return;
    this.listed = key;
    const label = k => fields[k]?.label ?? "none";
    const items = changes.map(([old, now]) => {
      const { cell, step, what } = fields[now] ?? fields[old];
      return make("li", {}, `Cell ${cell}${step ? ` S${step}` : ""} ${what}: ${label(old)} → ${label(now)}`);
    });
    const differs = changes.length || !other?.alike;
    const words = other ? `${differs ? "differs from" : "the same as"} ${other.name}${
      other.alike ? "" : ", which has other Cells or steps"}${changes.length ? ":" : ""}`
      : at === 0 && since === 0 ? "the first one"
      : changes.length ? `changed since step ${step}:` : `the same as at step ${step}`;
    this.changed.replaceChildren(make("b", {}, "Derived network: "), words, make("ul", {}, ...items));
  }

  get #end() {
    const ends = [this.run, this.ghost].filter(Boolean).map(one => one.frames.at(-1).step);
    return Math.max(10, ...ends);
  }

  #charts() {
    if (!this.run || !this.mode) return;
    const { run, ghost, at } = this, end = this.#end, now = run.frames[at].step;
    const shows = name => !this.panels[name].panel.hidden;
    if (shows("curves")) {
      const [losses, scores] = this.panels.curves.box.children;
      const room = this.panels.curves.box.clientHeight || 260;
      const height = clamp((room - 110) / 2, 80, 220);
      const loss = [];
      const ghostly = { colour: GHOST, width: 1.5, dash: "3 3" };
      if (ghost) loss.push({ points: smoothed(column(ghost, "loss")), ...ghostly, name: "previous search" });
      loss.push({ points: smoothed(column(run, "train")), colour: MUTED, name: "training loss" },
        { points: smoothed(column(run, "loss")), colour: BLUE, name: `validation loss (means of ${SMOOTH} steps)` });
      chart(losses, { lines: loss.filter(line => line.points.length), end, at: now, height, name: "losses over the steps" });
      const score = [{ points: column(run, "score"), colour: BLUE, dots: true, name: `validation ${run.scene.metric}` }];
      if (ghost) score.unshift({ points: column(ghost, "score"), ...ghostly, dots: true, name: "previous search" });
      const limits = run.scene.limits.includes(null) ? undefined : run.scene.limits;
      chart(scores, { lines: score, end, at: now, height, limits, name: "validation scores over the steps" });
    }
    if (shows("rank") && run.scene.size) {
      const ranks = one => one.frames.map(frame => [frame.step, one.genotypes[frame.genotype].rank]);
      const lines = [{ points: ranks(run), colour: BLUE, name: `rank of the derived network among ${run.scene.size.toLocaleString("en")}, by test score` }];
      if (ghost?.scene.size) lines.unshift({ points: ranks(ghost), colour: GHOST, dash: "3 3", name: "previous search" });
      const [box] = this.panels.rank.box.children;
      const height = clamp((this.panels.rank.box.clientHeight || 200) - 40, 100, 320);
      chart(box, { lines, end, at: now, height, limits: [1, run.scene.size], log: true, name: "rank over the steps" });
    }
  }
}

const SCROLLERS = ".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook, .jp-Notebook, body";

// --- through anywidget

export default {
  render({ model, el }) {
    const stage = new Stage(el, {
      tell: message => {
        try { model.send(message); } catch { /* the kernel is gone; the bridge says so */ }
      },
      lead: model.get("lead"), group: model.get("group") || null,
    });
    const said = () => stage.say(model.get("said"));
    const load = ({ last, ghost, step = null }) => {
      stage.load(last, { ghost: ghost && new Run(ghost), step });
      said();
    };
    const heard = message => {
      if (message.load) load(message.load);
      if (message.add) stage.add(message.add);
      if (message.sample) stage.sample(message.sample);
      if (message.compare !== undefined) stage.compare(message.compare);
      if (message.show !== undefined) {
        stage.show(stage.run.index(message.show), { quiet: true });
        stage.follow = stage.at === stage.run.last;
      }
      if (message.frame !== undefined) {
        const painted = () => model.send({ do: "painted", frame: message.frame });
        document.hidden ? painted() : requestAnimationFrame(() => setTimeout(painted, 0));
      }
    };
    model.on("msg:custom", heard);
    model.on("change:said", said);
    load(model.get("data"));
    model.send({ do: "load" });
    return () => {
      model.off("msg:custom", heard);
      model.off("change:said", said);
      stage.dispose();
    };
  },
};
