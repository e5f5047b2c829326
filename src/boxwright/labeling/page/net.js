// Actions go to the server in order, each until it is answered: a server that was away has missed none.

export async function get(place) {
  const response = await fetch(place);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error || response.statusText);
  return content;
}

// crypto.randomUUID is for https and localhost alone.
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export class Outbox {
  constructor(told) {
    this.told = told;  // (waiting, trouble)
    this.queue = [];
    this.busy = false;
  }

  // `make` gives the action when its turn comes, as its box's number and version come from the one before;
  // `done` and `failed` are called before the next one's turn.
  send(make, done, failed) {
    this.queue.push({ make, done, failed });
    this.told(this.queue.length, "");
    this.run();
  }

  async run() {
    if (this.busy) return;
    this.busy = true;
    while (this.queue.length) {
      const { make, done, failed } = this.queue[0];
      const body = JSON.stringify({ key: newKey(), ...make() });
      const { response, content } = await this.post(body);
      this.queue.shift();
      if (response.ok) done(content);
      else failed(Object.assign(new Error(content.error || "refused"), { box: content.box }));
      this.told(this.queue.length, "");
    }
    this.busy = false;
  }

  async post(body) {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body };
    for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
      try {
        const response = await fetch("/api/actions", options);
        if (response.status < 500) return { response, content: await response.json() };
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;  // the network's own error is a TypeError
      }
      this.told(this.queue.length, "the server doesn't answer; nothing is lost while this page is open");
      await wait(pause);
    }
  }
}
