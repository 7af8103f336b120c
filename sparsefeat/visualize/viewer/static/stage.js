// The 3D view: shapes, matches and the receptive field; where they stand; what lies under the cursor.

import * as THREE from "three";
import * as shaders from "viewer/shaders";

// The axis that points up, and the one that points from a shape to a viewer who stands in front of it.
const FRONT = {
  x: [[1, 0, 0], [0, 0, 1]],
  y: [[0, 1, 0], [0, 0, 1]],
  z: [[0, 0, 1], [0, -1, 0]],
  "-x": [[-1, 0, 0], [0, 0, -1]],
  "-y": [[0, -1, 0], [0, 0, -1]],
  "-z": [[0, 0, -1], [0, -1, 0]],
};
const AZIMUTH = (-25 * Math.PI) / 180;
const ELEVATION = (16 * Math.PI) / 180;
const FIELD_OF_VIEW = 30;
// Between shapes side by side, as a share of the widest; lines between them need room.
const GAP = 0.12;
const GAP_OF_LINES = 0.4;
const PICK_RADIUS = 5; // pixels around the cursor in which a point counts as hit
const CORNERS = [[0, -1, 0], [0, 1, 0], [1, -1, 0], [1, 1, 0]];

export class Stage {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.data = data;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, powerPreference: "high-performance" });
    this.renderer.autoClear = false;
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 100);
    this.controls = new THREE.OrbitControls(this.camera, canvas);
    this.controls.zoomToCursor = true;
    this.controls.addEventListener("change", () => this.request());
    this.scene = new THREE.Scene();
    this.above = new THREE.Scene();
    this.picking = new THREE.Scene();
    this.together = 0;
    this.cut = 1;
    this.pointScale = 1;
    this.up = data.up;
    this.makeTargets();
    this.shapes = data.shapes.map((shape) => this.makeShape(shape));
    this.first = [];
    let total = 0;
    for (const shape of this.shapes) {
      this.first.push(total);
      total += shape.faces ? shape.faces.length / 3 : shape.count;
    }
    if (data.matches) this.makeMatches(data.matches);
    this.makeField();
    this.arrange(0);
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  // ---- what is drawn

  makeTargets() {
    const depthTexture = new THREE.DepthTexture(1, 1, THREE.UnsignedIntType);
    this.target = new THREE.WebGLRenderTarget(1, 1, { samples: 4, depthTexture });
    const side = 2 * PICK_RADIUS + 1;
    this.pickTarget = new THREE.WebGLRenderTarget(side, side, {
      minFilter: THREE.NearestFilter,
      magFilter: THREE.NearestFilter,
    });
    this.finish = material(shaders.finish, {
      image: this.target.texture,
      depth: depthTexture,
      step0: { x: 0, y: 0 },
      range: { x: 0, y: 0 },
      background: [1, 1, 1],
      strength: 7,
      grain: 0,
    });
    this.finish.depthTest = this.finish.depthWrite = false;
    const whole = new THREE.BufferGeometry();
    whole.setAttribute("position", new THREE.BufferAttribute(new Float32Array([-1, -1, 0, 3, -1, 0, -1, 3, 0]), 3));
    this.screen = new THREE.Scene();
    const cover = new THREE.Mesh(whole, this.finish);
    cover.frustumCulled = false;
    this.screen.add(cover);
  }

  makeShape(shape) {
    const position = this.data.arrays[shape.position];
    const geometry = new THREE.BufferGeometry();
    const colors = new Uint8Array(position.length).fill(160);
    geometry.setAttribute("position", new THREE.BufferAttribute(position, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(colors, 3, true));
    const made = { geometry, position, colors, count: position.length / 3, faces: null, shape, visible: true };
    made.matrix = new THREE.Matrix4();
    const uniforms = { cut: 1e30, size: 1, pixels: 1, smallest: 1, range: { x: 0, y: 1 } };
    if (shape.index === null) {
      made.object = new THREE.Points(geometry, material(shaders.cloud, uniforms));
      made.pick = new THREE.Points(geometry, material(shaders.pickCloud, { ...uniforms, first: 0 }));
    } else {
      made.faces = this.data.arrays[shape.index];
      geometry.setIndex(new THREE.BufferAttribute(made.faces, 1));
      geometry.computeVertexNormals();
      made.object = new THREE.Mesh(geometry, material(shaders.mesh, uniforms));
      made.pick = new THREE.Mesh(new THREE.BufferGeometry(), material(shaders.pickMesh, { ...uniforms, first: 0 }));
    }
    for (const [object, scene] of [[made.object, this.scene], [made.pick, this.picking]]) {
      object.matrixAutoUpdate = false;
      object.frustumCulled = false;
      scene.add(object);
    }
    made.pick.material.transparent = false;
    return made;
  }

  makeMatches({ ends, pairs, confidence, correct }) {
    const { arrays } = this.data;
    const total = arrays[confidence].length;
    const geometry = new THREE.InstancedBufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(CORNERS.flat()), 3));
    geometry.setIndex([0, 2, 1, 1, 2, 3]);
    geometry.instanceCount = total;
    // Wrong ones first, so that right ones lie above them.
    const order = Uint32Array.from(arrays[correct].keys()).sort((a, b) => arrays[correct][a] - arrays[correct][b]);
    this.lines = {
      order,
      local: arrays[ends],
      pairs: arrays[pairs],
      start: new THREE.InstancedBufferAttribute(new Float32Array(3 * total), 3),
      end: new THREE.InstancedBufferAttribute(new Float32Array(3 * total), 3),
    };
    geometry.setAttribute("start", this.lines.start);
    geometry.setAttribute("end", this.lines.end);
    const reordered = (values) => Float32Array.from(order, (k) => values[k]);
    geometry.setAttribute("confidence", new THREE.InstancedBufferAttribute(reordered(arrays[confidence]), 1));
    geometry.setAttribute("kind", new THREE.InstancedBufferAttribute(reordered(arrays[correct]), 1));
    this.lineMaterial = material(shaders.line, {
      viewport: { x: 1, y: 1 },
      width: 1,
      least: -1e30,
      alpha: 0.8,
      shown: [1, 1, 1],
      colors: [0, 0, 0, 0, 0, 0, 0, 0, 0],
    });
    this.lineMaterial.transparent = true;
    this.lineMaterial.depthTest = this.lineMaterial.depthWrite = false;
    const object = new THREE.Mesh(geometry, this.lineMaterial);
    object.frustumCulled = false;
    this.above.add(object);
  }

  makeField() {
    const round = this.data.field?.form === "sphere";
    const box = new THREE.BoxGeometry(1, 1, 1);
    const edges = round ? circles() : new THREE.EdgesGeometry(box);
    this.fieldEdges = new THREE.LineSegments(edges, material(shaders.flat, { color: new THREE.Vector4() }));
    this.fieldSides = new THREE.Mesh(box, material(shaders.flat, { color: new THREE.Vector4() }));
    this.fieldObjects = round ? [this.fieldEdges] : [this.fieldSides, this.fieldEdges];
    for (const object of this.fieldObjects) {
      object.material.transparent = true;
      object.material.depthTest = object.material.depthWrite = false;
      object.matrixAutoUpdate = false;
      object.frustumCulled = false;
      object.visible = false;
      this.above.add(object);
    }
  }

  // ---- where shapes stand

  /** Stand side by side (0), in one frame (1), or on the way between them. */
  arrange(together) {
    this.together = together;
    const turn = turned(this.up);
    const poses = this.shapes.map(({ shape }) => {
      const center = new THREE.Matrix4().makeTranslation(...shape.center);
      return turn.clone().multiply(new THREE.Matrix4().set(...shape.pose)).multiply(center);
    });
    if (this.boundsUp !== this.up) {
      this.bounds = this.shapes.map(({ position }, k) => boundsOf(position, poses[k]));
      this.boundsUp = this.up;
    }
    const apart = sideBySide(this.bounds, this.lines ? GAP_OF_LINES : GAP, this.camera.aspect);
    const whole = this.bounds.reduce(union);
    const middle = [0, 1, 2].map((axis) => (whole.low[axis] + whole.high[axis]) / 2);
    this.shapes.forEach((made, k) => {
      const offset = [0, 1, 2].map((axis) => (1 - together) * apart[k][axis] - together * middle[axis]);
      made.matrix.makeTranslation(...offset).multiply(poses[k]);
      made.box = { low: add(this.bounds[k].low, offset), high: add(this.bounds[k].high, offset) };
      for (const object of [made.object, made.pick]) {
        object.matrix.copy(made.matrix);
        object.matrixWorldNeedsUpdate = true;
      }
    });
    this.placeLines();
    this.placeCut();
    this.placeField();
    this.request();
  }

  placeLines() {
    if (!this.lines) return;
    const { order, local, pairs, start, end } = this.lines;
    const point = new THREE.Vector3();
    order.forEach((from, to) => {
      for (const [side, attribute] of [start, end].entries()) {
        point.fromArray(local, 6 * from + 3 * side).applyMatrix4(this.shapes[pairs[2 * from + side]].matrix);
        point.toArray(attribute.array, 3 * to);
      }
    });
    start.needsUpdate = end.needsUpdate = true;
  }

  placeCut() {
    const whole = this.shapes.map((made) => made.box).reduce(union);
    for (const made of this.shapes) {
      const { low, high } = this.together > 0.5 ? whole : made.box;
      const height = this.cut < 1 ? low[1] + this.cut * (high[1] - low[1]) : 1e30;
      for (const object of [made.object, made.pick]) object.material.uniforms.cut.value = height;
    }
  }

  /** Draw a receptive field around a point of a shape; null: none. */
  setField(field) {
    this.field = field;
    this.placeField();
    this.request();
  }

  placeField() {
    for (const object of this.fieldObjects) {
      object.visible = Boolean(this.field);
      // Sides around everything would only tint the picture.
      if (object === this.fieldSides && this.field?.size > this.radius) object.visible = false;
      if (!this.field) continue;
      const { shape, index, size } = this.field;
      const made = this.shapes[shape];
      const place = new THREE.Matrix4().makeTranslation(...made.position.subarray(3 * index, 3 * index + 3));
      object.matrix.copy(made.matrix).multiply(place).scale(new THREE.Vector3(size, size, size));
      object.matrixWorldNeedsUpdate = true;
    }
  }

  setUp(axis) {
    this.up = axis;
    this.arrange(this.together);
    this.reset();
  }

  setVisible(k, visible) {
    this.shapes[k].visible = this.shapes[k].object.visible = this.shapes[k].pick.visible = visible;
    this.request();
  }

  /** New colours of a shape have been written into `shapes[k].colors`. */
  colored(k) {
    this.shapes[k].geometry.attributes.color.needsUpdate = true;
    this.request();
  }

  setTheme({ background, accent, right, wrong }) {
    this.finish.uniforms.background.value = background;
    if (this.lineMaterial) this.lineMaterial.uniforms.colors.value = [...wrong, ...right, ...accent];
    this.fieldEdges.material.uniforms.color.value.set(...accent, 0.95);
    this.fieldSides.material.uniforms.color.value.set(...accent, 0.06);
    this.request();
  }

  /** Back to the first view. */
  reset() {
    const all = this.shapes.map((made) => made.box).reduce(union);
    const half = [0, 1, 2].map((axis) => (all.high[axis] - all.low[axis]) / 2);
    const middle = new THREE.Vector3(...[0, 1, 2].map((axis) => (all.high[axis] + all.low[axis]) / 2));
    const slope = Math.tan((FIELD_OF_VIEW * Math.PI) / 360);
    const tall = half[1] * Math.cos(ELEVATION) + half[2] * Math.sin(ELEVATION);
    const needed = Math.max(tall / slope, half[0] / (slope * this.camera.aspect)) * 1.08;
    const distance = needed + 0.7 * half[2];
    this.radius = Math.hypot(...half) || 1;
    const away = new THREE.Vector3(0, Math.sin(ELEVATION), Math.cos(ELEVATION));
    this.camera.position.copy(middle).addScaledVector(away, distance || 1);
    this.controls.target.copy(middle);
    this.controls.update();
    this.request();
  }

  // ---- drawing

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const before = this.camera.aspect;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
    this.renderer.setSize(width, height, false);
    this.target.setSize(this.canvas.width, this.canvas.height);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    if (!this.touched && before !== this.camera.aspect) {
      this.arrange(this.together);
      this.reset();
    }
    this.render();
  }

  request() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    this.waiting = false;
    const { renderer, camera, canvas } = this;
    const ratio = renderer.getPixelRatio();
    const distance = camera.position.distanceTo(this.controls.target);
    camera.near = Math.max(distance / 1000, distance - 4 * this.radius);
    camera.far = distance + 4 * this.radius;
    camera.updateProjectionMatrix();
    const pixels = canvas.height / (2 * Math.tan((FIELD_OF_VIEW * Math.PI) / 360));
    for (const made of this.shapes) {
      for (const { material: m } of [made.object, made.pick]) {
        m.uniforms.size.value = this.discSize(made);
        m.uniforms.pixels.value = pixels;
        m.uniforms.range.value = { x: camera.near, y: camera.far };
        m.uniforms.smallest.value = 1.5 * ratio;
      }
    }
    const clouds = this.shapes.filter((made) => !made.faces);
    const grains = clouds.map((made) => this.discSize(made));
    // The logarithm of base 2 grows by 1.44 times the share.
    this.finish.uniforms.grain.value = clouds.length ? 1.44 * 0.75 * Math.max(...grains) : 0;
    const reach = 1.2 * ratio;
    this.finish.uniforms.step0.value = { x: reach / canvas.width, y: reach / canvas.height };
    this.finish.uniforms.range.value = { x: camera.near, y: camera.far };
    if (this.lineMaterial) {
      this.lineMaterial.uniforms.viewport.value = { x: canvas.width, y: canvas.height };
      this.lineMaterial.uniforms.width.value = 1.5 * ratio;
    }
    renderer.setRenderTarget(this.target);
    renderer.setClearColor(0x000000, 0);
    renderer.clear();
    renderer.render(this.scene, camera);
    renderer.setRenderTarget(null);
    renderer.clear();
    renderer.render(this.screen, camera);
    renderer.render(this.above, camera);
    this.onRender?.();
  }

  discSize(made) {
    return (made.shape.disc || this.radius / 50) * this.pointScale;
  }

  /** Where a point of a shape is on the canvas, in CSS pixels; null where it cannot be seen at all. */
  project(k, local) {
    const point = new THREE.Vector3(...local).applyMatrix4(this.shapes[k].matrix);
    return this.onCanvas(point);
  }

  /** The middle of the lower edge of a shape's box, as it is seen. */
  below(k) {
    const { low, high } = this.shapes[k].box;
    const corners = [low[0], high[0]].flatMap((x) => [low[2], high[2]].map((z) => new THREE.Vector3(x, low[1], z)));
    const places = corners.map((corner) => this.onCanvas(corner));
    if (places.includes(null)) return null;
    return { x: places.reduce((sum, { x }) => sum + x / 4, 0), y: Math.max(...places.map(({ y }) => y)) };
  }

  onCanvas(point) {
    const place = point.clone().project(this.camera);
    if (place.z < -1 || place.z > 1) return null;
    return {
      x: ((place.x + 1) / 2) * this.canvas.clientWidth,
      y: ((1 - place.y) / 2) * this.canvas.clientHeight,
    };
  }

  // ---- what lies under the cursor

  /** The point at a place on the canvas: { shape, index } of a point or of the nearest corner; null for none. */
  pick(x, y) {
    const { renderer, camera, canvas } = this;
    const ratio = renderer.getPixelRatio();
    const side = 2 * PICK_RADIUS + 1;
    const left = Math.floor(x * ratio) - PICK_RADIUS;
    const top = Math.floor(y * ratio) - PICK_RADIUS;
    this.shapes.forEach((made, k) => {
      made.pick.material.uniforms.first.value = this.first[k];
      if (made.faces && !made.pick.geometry.attributes.position) {
        const corners = new Float32Array(3 * made.faces.length);
        made.faces.forEach((vertex, corner) => {
          for (let axis = 0; axis < 3; axis++) corners[3 * corner + axis] = made.position[3 * vertex + axis];
        });
        made.pick.geometry.setAttribute("position", new THREE.BufferAttribute(corners, 3));
      }
    });
    camera.setViewOffset(canvas.width, canvas.height, left, top, side, side);
    renderer.setRenderTarget(this.pickTarget);
    renderer.setClearColor(0x000000, 0);
    renderer.clear();
    renderer.render(this.picking, camera);
    const found = new Uint8Array(4 * side * side);
    renderer.readRenderTargetPixels(this.pickTarget, 0, 0, side, side, found);
    renderer.setRenderTarget(null);
    camera.clearViewOffset();
    let best = null;
    let nearest = Infinity;
    const numbers = new Uint32Array(found.buffer);
    numbers.forEach((number, pixel) => {
      const away = Math.hypot((pixel % side) - PICK_RADIUS, Math.floor(pixel / side) - PICK_RADIUS);
      if (number && away < nearest) [best, nearest] = [number - 1, away];
    });
    if (best === null) return null;
    let k = this.first.length - 1;
    while (this.first[k] > best) k--;
    const made = this.shapes[k];
    const index = made.faces ? this.nearestCorner(k, best - this.first[k], x, y) : best - this.first[k];
    return { shape: k, index };
  }

  nearestCorner(k, face, x, y) {
    const { faces, position } = this.shapes[k];
    let [best, nearest] = [faces[3 * face], Infinity];
    for (const vertex of faces.subarray(3 * face, 3 * face + 3)) {
      const place = this.project(k, position.subarray(3 * vertex, 3 * vertex + 3));
      const away = place ? Math.hypot(place.x - x, place.y - y) : Infinity;
      if (away < nearest) [best, nearest] = [vertex, away];
    }
    return best;
  }
}

