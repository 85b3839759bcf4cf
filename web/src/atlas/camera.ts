// Where the map is looked at from: its centre in map units and its scale in CSS pixels for one unit. Arithmetic only.

export interface Camera { x: number; y: number; scale: number }
export interface Size { width: number; height: number }
export interface Box { left: number; bottom: number; right: number; top: number }

const MOST_ZOOM = 14; // powers of two beyond the whole map
const LEAST_ZOOM = -2;

/** The camera that shows the whole box. */
export function fit(box: Box, size: Size, margin = 28): Camera {
  const width = Math.max(box.right - box.left, 1e-6), height = Math.max(box.top - box.bottom, 1e-6);
  const scale = Math.min(Math.max(40, size.width - 2 * margin) / width, Math.max(40, size.height - 2 * margin) / height);
  return { x: (box.left + box.right) / 2, y: (box.bottom + box.top) / 2, scale };
}

export const toScreen = (camera: Camera, size: Size, x: number, y: number): [number, number] =>
  [size.width / 2 + (x - camera.x) * camera.scale, size.height / 2 - (y - camera.y) * camera.scale];

export const toMap = (camera: Camera, size: Size, left: number, top: number): [number, number] =>
  [camera.x + (left - size.width / 2) / camera.scale, camera.y - (top - size.height / 2) / camera.scale];

/** Zoomed by a factor, so that what lies under (left, top) stays there. */
export function zoomAt(camera: Camera, size: Size, left: number, top: number, factor: number, whole: Camera): Camera {
  const scale = Math.min(Math.max(camera.scale * factor, whole.scale * 2 ** LEAST_ZOOM), whole.scale * 2 ** MOST_ZOOM);
  const [x, y] = toMap(camera, size, left, top);
  return { x: x - (left - size.width / 2) / scale, y: y + (top - size.height / 2) / scale, scale };
}

export const pan = (camera: Camera, right: number, down: number): Camera =>
  ({ ...camera, x: camera.x - right / camera.scale, y: camera.y + down / camera.scale });

export function seen(camera: Camera, size: Size, margin = 0): Box {
  const [left, top] = toMap(camera, size, -margin, -margin);
  const [right, bottom] = toMap(camera, size, size.width + margin, size.height + margin);
  return { left, bottom, right, top };
}

/** The camera in an address: centre and powers of two beyond the whole map, so that it means the same in a window of another size. */
export const writeCamera = (camera: Camera, whole: Camera): string =>
  [camera.x.toFixed(3), camera.y.toFixed(3), Math.log2(camera.scale / whole.scale).toFixed(2)].map(Number).join(",");

export function readCamera(text: string | undefined, whole: Camera): Camera {
  const [x, y, zoom] = (text ?? "").split(",").map(Number);
  if (x === undefined || y === undefined || zoom === undefined || ![x, y, zoom].every(Number.isFinite)) return whole;
  return { x, y, scale: whole.scale * 2 ** Math.min(Math.max(zoom, LEAST_ZOOM), MOST_ZOOM) };
}
