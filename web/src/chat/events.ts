// Server-sent events out of a body whose bytes are cut anywhere. What the events say is not known here.

const END = /\r\n|\n|\r(?!$)/; // a \r at the very end may be half of \r\n

/** Takes text as it comes and gives back the data of the events that are whole. */
export class EventReader {
  #rest = "";
  #data: string[] = [];

  push(text: string): string[] {
    const found: string[] = [];
    this.#rest += text;
    for (let end = END.exec(this.#rest); end; end = END.exec(this.#rest)) {
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line === "" && this.#data.length) found.push(this.#data.splice(0).join("\n"));
    }
    return found;
  }
}

/** The data of each event, as it is whole. Whoever stops listening closes the connection. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const bytes = body.getReader(), letters = new TextDecoder(), reader = new EventReader();
  try {
    for (;;) {
      const { done, value } = await bytes.read();
      yield* reader.push(letters.decode(value, { stream: !done }));
      if (done) return;
    }
  } finally {
    await bytes.cancel().catch(() => {}); // what was cut off already has nothing left to close
  }
}
