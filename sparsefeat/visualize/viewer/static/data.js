// The numbers of the page: unpacked from the text that it carries.

const TYPES = {
  float32: Float32Array,
  uint32: Uint32Array,
  int32: Int32Array,
  uint16: Uint16Array,
  uint8: Uint8Array,
  int8: Int8Array,
};

/** The description, with every array that it names by number in `arrays`. */
export async function readData() {
  const description = JSON.parse(document.getElementById("description").textContent);
  const carrier = document.getElementById("data");
  const packed = fromBase64(carrier.textContent);
  carrier.remove(); // the text is a third larger than the numbers, and no longer needed
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const arrays = description.arrays.map(({ type, shape, offset }) => {
    const length = shape.reduce((product, side) => product * side, 1);
    return new TYPES[type](buffer, offset, length);
  });
  return { ...description, arrays };
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  return bytes;
}

/** A number with about three significant digits. */
export function format(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 100 ? Math.ceil(Math.log10(size + 1)) : 3)));
}

/** A coordinate, to about a thousandth of the shape's extent, however far from the origin that lies. */
export function formatPlace(value, extent) {
  const digits = extent > 0 ? 3 - Math.floor(Math.log10(extent)) : 3;
  return value.toFixed(Math.min(Math.max(digits, 0), 20));
}

export function count(number) {
  return number.toLocaleString("en").replaceAll(",", "\u202f");
}
