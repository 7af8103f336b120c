// The controls. Text of the data only ever becomes text nodes.

import { count, format } from "viewer/data";

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function section(title, ...children) {
  return element("section", {}, element("h2", { textContent: title }), ...children);
}

function swatch(color, kind = "swatch") {
  const made = element("span", { class: kind });
  made.style.background = Array.isArray(color) ? `rgb(${color.join(" ")})` : color;
  return made;
}

/** A slider with its name and value; `mark` is { at, text }, a place on it. */
export function slider({ id, name, low, high, value, say, onInput, mark }) {
  const steps = 1000;
  const input = element("input", { type: "range", id, min: 0, max: steps, value: 0 });
  const output = element("output", { htmlFor: id });
  const show = (number) => {
    output.textContent = say(number);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const numberAt = (step) => low + ((high - low) * step) / steps;
  const root = element(
    "div",
    { class: "slider" },
    element("span", { class: "top" }, element("label", { htmlFor: id, textContent: name }), output),
  );
  const track = element("span", { class: "track" }, input);
  root.append(track);
  if (mark) {
    // A thumb's middle runs from 8 pixels inside one end to 8 inside the other.
    const share = Math.max(0, Math.min(1, (mark.at - low) / (high - low)));
    const place = `calc(8px + (100% - 16px) * ${share})`;
    const bar = element("span", { class: "mark", title: mark.text });
    bar.style.left = place;
    const text = element("span", { textContent: mark.text });
    text.style.left = place;
    text.style.translate = `${-100 * share}%`;
    track.append(bar);
    root.append(element("span", { class: "says" }, text));
  }
  const set = (number) => {
    input.value = high > low ? Math.round(((number - low) / (high - low)) * steps) : 0;
    show(number);
  };
  input.addEventListener("input", () => {
    const number = numberAt(Number(input.value));
    show(number);
    onInput(number);
  });
  set(value);
  return { root, set };
}

export class Panel {
  constructor(root, data, layers, actions) {
    this.data = data;
    this.layers = layers;
    this.actions = actions;
    this.legend = element("div", { class: "legend", id: "legend" });
    root.append(
      element("header", {}, element("h1", { textContent: data.title || "Shapes" })),
      this.makeShapes(),
      this.makeLayers(),
    );
    if (data.matches) root.append(this.makeMatches());
    if (data.field) root.append(this.makeField());
    root.append(this.makeView(), this.makeFooter());
  }

  length(value) {
    return `${format(value)}${this.data.unit ? ` ${this.data.unit}` : ""}`;
  }

  makeShapes() {
    const list = element("div", { class: "shapes" });
    this.swatches = [];
    this.data.shapes.forEach((shape, k) => {
      const box = element("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => this.actions.show(k, box.checked));
      const kind = shape.faces ? `${count(shape.points)} vertices` : `${count(shape.points)} points`;
      const mark = swatch([0, 0, 0]);
      this.swatches.push(mark);
      list.append(
        element(
          "label",
          { class: "shape", title: shape.name },
          box,
          mark,
          element("span", { class: "name", textContent: shape.name }),
          element("span", { class: "count", textContent: kind }),
        ),
      );
      if (shape.note) list.append(element("p", { class: "note", textContent: shape.note }));
    });
    return section(this.data.shapes.length > 1 ? "Shapes" : "Shape", list);
  }

  makeLayers() {
    const choices = element("div", { class: "choices", id: "layers", role: "group", "aria-label": "Colour by" });
    this.choices = this.layers.map((layer, k) => {
      const key = k < 9 ? ` (${k + 1})` : "";
      const button = element("button", { type: "button", textContent: layer.name, title: `${layer.name}${key}` });
      button.addEventListener("click", () => this.actions.layer(k));
      choices.append(button);
      return button;
    });
    return section("Colour by", choices, this.legend);
  }

  makeMatches() {
    const { matches, arrays } = this.data;
    const sure = arrays[matches.confidence];
    const right = arrays[matches.correct];
    const counts = [0, 0, 0];
    for (const kind of right) counts[kind]++;
    const toggles = element("div", { class: "toggles" });
    for (const [kind, name, color] of [[1, "right", "var(--right)"], [0, "wrong", "var(--wrong)"], [2, "not known", "var(--accent)"]]) {
      if (!counts[kind]) continue;
      const box = element("input", { type: "checkbox", checked: true, id: `matches-${kind}` });
      box.addEventListener("change", () => this.actions.matchKind(kind, box.checked));
      const text = counts[2] === right.length ? "shown" : name;
      toggles.append(element("label", {}, box, swatch(color, "swatch dash"), `${text} (${count(counts[kind])})`));
    }
    this.matchCount = element("p", { class: "note", id: "match-count" });
    const parts = [toggles];
    if (matches.confident) {
      const sorted = Float32Array.from(sure).sort();
      const [least, most] = [sorted[0], sorted[sorted.length - 1]];
      const [low, high] = least >= 0 && most <= 1 ? [0, 1] : [least, most];
      this.confidence = slider({
        id: "confidence",
        name: "Confidence at least",
        low,
        // One step beyond the surest, which hides all.
        high: high + (high - low || 1) / 1000,
        value: low,
        say: format,
        onInput: this.actions.confidence,
      });
      parts.push(this.confidence.root);
    }
    return section("Matches", ...parts, this.matchCount);
  }

  setMatchCount(shown, right) {
    const { matches } = this.data;
    const drawn = this.data.arrays[matches.confidence].length;
    let text = `${count(shown)} of ${count(drawn)} shown`;
    if (right !== null) text += shown ? `, ${Math.round((100 * right) / shown)} % of them right` : "";
    if (drawn < matches.total) text += `. A random ${count(drawn)} of ${count(matches.total)} matches are in this page.`;
    this.matchCount.textContent = text;
  }

  makeField() {
    const { field } = this.data;
    const sizes = [field.size, field.tuned ?? field.size];
    const [low, high] = [Math.log(Math.min(...sizes) / 4), Math.log(Math.max(...sizes) * 4)];
    const say = (value) => {
      const size = Math.exp(value);
      return this.length(size) + (field.cells ? ` (voxel ${this.length(size / field.cells)})` : "");
    };
    const tuned = field.tuned ?? null;
    const control = slider({
      id: "field",
      name: field.form === "sphere" ? "Diameter" : "Edge",
      low,
      high,
      value: Math.log(field.size),
      say,
      onInput: (value) => this.actions.field(Math.exp(value)),
      mark: tuned === null ? null : { at: Math.log(tuned), text: `tuned: ${this.length(tuned)}` },
    });
    this.field = control;
    const text = field.about || "What the feature of a point depends on.";
    return section("Receptive field", control.root, this.about(`${text} Click a point to see it.`));
  }

  /** Buttons over the view. */
  static tools(actions) {
    const choices = [
      ["reset", "Reset", "First view (r)", actions.reset],
      ["picture", "Picture", "Download the view as a PNG (p)", actions.picture],
      ["theme", "Light / dark", "Light or dark (t)", actions.theme],
      ["keys", "?", "Keyboard and mouse (?)", actions.help],
    ];
    return choices.map(([id, textContent, title, action]) => {
      const button = element("button", { type: "button", id, textContent, title });
      button.addEventListener("click", () => action());
      return button;
    });
  }

  makeView() {
    const parts = [];
    const { actions, data } = this;
    if (data.shapes.length > 1) {
      const apart = element("button", { type: "button", id: "apart", textContent: "Side by side" });
      const together = element("button", { type: "button", id: "together", textContent: data.posed ? "In one frame" : "Overlaid" });
      apart.addEventListener("click", () => actions.together(false));
      together.addEventListener("click", () => actions.together(true));
      parts.push(element("div", { class: "choices" }, apart, together));
      this.arrangement = [apart, together];
    }
    this.cut = slider({
      id: "cut",
      name: "Cut from above",
      low: 0,
      high: 1,
      value: 0,
      say: (value) => (value ? `${Math.round(100 * value)} %` : "off"),
      onInput: (value) => actions.cut(1 - value),
    });
    parts.push(this.cut.root);
    if (data.shapes.some((shape) => shape.index === null)) {
      this.points = slider({
        id: "points",
        name: "Point size",
        low: Math.log(0.25),
        high: Math.log(4),
        value: 0,
        say: (value) => `× ${format(Math.exp(value))}`,
        onInput: (value) => actions.points(Math.exp(value)),
      });
      parts.push(this.points.root);
    }
    this.up = element("select", { id: "up", title: "The axis that points up (u)" });
    for (const axis of ["x", "y", "z", "-x", "-y", "-z"]) {
      this.up.append(element("option", { value: axis, textContent: `${axis} is up`, selected: axis === data.up }));
    }
    this.up.addEventListener("change", () => actions.up(this.up.value));
    const row = element("div", { class: "choices" }, this.up);
    row.style.marginTop = "9px";
    parts.push(row);
    return section("View", ...parts);
  }

  makeFooter() {
    const notes = [];
    const { features } = this.data;
    if (features) {
      const kept = `${features.steps.length} of ${features.channels} principal components`;
      const share = features.variance > 0.9995 ? "all" : `${(100 * features.variance).toFixed(1)} %`;
      const error = Math.max(0.1, 100 * features.error).toFixed(1);
      notes.push(`Feature distances use ${kept} in 8 bits (${share} of the variance). Mean error of a distance: ${error} % of the mean distance.`);
    }
    const made = element("footer");
    if (!notes.length) made.hidden = true;
    for (const note of notes) made.append(element("p", { class: "note", id: "precision", textContent: note }));
    return made;
  }

  setArrangement(together) {
    this.arrangement?.forEach((button, k) => button.setAttribute("aria-pressed", String(together === Boolean(k))));
  }

  /** Show what the colours mean. */
  setLayer(k, legend) {
    this.choices.forEach((button, i) => button.setAttribute("aria-pressed", String(i === k)));
    this.legend.replaceChildren(...legend);
    const plain = this.layers[k].kind === "plain";
    for (const mark of this.swatches) mark.hidden = !plain;
  }

  setTints(colors) {
    this.swatches.forEach((mark, k) => (mark.style.background = `rgb(${colors[k].join(" ")})`));
  }

  classLegend(classes) {
    const list = element("div", { class: "classes" });
    for (const { name, color } of classes) {
      list.append(element("div", { title: name }, swatch(color), element("span", { textContent: name })));
    }
    return list;
  }

  about(text) {
    return element("p", { class: "about", textContent: text });
  }

  /** A bar with the colours of the scale and what its ends mean. */
  scaleLegend(scale, low, high, reversed) {
    const canvas = element("canvas", { class: "scale", width: 256, height: 1 });
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(256, 1);
    for (let k = 0; k < 256; k++) {
      const entry = 3 * (reversed ? 255 - k : k);
      image.data.set([scale[entry], scale[entry + 1], scale[entry + 2], 255], 4 * k);
    }
    pen.putImageData(image, 0, 0);
    const ends = element("div", { class: "ends" }, element("span", { textContent: low }), element("span", { textContent: high }));
    return { canvas, root: element("div", {}, canvas, ends), setHigh: (text) => (ends.lastChild.textContent = text) };
  }
}
