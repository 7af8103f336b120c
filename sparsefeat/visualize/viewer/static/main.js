// What the page does: one state, and what each control changes in it.

import { readData, count, format, formatPlace } from "viewer/data";
import * as paint from "viewer/paint";
import { element, Panel, slider } from "viewer/panel";
import { savePicture } from "viewer/picture";
import { Stage } from "viewer/stage";

const KEYS = [
  ["1 to 9", "colour by the first, second, … choice"],
  ["Space", "side by side, or in one frame"],
  ["Esc", "forget the picked point"],
  ["r", "first view"],
  ["u", "next axis that points up"],
  ["+ −", "larger or smaller points"],
  ["p", "download the view as a picture"],
  ["t", "light or dark"],
  ["h", "hide or show the controls"],
  ["?", "this list"],
];
const MOUSE = [
  ["Click", "pick a point: its feature is compared with all others"],
  ["Drag", "turn"],
  ["Wheel", "zoom to the cursor"],
  ["Right drag", "move (or Shift and drag)"],
];
const CLICK_PIXELS = 4;
const HOVER_MS = 40;
const MOVE_MS = 350;
// Lines that are shown at first: the surest ones; and how visible they are, at most.
const LINES_AT_FIRST = 150;
const LINE_ALPHA = 0.8;

const message = document.getElementById("message");
start().catch((error) => {
  message.hidden = false;
  message.textContent = `This page could not start.\n${error.message}`;
  throw error;
});

