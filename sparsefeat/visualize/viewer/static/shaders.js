// GLSL of everything that is drawn. Colours are sRGB throughout; nothing is tone-mapped.

const CUT = `
uniform float cut;
in float height;
void cutAway() { if (height > cut) discard; }
`;

const CUT_VERTEX = `
out float height;
vec4 place(vec3 p) { vec4 world = modelMatrix * vec4(p, 1.0); height = world.y; return modelViewMatrix * vec4(p, 1.0); }
`;

// A point is a disc of the size of the patch that it stands for, its middle nearest to the viewer: where discs
// overlap, each pixel belongs to the nearest point.
const DISC_SIZE = `
uniform float size;
uniform float pixels;
uniform float smallest;
flat out vec2 bulge;
float discSize(vec4 seen) { bulge = vec2(-seen.z, size); return clamp(size * pixels / -seen.z, smallest, 64.0); }
`;

const DISC = `
uniform vec2 range;
flat in vec2 bulge;
void disc() {
  vec2 d = gl_PointCoord - 0.5;
  if (dot(d, d) > 0.25) discard;
  float away = bulge.x + bulge.y * dot(d, d);
  gl_FragDepth = range.y * (away - range.x) / (away * (range.y - range.x));
}
`;

export const cloud = {
  vertex: `${CUT_VERTEX}${DISC_SIZE}
in vec3 color;
out vec3 tint;
void main() { vec4 seen = place(position); tint = color; gl_Position = projectionMatrix * seen; gl_PointSize = discSize(seen); }`,
  fragment: `${CUT}${DISC}
in vec3 tint;
out vec4 pixel;
void main() { cutAway(); disc(); pixel = vec4(tint, 1.0); }`,
};

export const mesh = {
  vertex: `${CUT_VERTEX}
in vec3 color;
out vec3 tint;
out vec3 facing;
void main() { vec4 seen = place(position); tint = color; facing = normalMatrix * normal; gl_Position = projectionMatrix * seen; }`,
  fragment: `${CUT}
in vec3 tint;
in vec3 facing;
out vec4 pixel;
void main() {
  cutAway();
  vec3 n = normalize(facing);
  n *= n.z < 0.0 ? -1.0 : 1.0;
  // From the upper left, over the viewer's shoulder; never so dark that a colour is lost.
  float light = 0.66 + 0.42 * max(dot(n, normalize(vec3(-0.45, 0.6, 0.66))), 0.0);
  pixel = vec4(min(tint * light, 1.0), 1.0);
}`,
};

// The number of a point or of a triangle as a colour, plus one: 0 is nothing.
const NUMBER = `
flat in uint number;
out vec4 pixel;
void main() {
  cutAway();
  HIT
  uint n = number + 1u;
  pixel = vec4(float(n & 255u), float((n >> 8) & 255u), float((n >> 16) & 255u), float(n >> 24)) / 255.0;
}`;

export const pickCloud = {
  vertex: `${CUT_VERTEX}${DISC_SIZE}
uniform uint first;
flat out uint number;
void main() { vec4 seen = place(position); number = first + uint(gl_VertexID); gl_Position = projectionMatrix * seen; gl_PointSize = discSize(seen); }`,
  fragment: CUT + DISC + NUMBER.replace("HIT", "disc();"),
};

export const pickMesh = {
  vertex: `${CUT_VERTEX}
uniform uint first;
flat out uint number;
void main() { number = first + uint(gl_VertexID / 3); gl_Position = projectionMatrix * place(position); }`,
  fragment: CUT + NUMBER.replace("HIT", ""),
};

// Eye-dome lighting (Boucheny, PhD thesis, 2009): a pixel is darker the more its neighbours are in front of it.
export const finish = {
  vertex: `
out vec2 uv0;
void main() { uv0 = position.xy * 0.5 + 0.5; gl_Position = vec4(position.xy, 0.0, 1.0); }`,
  fragment: `
uniform sampler2D image;
uniform sampler2D depth;
uniform vec2 step0;
uniform vec2 range;
uniform vec3 background;
uniform float strength;
uniform float grain;
in vec2 uv0;
out vec4 pixel;
// Logarithm of the distance, so that a step counts by its share of the distance.
float far(vec2 uv) {
  float z = texture(depth, uv).r;
  return z >= 1.0 ? 1e3 : log2(range.x * range.y / (range.y - z * (range.y - range.x)));
}
void main() {
  vec4 color = texture(image, uv0);
  float own = far(uv0);
  float shade = 0.0;
  if (own < 1e3) {
    // Steps below the size of a point are grain of a cloud, not an edge.
    float slack = grain / exp2(own);
    for (int k = 0; k < 8; k++) {
      float angle = 0.785398 * float(k);
      shade += max(0.0, own - far(uv0 + step0 * vec2(cos(angle), sin(angle))) - slack);
    }
  }
  // The edge of the image is half surface, half nothing.
  vec3 surface = color.a > 0.0 ? color.rgb / color.a : background;
  pixel = vec4(mix(background, surface * exp(-strength * min(shade, 0.1)), color.a), 1.0);
}`,
};

// A line between two points, some pixels wide. Corners: x is the end, y the side.
export const line = {
  vertex: `
in vec3 start;
in vec3 end;
in float confidence;
in float kind;
uniform vec2 viewport;
uniform float width;
uniform float least;
uniform float alpha;
uniform vec3 shown;
uniform vec3 colors[3];
out vec4 tint;
void main() {
  int k = int(kind + 0.5);
  if (confidence < least || shown[k] < 0.5) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); return; }
  vec4 a = projectionMatrix * viewMatrix * vec4(start, 1.0);
  vec4 b = projectionMatrix * viewMatrix * vec4(end, 1.0);
  vec2 along = (b.xy / b.w - a.xy / a.w) * viewport;
  vec2 across = normalize(vec2(-along.y, along.x) + 1e-6);
  vec4 p = position.x < 0.5 ? a : b;
  gl_Position = vec4(p.xy + across * position.y * width / viewport * p.w, p.zw);
  tint = vec4(colors[k], alpha);
}`,
  fragment: `
in vec4 tint;
out vec4 pixel;
void main() { pixel = tint; }`,
};

export const flat = {
  vertex: `void main() { gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); }`,
  fragment: `
uniform vec4 color;
out vec4 pixel;
void main() { pixel = color; }`,
};
