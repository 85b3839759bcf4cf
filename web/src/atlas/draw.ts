// Drawing the points: on the graphics card, or, where there is none or it is only pretended, pixel by pixel, which is then the faster way.
import { seen, type Camera, type Size } from "./camera";
import { tilesIn, type Points } from "./points";

export interface Painter {
  kind: "webgl" | "canvas";
  /** Points from this one on are new, or have other colours. */
  update(from: number): void;
  /** Draw a share of every tile that is seen; how many points that was. */
  draw(camera: Camera, size: Size, ratio: number, share: number): number;
  free(): void;
}

/** A point's diameter in CSS pixels: larger when fewer are seen, so that a single one can be aimed at. */
export function diameter(camera: Camera, size: Size, points: Points): number {
  const area = (points.middle.right - points.middle.left) * (points.middle.top - points.middle.bottom) * camera.scale ** 2;
  const apart = Math.sqrt(Math.max(area, size.width * size.height * 0.25) / Math.max(1, points.nToLevel));
  return Math.min(13, Math.max(1.6, apart * 0.55));
}

const alphaOf = (width: number): number => (width < 2.2 ? 0.62 : width < 5 ? 0.78 : 0.9);

const PRETENDED = /swiftshader|llvmpipe|software|basic render/i;

/** A painter on a canvas of its own inside `host`. `wanted` is "webgl" or "canvas" to have that one; `lost` is called when the card is taken away. */
export function makePainter(host: HTMLElement, points: Points, wanted: string | undefined, lost: () => void): Painter {
  if (wanted !== "canvas") {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2", { antialias: false, failIfMajorPerformanceCaveat: wanted !== "webgl" });
    const card = gl?.getExtension("WEBGL_debug_renderer_info");
    const isPretended = gl !== null && PRETENDED.test(String(gl.getParameter(card ? card.UNMASKED_RENDERER_WEBGL : gl.RENDERER)));
    const program = gl && (wanted === "webgl" || !isPretended) ? linked(gl) : null;
    if (gl && program) {
      canvas.addEventListener("webglcontextlost", lost, { once: true });
      host.replaceChildren(canvas);
      return webgl(gl, program, points, lost);
    }
  }
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  if (!context) throw new Error("This browser draws neither WebGL nor 2-D canvases; the Features page lists the same features.");
  host.replaceChildren(canvas);
  return raster(context, points);
}

