// Colours of the points: by layer, by distance of features to a picked point, or one tint per shape.

export const NO_FEATURE = -128;
const NOTHING = [150, 150, 150];
const TINTS = [[214, 178, 122], [122, 164, 214], [140, 190, 140], [206, 148, 176], [164, 152, 210], [196, 186, 96]];

export function tint(k) {
  return TINTS[k % TINTS.length];
}

/** Distances of all features to that of a point, one array per shape; NaN where there is none. */
export function distancesTo(data, { shape, index }) {
  const { arrays, steps } = data.features;
  const width = steps.length;
  const weight = Float32Array.from(steps, (step) => step * step);
  if (arrays[shape] === null) return null;
  const from = data.arrays[arrays[shape]].subarray(width * index, width * (index + 1));
  if (from[0] === NO_FEATURE) return null;
  return arrays.map((number) => {
    if (number === null) return null;
    const codes = data.arrays[number];
    const distances = new Float32Array(codes.length / width);
    for (let row = 0, at = 0; row < distances.length; row++) {
      if (codes[at] === NO_FEATURE) {
        distances[row] = NaN;
        at += width;
        continue;
      }
      let sum = 0;
      for (let k = 0; k < width; k++, at++) {
        const difference = codes[at] - from[k];
        sum += weight[k] * difference * difference;
      }
      distances[row] = Math.sqrt(sum);
    }
    return distances;
  });
}

/** Smallest, largest and 90th percentile of the finite numbers of several arrays (of a sample, if they are many). */
export function spread(arrays) {
  const sample = [];
  const total = arrays.reduce((sum, values) => sum + (values?.length ?? 0), 0);
  const step = Math.max(1, Math.floor(total / 50000));
  let [low, high] = [Infinity, -Infinity];
  for (const values of arrays) {
    if (!values) continue;
    for (let k = 0; k < values.length; k++) {
      if (!Number.isFinite(values[k])) continue;
      if (values[k] < low) low = values[k];
      if (values[k] > high) high = values[k];
      if (k % step === 0) sample.push(values[k]);
    }
  }
  sample.sort((a, b) => a - b);
  if (!sample.length) return { low: 0, high: 1, most: 1 };
  return { low, high, most: sample[Math.floor(0.9 * (sample.length - 1))] };
}

/** Row of the smallest number; -1 if there is none. */
export function smallest(values) {
  let best = -1;
  for (let k = 0; k < values.length; k++) {
    if (Number.isFinite(values[k]) && (best < 0 || values[k] < values[best])) best = k;
  }
  return best;
}

export function paintPlain(colors, k) {
  for (let at = 0; at < colors.length; at += 3) colors.set(tint(k), at);
}

export function paintNothing(colors) {
  for (let at = 0; at < colors.length; at += 3) colors.set(NOTHING, at);
}

export function paintClasses(colors, labels, classes) {
  for (let row = 0; row < labels.length; row++) colors.set(classes[labels[row]].color, 3 * row);
}

/** Colours of numbers on the scale; `reversed` gives the smallest the scale's brightest end. */
export function paintValues(colors, values, scale, low, high, reversed) {
  const factor = high > low ? 255 / (high - low) : 0;
  for (let row = 0; row < values.length; row++) {
    if (!Number.isFinite(values[row])) {
      colors.set(NOTHING, 3 * row);
      continue;
    }
    const place = Math.max(0, Math.min(255, Math.round((values[row] - low) * factor)));
    const entry = 3 * (reversed ? 255 - place : place);
    for (let k = 0; k < 3; k++) colors[3 * row + k] = scale[entry + k];
  }
}