function material({ vertex, fragment }, uniforms) {
  const wrapped = Object.fromEntries(Object.entries(uniforms).map(([name, value]) => [name, { value }]));
  const options = { vertexShader: vertex, fragmentShader: fragment, uniforms: wrapped, glslVersion: THREE.GLSL3 };
  return new THREE.ShaderMaterial({ ...options, side: THREE.DoubleSide });
}

/** Rotation of a shape whose up axis is named to one that stands upright, seen a little from the side. */
function turned(up) {
  const [top, front] = FRONT[up].map((axis) => new THREE.Vector3(...axis));
  const right = new THREE.Vector3().crossVectors(top, front);
  const rows = [right, top, front].flatMap((axis) => [axis.x, axis.y, axis.z, 0]);
  const upright = new THREE.Matrix4().set(...rows, 0, 0, 0, 1);
  return new THREE.Matrix4().makeRotationY(-AZIMUTH).multiply(upright);
}

function boundsOf(position, matrix) {
  const m = matrix.elements;
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let k = 0; k < position.length; k += 3) {
    for (let axis = 0; axis < 3; axis++) {
      const value =
        m[axis] * position[k] + m[4 + axis] * position[k + 1] + m[8 + axis] * position[k + 2] + m[12 + axis];
      if (value < low[axis]) low[axis] = value;
      if (value > high[axis]) high[axis] = value;
    }
  }
  return { low, high };
}