function sized(canvas: HTMLCanvasElement | OffscreenCanvas, size: Size, ratio: number): void {
  const width = Math.round(size.width * ratio), height = Math.round(size.height * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

const VERTEX = `#version 300 es
in vec2 place; in vec3 colour; uniform vec2 centre; uniform vec2 factor; uniform float width; out vec3 shade;
void main() { gl_Position = vec4((place - centre) * factor, 0.0, 1.0); gl_PointSize = width; shade = colour; }`;
const FRAGMENT = `#version 300 es
precision highp float; in vec3 shade; uniform float width; uniform float alpha; out vec4 seen;
void main() {
  float edge = 1.0;
  if (width > 3.0) edge = clamp((1.0 - length(gl_PointCoord * 2.0 - 1.0)) * width * 0.5, 0.0, 1.0);
  float a = alpha * edge; seen = vec4(shade * a, a);
}`;

function linked(gl: WebGL2RenderingContext): WebGLProgram | null {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
    const shader = gl.createShader(kind)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
}

function webgl(gl: WebGL2RenderingContext, program: WebGLProgram, points: Points, lost: () => void): Painter {
  gl.useProgram(program);
  const attribute = (name: string, width: number, type: number, normalized: boolean, stride: number): WebGLBuffer => {
    const made = gl.createBuffer(), at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, type, normalized, stride, 0);
    return made;
  };
  const places = attribute("place", 2, gl.FLOAT, false, 0), colours = attribute("colour", 3, gl.UNSIGNED_BYTE, true, 4);
  let room = -1;
  const at = Object.fromEntries(["centre", "factor", "width", "alpha"].map((name) => [name, gl.getUniformLocation(program, name)]));
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  return {
    kind: "webgl",
    update(first) {
      const hasRoom = room === points.x.length, from = hasRoom ? first : 0;
      room = points.x.length;
      const some = new Float32Array(2 * (points.n - from));
      for (let i = from, at = 0; i < points.n; i++) { some[at++] = points.x[i]!; some[at++] = points.y[i]!; }
      for (const [buffer, bytes, data] of [[places, 8, some], [colours, 4, points.colours.subarray(4 * from, 4 * points.n)]] as const) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        if (!hasRoom) gl.bufferData(gl.ARRAY_BUFFER, bytes * room, gl.DYNAMIC_DRAW);
        gl.bufferSubData(gl.ARRAY_BUFFER, bytes * from, data);
      }
    },
    draw(camera, size, ratio, share) {
      const width = diameter(camera, size, points);
      sized(gl.canvas, size, ratio);
      gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(at["centre"]!, camera.x, camera.y);
      gl.uniform2f(at["factor"]!, (2 * camera.scale) / size.width, (2 * camera.scale) / size.height);
      gl.uniform1f(at["width"]!, width * ratio);
      gl.uniform1f(at["alpha"]!, alphaOf(width));
      let drawn = 0;
      for (const [start, n] of runs(points, camera, size, width, share)) { gl.drawArrays(gl.POINTS, start, n); drawn += n; }
      return drawn;
    },
    free() {
      gl.canvas.removeEventListener("webglcontextlost", lost);
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

/** What to draw, as (first, how many): whole neighbouring tiles are one. */
function runs(points: Points, camera: Camera, size: Size, width: number, share: number): [number, number][] {
  const found: [number, number][] = [];
  for (const tile of tilesIn(points, seen(camera, size, width))) {
    const { start } = tile, n = Math.ceil(tile.n * share), last = found.at(-1);
    if (last && last[0] + last[1] === start) last[1] += n;
    else found.push([start, n]);
  }
  return found;
}

/** A disc as (right, down, how much of the pixel it covers). */
function disc(width: number): Float32Array {
  const radius = width / 2, reach = Math.ceil(radius), cells: number[] = [];
  for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) {
    const covered = Math.min(1, radius + 0.5 - Math.hypot(dx, dy));
    if (covered > 0.05) cells.push(dx, dy, covered);
  }
  return Float32Array.from(cells);
}

function raster(context: CanvasRenderingContext2D, points: Points): Painter {
  let colours = new Uint32Array(0), image = context.createImageData(1, 1);
  return {
    kind: "canvas",
    update() { colours = new Uint32Array(points.colours.buffer as ArrayBuffer); },
    draw(camera, size, ratio, share) {
      sized(context.canvas, size, ratio);
      const { width, height } = context.canvas;
      if (image.width !== width || image.height !== height) image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer).fill(0);
      const across = diameter(camera, size, points) * ratio, small = across < 3;
      const scale = camera.scale * ratio, left = width / 2 - camera.x * scale, top = height / 2 + camera.y * scale;
      const square = Math.max(1, Math.round(across)), back = square >> 1, reach = Math.ceil(across / 2), cells = disc(across);
      const steps = Int32Array.from({ length: cells.length / 3 }, (_, i) => cells[3 * i]! + width * cells[3 * i + 1]!);
      const { x, y } = points;
      let drawn = 0;
      for (const [start, n] of runs(points, camera, size, across, share)) {
        drawn += n;
        for (let i = start, end = start + n; i < end; i++) {
          const px = (left + x[i]! * scale) | 0, py = (top - y[i]! * scale) | 0;
          if (px < reach || py < reach || px >= width - reach || py >= height - reach) continue;
          const colour = colours[i]!;
          if (small) {
            let at = (py - back) * width + px - back;
            for (let row = 0; row < square; row++, at += width) for (let column = 0; column < square; column++) pixels[at + column] = over(pixels[at + column]!, colour);
          } else {
            const middle = py * width + px;
            for (let cell = 0; cell < steps.length; cell++) {
              const at = middle + steps[cell]!, covered = cells[3 * cell + 2]!;
              pixels[at] = covered === 1 ? colour : edge(pixels[at]!, colour, covered);
            }
          }
        }
      }
      context.putImageData(image, 0, 0);
      return drawn;
    },
    free() {},
  };
}

// Half of each, in all four bytes at once; on nothing, the colour at two thirds.
const over = (under: number, colour: number): number =>
  under === 0 ? ((colour & 0x00ffffff) | 0xa8000000) >>> 0 : (((under >>> 1) & 0x7f7f7f7f) + ((colour >>> 1) & 0x7f7f7f7f) + 0x01010101) >>> 0;

// Part of a pixel: on nothing it is see-through, on another point it is mixed.
function edge(under: number, colour: number, covered: number): number {
  if (under === 0) return ((colour & 0x00ffffff) | (Math.round(covered * 255) << 24)) >>> 0;
  let mixed = 0;
  for (let shift = 0; shift < 24; shift += 8) {
    const a = (under >>> shift) & 255, b = (colour >>> shift) & 255;
    mixed |= Math.round(a + (b - a) * covered) << shift;
  }
  return (mixed | (Math.max(under >>> 24, Math.round(covered * 255)) << 24)) >>> 0;
}