async function start() {
  const root = document.documentElement;
  const canvas = document.getElementById("canvas");
  const readout = document.getElementById("readout");
  const overlay = document.getElementById("overlay");
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (!canvas.getContext("webgl2")) throw new Error("The browser has no WebGL 2, which draws the shapes.");

  const data = await readData();
  const scale = data.arrays[data.scale];
  const layers = [...data.layers];
  if (data.features) layers.splice(1, 0, { kind: "distance", name: "Distance" });
  layers.push({ kind: "plain", name: data.shapes.length > 1 ? "Shapes" : "Plain", about: "" });
  const state = { layer: 0, pick: null, distances: null, most: 1, together: false, shown: [1, 1, 1], least: -Infinity, size: data.field?.size };
  const stage = new Stage(canvas, data);
  const spreads = new Map();

  const actions = {
    show: (k, visible) => { stage.setVisible(k, visible); },
    layer: setLayer,
    together: setTogether,
    confidence: (least) => { state.least = least; updateMatches(); },
    matchKind: (kind, shown) => { state.shown[kind] = shown ? 1 : 0; updateMatches(); },
    field: (size) => { state.size = size; placeField(); },
    cut: (share) => { stage.cut = share; stage.placeCut(); stage.request(); },
    points: (factor) => { stage.pointScale = factor; stage.request(); },
    up: (axis) => stage.setUp(axis),
    reset,
    picture,
    theme: () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"),
    help: () => document.getElementById("help").showModal(),
  };
  const panel = new Panel(document.getElementById("panel"), data, layers, actions);
  panel.setTints(data.shapes.map((_, k) => paint.tint(k)));
  document.getElementById("tools").append(...Panel.tools(actions));
  makeHelp();

  const captions = data.shapes.map((shape) => element("div", { class: "caption", textContent: shape.name }));
  const markers = data.shapes.map(() => element("div", { class: "marker", hidden: true }));
  const marked = data.shapes.map(() => null);
  overlay.append(...captions, ...markers);
  stage.onRender = placeOverlay;
  let scaleShown = null;

  // ---- colours

  function setLayer(k) {
    state.layer = k;
    const layer = layers[k];
    scaleShown = null;
    const legend = { colors: carried, labels, values, distance, plain }[layer.kind](layer);
    panel.setLayer(k, legend);
    data.shapes.forEach((_, shape) => stage.colored(shape));
  }

  function eachShape(layer, draw) {
    stage.shapes.forEach(({ colors }, k) => {
      const number = layer.arrays[k];
      if (number === null) paint.paintNothing(colors);
      else draw(colors, data.arrays[number], k);
    });
  }

  function carried(layer) {
    eachShape(layer, (colors, given) => colors.set(given));
    return layer.about ? [panel.about(layer.about)] : [];
  }

  function labels(layer) {
    eachShape(layer, (colors, given) => paint.paintClasses(colors, given, layer.classes));
    return [panel.classLegend(layer.classes)];
  }

  function values(layer) {
    if (!spreads.has(layer)) {
      spreads.set(layer, paint.spread(layer.arrays.map((n) => (n === null ? null : data.arrays[n]))));
    }
    const { low, high } = spreads.get(layer);
    eachShape(layer, (colors, given) => paint.paintValues(colors, given, scale, low, high, false));
    const bar = panel.scaleLegend(scale, format(low), format(high), false);
    scaleShown = { canvas: bar.canvas, low: format(low), high: format(high), name: layer.name };
    return [bar.root];
  }

  function paintDistances() {
    stage.shapes.forEach(({ colors }, k) => {
      if (state.distances[k]) paint.paintValues(colors, state.distances[k], scale, 0, state.most, true);
      else paint.paintNothing(colors);
    });
  }

  function distance() {
    if (!state.distances) {
      stage.shapes.forEach(({ colors }) => paint.paintNothing(colors));
      return [panel.about("Click a point. All points are then coloured by how far their features are from its feature.")];
    }
    paintDistances();
    const { high, most } = paint.spread(state.distances);
    const bar = panel.scaleLegend(scale, "0, equal", `${format(state.most)} and more`, true);
    scaleShown = { canvas: bar.canvas, low: "0", high: format(state.most), name: "Distance of features" };
    const range = slider({
      id: "range",
      name: "Scale ends at",
      low: 0.05 * high,
      high,
      value: state.most ?? most,
      say: format,
      onInput: (value) => {
        state.most = value;
        bar.setHigh(`${format(value)} and more`);
        scaleShown.high = format(value);
        paintDistances();
        data.shapes.forEach((_, shape) => stage.colored(shape));
      },
    });
    const text = "Distance of each feature to that of the picked point. Rings on other shapes: their most similar point.";
    return [bar.root, range.root, panel.about(text)];
  }

  function plain() {
    stage.shapes.forEach(({ colors }, k) => paint.paintPlain(colors, k));
    return [];
  }

  // ---- picking

  function pickPoint(pick) {
    state.pick = pick;
    const before = state.distances;
    state.distances = pick && data.features ? paint.distancesTo(data, pick) : null;
    marked.fill(null);
    if (pick) {
      marked[pick.shape] = pick.index;
      const targets = data.map?.arrays[pick.shape];
      if (layers[state.layer].name === "Map" && targets !== null && targets !== undefined) {
        const target = data.arrays[targets][pick.index];
        if (target >= 0) marked[data.map.reference] = target;
      } else if (state.distances) {
        state.distances.forEach((distances, k) => {
          if (k !== pick.shape && distances) marked[k] = paint.smallest(distances);
        });
      }
    }
    const own = layers.findIndex((layer) => layer.kind === "distance");
    if (state.distances) {
      state.most = paint.spread(state.distances).most || 1;
      if (layers[state.layer].name === "Map") setLayer(state.layer);
      else {
        if (state.layer !== own) state.before = state.layer;
        setLayer(own);
      }
    } else if (before && state.layer === own) {
      setLayer(state.before ?? 0);
    }
    placeField();
    updateMatches();
    say(pick);
    stage.request();
  }

  function placeField() {
    stage.setField(state.pick && data.field ? { ...state.pick, size: state.size } : null);
  }

  /** What is known of a point, in one line. */
  function say(at) {
    if (!at) {
      readout.textContent = "";
      return;
    }
    const shape = data.shapes[at.shape];
    const made = stage.shapes[at.shape];
    const row = shape.rows === null ? at.index : data.arrays[shape.rows][at.index];
    const extent = Math.max(...made.box.high.map((high, axis) => high - made.box.low[axis]));
    const place = shape.center
      .map((c, axis) => formatPlace(c + made.position[3 * at.index + axis], extent))
      .join(", ");
    const parts = [`${shape.name}, point ${count(row)} (${place}${data.unit ? ` ${data.unit}` : ""})`];
    for (const layer of data.layers) {
      const number = layer.arrays[at.shape];
      if (number === null) continue;
      const value = data.arrays[number][at.index];
      if (layer.kind === "labels") parts.push(`${layer.name}: ${layer.classes[value].name}`);
      if (layer.kind === "values") parts.push(`${layer.name}: ${format(value)}`);
    }
    if (state.distances?.[at.shape]) parts.push(`distance ${format(state.distances[at.shape][at.index])}`);
    readout.textContent = parts.join(" · ");
  }

  let pressed = null;
  let hovering = 0;
  canvas.addEventListener("pointerdown", (event) => {
    pressed = { x: event.clientX, y: event.clientY, moved: false };
    canvas.classList.add("turning");
    stage.touched = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > CLICK_PIXELS) pressed.moved = true;
    clearTimeout(hovering);
    if (!event.buttons) hovering = setTimeout(() => hover(event.offsetX, event.offsetY), HOVER_MS);
  });
  canvas.addEventListener("pointerup", (event) => {
    canvas.classList.remove("turning");
    if (pressed && !pressed.moved && event.button === 0) {
      const found = stage.pick(event.offsetX, event.offsetY);
      if (found) pickPoint(found);
    }
    pressed = null;
  });
  canvas.addEventListener("pointerleave", () => { clearTimeout(hovering); canvas.classList.remove("over"); say(state.pick); });
  canvas.addEventListener("wheel", () => { stage.touched = true; }, { passive: true });

  function hover(x, y) {
    const found = stage.pick(x, y);
    canvas.classList.toggle("over", Boolean(found));
    say(found ?? state.pick);
  }

  // ---- matches

  function updateMatches() {
    if (!data.matches) return;
    const sure = data.arrays[data.matches.confidence];
    const correct = data.arrays[data.matches.correct];
    let [shown, right, known] = [0, 0, false];
    for (let k = 0; k < sure.length; k++) {
      known ||= correct[k] !== 2;
      if (sure[k] < state.least || !state.shown[correct[k]]) continue;
      shown++;
      right += correct[k] === 1;
    }
    panel.setMatchCount(shown, known ? right : null);
    stage.lineMaterial.uniforms.least.value = Math.max(state.least, -1e30);
    stage.lineMaterial.uniforms.shown.value = state.shown;
    // Many lines, and lines over colours that a click asked for, step back.
    const crowd = Math.min(1, Math.sqrt(LINES_AT_FIRST / Math.max(shown, 1)));
    stage.lineMaterial.uniforms.alpha.value = LINE_ALPHA * Math.max(0.2, crowd) * (state.pick ? 0.4 : 1);
    stage.request();
  }

  // ---- the view

  function setTogether(together) {
    state.together = together;
    panel.setArrangement(together);
    const [from, to, begun] = [stage.together, together ? 1 : 0, performance.now()];
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = () => {
      if (state.together !== together) return;
      const share = still ? 1 : Math.min(1, (performance.now() - begun) / MOVE_MS);
      const eased = share * share * (3 - 2 * share);
      stage.arrange(from + (to - from) * eased);
      if (share < 1) requestAnimationFrame(step);
      else if (!stage.touched) stage.reset();
    };
    step();
  }

  function reset() {
    stage.touched = false;
    pickPoint(null);
    stage.cut = 1;
    stage.pointScale = 1;
    stage.placeCut();
    panel.cut.set(0);
    panel.points?.set(0);
    stage.reset();
  }

  function setTheme(name) {
    root.dataset.theme = name;
    const style = getComputedStyle(root);
    const color = (property) => {
      const digits = style.getPropertyValue(property).trim().slice(1);
      return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16) / 255);
    };
    stage.setTheme({ background: color("--page"), accent: color("--accent"), right: color("--right"), wrong: color("--wrong") });
  }

  /** Captions stand below their shapes, markers on their points. */
  function placeOverlay() {
    captions.forEach((caption, k) => {
      const apart = data.shapes.length > 1 && stage.together < 0.5 && stage.shapes[k].visible;
      const place = apart ? stage.below(k) : null;
      caption.hidden = !place;
      if (place) caption.style.transform = `translate(${place.x}px, ${place.y + 6}px) translateX(-50%)`;
    });
    markers.forEach((marker, k) => {
      const index = marked[k];
      const local = index === null ? null : stage.shapes[k].position.subarray(3 * index, 3 * index + 3);
      const place = local && stage.shapes[k].visible ? stage.project(k, local) : null;
      marker.hidden = !place;
      marker.classList.toggle("picked", state.pick?.shape === k);
      if (place) marker.style.transform = `translate(${place.x}px, ${place.y}px)`;
    });
  }

  function picture() {
    const texts = [];
    const rings = [];
    stage.shapes.forEach(({ position }, k) => {
      const place = captions[k].hidden ? null : stage.below(k);
      if (place) texts.push({ x: place.x, y: place.y + 20, text: data.shapes[k].name });
      if (!markers[k].hidden) {
        rings.push({ ...stage.project(k, position.subarray(3 * marked[k], 3 * marked[k] + 3)), picked: state.pick?.shape === k });
      }
    });
    return savePicture(stage, "view", { texts, rings, scale: scaleShown });
  }

  function makeHelp() {
    const help = document.getElementById("help");
    for (const [title, rows] of [["Mouse", MOUSE], ["Keyboard", KEYS]]) {
      const list = element("dl");
      for (const [key, text] of rows) {
        list.append(element("dt", {}, element("kbd", { textContent: key })), element("dd", { textContent: text }));
      }
      help.append(element("h2", { textContent: title }), list);
    }
    const close = element("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", () => help.close());
    help.append(close);
    help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const help = document.getElementById("help");
    if (help.open) {
      if (event.key === "?") help.close();
      return;
    }
    if (event.target.tagName === "SELECT") return;
    if (event.key === " " && ["BUTTON", "INPUT"].includes(event.target.tagName)) return;
    const axes = [...panel.up.options].map((option) => option.value);
    const known = {
      "?": actions.help,
      r: reset,
      p: picture,
      t: actions.theme,
      h: () => document.body.classList.toggle("bare"),
      Escape: () => pickPoint(null),
      " ": () => data.shapes.length > 1 && setTogether(!state.together),
      u: () => { panel.up.value = axes[(axes.indexOf(stage.up) + 1) % axes.length]; stage.setUp(panel.up.value); },
      "+": () => scalePoints(1.25),
      "=": () => scalePoints(1.25),
      "-": () => scalePoints(0.8),
    };
    const digit = Number(event.key);
    if (digit >= 1 && digit <= layers.length) setLayer(digit - 1);
    else if (Object.hasOwn(known, event.key)) known[event.key]();
    else return;
    event.preventDefault();
  });

  function scalePoints(factor) {
    stage.pointScale = Math.max(0.25, Math.min(4, stage.pointScale * factor));
    panel.points?.set(Math.log(stage.pointScale));
    stage.request();
  }

  setTheme(root.dataset.theme);
  panel.setArrangement(false);
  setLayer(0);
  if (data.matches?.confident) {
    const sorted = Float32Array.from(data.arrays[data.matches.confidence]).sort();
    if (sorted.length > LINES_AT_FIRST) {
      state.least = sorted[sorted.length - LINES_AT_FIRST];
      panel.confidence.set(state.least);
    }
  }
  updateMatches();
  stage.render();
  root.dataset.ready = "true";
}