/** Where shapes go in rows and columns: a pair in one row, more as they are largest on a canvas of this aspect. */
function sideBySide(bounds, gap, aspect) {
  const side = (axis) => Math.max(...bounds.map(({ low, high }) => high[axis] - low[axis]));
  const stride = [side(0) * (1 + gap), (side(1) + side(2) * Math.sin(ELEVATION)) * (1 + 2 * GAP)];
  const rowsFor = (columns) => Math.ceil(bounds.length / columns);
  const needed = (columns) => Math.max((columns * stride[0]) / aspect, rowsFor(columns) * stride[1]);
  let columns = bounds.length;
  if (bounds.length > 2) for (let k = columns; k > 0; k--) if (needed(k) < needed(columns)) columns = k;
  const rows = rowsFor(columns);
  return bounds.map(({ low, high }, k) => {
    const [row, column] = [Math.floor(k / columns), k % columns];
    const place = [(column - (columns - 1) / 2) * stride[0], ((rows - 1) / 2 - row) * stride[1], 0];
    return place.map((value, axis) => value - (low[axis] + high[axis]) / 2);
  });
}

function union(a, b) {
  return { low: a.low.map((v, k) => Math.min(v, b.low[k])), high: a.high.map((v, k) => Math.max(v, b.high[k])) };
}

function add(a, b) {
  return a.map((value, k) => value + b[k]);
}

function circles() {
  const points = [];
  for (let axis = 0; axis < 3; axis++) {
    for (let k = 0; k < 64; k++) {
      for (const step of [k, k + 1]) {
        const angle = (step * Math.PI) / 32;
        const place = [0, 0, 0];
        place[axis] = Math.cos(angle) / 2;
        place[(axis + 1) % 3] = Math.sin(angle) / 2;
        points.push(...place);
      }
    }
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(points), 3));
  return geometry;
}
