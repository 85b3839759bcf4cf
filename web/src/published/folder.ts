// Bytes of a published folder, fetched by range. What is wrong with a host or with a copy of the folder is said in words.
import { ApiError } from "../facts";

const RANGES = "Put the folder on a host that answers range requests, such as nginx, Caddy, S3 or GitHub Pages. On this machine, `mohole serve FOLDER` is one; `python -m http.server` is not.";
const AGAIN = "Copy the folder there again, whole; `mohole publish` writes it.";

export class Folder {
  /** `edition` changes with the content: no cache then mixes two publications. */
  constructor(readonly base: URL, readonly edition: string) {}

  /** Bytes [first, last) of a file. */
  async range(name: string, first: number, last: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const url = new URL(name, this.base);
    url.searchParams.set("v", this.edition);
    const stop = new AbortController();
    const response = await asked(url, { headers: { Range: `bytes=${first}-${last - 1}` }, signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal });
    if (response.status === 200) {
      stop.abort(); // the whole file comes: it may be gigabytes
      throw new ApiError(200, `This host sends whole files where a part is asked for, so the features cannot be read from it (${name}).`, RANGES);
    }
    if (response.status === 416) throw new ApiError(416, `${name}: it ends before byte ${last}, so the copy is not whole.`, AGAIN);
    if (response.status !== 206) throw new ApiError(response.status, `${name}: the host answered ${response.status} ${response.statusText}.`, AGAIN);
    const bytes = await read(response, name, signal);
    if (bytes.byteLength !== last - first) throw new ApiError(206, `${name}: ${bytes.byteLength} bytes came where ${last - first} were asked for, so the copy is not whole, or the host compresses what it sends.`, AGAIN);
    return new Uint8Array(bytes);
  }
}

/** A small file as JSON, asked for anew: its name stays when the folder is published again. */
export async function json<T>(url: URL): Promise<T> {
  const response = await asked(url, { cache: "no-cache" });
  if (!response.ok) throw new ApiError(response.status, `${nameOf(url)}: the host answered ${response.status} ${response.statusText}.`, AGAIN);
  const text = new TextDecoder().decode(await read(response, nameOf(url)));
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(response.status, `${nameOf(url)}: damaged, it is no JSON.`, AGAIN);
  }
}

/** Raises if the host answers a request for one byte with anything but that byte. */
export async function needsRanges(url: URL): Promise<void> {
  const stop = new AbortController();
  const response = await asked(url, { cache: "no-store", headers: { Range: "bytes=0-0" }, signal: stop.signal });
  stop.abort();
  if (response.status === 200) throw new ApiError(200, "This host does not answer range requests: asked for one byte, it sends the whole file. The features cannot be read from it.", RANGES);
}

export const damaged = (what: string): ApiError => new ApiError(0, `${what}: damaged.`, AGAIN);

async function asked(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    throw isAbort(error) ? error : new ApiError(0, "The host does not answer.", "Is there a connection? If the folder is on this machine, is its server still running?");
  }
}

async function read(response: Response, name: string, signal?: AbortSignal): Promise<ArrayBuffer> {
  try {
    return await response.arrayBuffer();
  } catch (error) {
    throw isAbort(error) && signal?.aborted ? error : new ApiError(response.status, `${name}: the host broke off while it was sent.`, AGAIN);
  }
}

const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";
const nameOf = (url: URL): string => url.pathname.split("/").pop() ?? "";
