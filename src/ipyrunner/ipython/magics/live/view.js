// The live view in the browser. It tells the kernel while it is visible, and draws what the kernel sends.
const AGAIN = 5000; // milliseconds between two such messages: the kernel counts a view as seen for three times as long
const SILENT = 5000; // milliseconds without a message, beyond the announced pause, until this is said
const SHOWN = 10000; // milliseconds that the answer to a button is shown
const LAGS = 120; // points of the line: one for each half second of the last minute
const WIDTH = 120, HEIGHT = 18;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "line"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function age(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60), rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${rest} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function lag(milliseconds) {
  return milliseconds < 999.5 ? `${Math.round(milliseconds)} ms` : age(milliseconds / 1000);
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // setting the same text again would lose a selection
}

class Lag {
  constructor() {
    this.line = make("polyline");
    this.label = make("span");
    const svg = make("svg", { width: WIDTH, height: HEIGHT, "aria-hidden": "true" },
      make("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }), this.line);
    this.node = make("div", { class: "ipyrunner-lag", title: "How long the event loop takes to answer: the last minute" },
      this.label, svg);
  }

  draw(lags) {
    this.node.hidden = !lags.length;
    if (!lags.length) return;
    const most = Math.max(...lags), top = Math.max(most, 20);
    const x = (i) => WIDTH - (lags.length - 1 - i) * WIDTH / (LAGS - 1);
    const y = (milliseconds) => HEIGHT - 1.5 - (HEIGHT - 3) * milliseconds / top;
    this.line.setAttribute("points", lags.map((each, i) => `${x(i).toFixed(1)},${y(each).toFixed(1)}`).join(" "));
    setText(this.label, `lag ${lag(lags.at(-1))}, at most ${lag(most)}`);
  }
}

class Rows {
  constructor(act) {
    this.act = act;
    this.body = make("tbody");
    this.rows = new Map();
    const heads = ["task", "state", "age", "waits for", "actions"].map((head) => make("th", { scope: "col" }, head));
    this.node = make("table", { "aria-label": "tasks of the event loop" }, make("thead", {}, make("tr", {}, ...heads)), this.body);
  }

  make(row, loop) {
    const cells = ["name", "state", "age", "where", "actions"].map((name) => make("td", { class: `ipyrunner-${name}` }));
    if (row.kind !== "past") {
      const actions = row.kind === "cell" ? ["cancel", "background"] : ["cancel"];
      for (const action of actions) {
        const text = action === "background" ? "to the background" : action;
        const button = make("button", { type: "button" }, text);
        button.addEventListener("click", () => this.act(action, row.number, loop));
        cells[4].append(button);
      }
    }
    return { node: make("tr", { "data-kind": row.kind }, ...cells), cells };
  }

  draw(rows, loop) {
    const keyOf = (row) => `${loop} ${row.kind} ${row.key}`; // each loop counts its tasks from one
    const keys = new Set(rows.map(keyOf));
    for (const [key, shown] of this.rows) {
      if (!keys.has(key)) {
        shown.node.remove();
        this.rows.delete(key);
      }
    }
    let before = null;
    for (const row of rows) {
      const key = keyOf(row);
      if (!this.rows.has(key)) this.rows.set(key, this.make(row, loop));
      const { node, cells } = this.rows.get(key);
      node.dataset.state = row.state;
      cells[0].style.paddingLeft = `${16 * row.depth}px`;
      setText(cells[0], row.name);
      cells[0].title = row.name;
      setText(cells[1], row.state);
      setText(cells[2], row.age === null ? "" : age(row.age));
      setText(cells[3], row.where);
      cells[3].title = row.where;
      for (const button of cells[4].children) button.setAttribute("aria-label", `${button.textContent}: ${row.name}`);
      // Move a row only if its place has changed: a button that is moved in the page loses the keyboard's focus.
      const place = before ? before.nextSibling : this.body.firstChild;
      if (place !== node) this.body.insertBefore(node, place);
      before = node;
    }
  }
}

function render({ model, el }) {
  const view = Math.random().toString(36).slice(2);
  const act = (action, number, loop) => model.send({ type: action, number, loop });
  const curve = new Lag(), rows = new Rows(act);
  const status = make("span"), said = make("span", { class: "ipyrunner-said", role: "status" });
  const answer = make("span", { class: "ipyrunner-answer", role: "status" });
  const rest = make("p", { class: "ipyrunner-rest" }), deadlocks = make("p", { class: "ipyrunner-deadlocks" });
  const table = make("pre", {}, model.get("table"));
  const live = make("div", { class: "ipyrunner-scroll", hidden: "" }, deadlocks, rows.node, rest);
  curve.node.hidden = true;
  el.append(make("div", { class: "ipyrunner-live", role: "region", "aria-label": "asyncio tasks" },
    make("div", { class: "ipyrunner-head" }, status, answer, said, curve.node), table, live));

  // The second text is read aloud, once: it does not change.
  function warn(text, aloud) {
    status.className = "ipyrunner-blocked";
    live.classList.add("ipyrunner-old");
    curve.node.hidden = true; // the last answer's lag is not the present one
    setText(status, text);
    setText(said, aloud);
  }

  let heard = 0, pause = 0, forgetting;

  function onMessage(message) {
    heard = Date.now();
    if (message.type === "blocked") {
      warn(`blocked for ${message.seconds} s${message.where}`, `the event loop is blocked${message.where}`);
    } else if (message.type === "done") {
      setText(answer, message.text);
      clearTimeout(forgetting);
      forgetting = setTimeout(() => setText(answer, ""), SHOWN);
    } else if (message.type === "tasks") {
      if (status.className) setText(said, "the event loop runs again");
      status.className = "";
      live.classList.remove("ipyrunner-old");
      setText(status, message.total === 1 ? "1 task" : message.total ? `${message.total.toLocaleString("en")} tasks` : "no tasks");
      table.hidden = true;
      live.hidden = false;
      rows.draw(message.rows, message.loop);
      rows.node.hidden = !message.rows.length;
      setText(rest, message.rest);
      setText(deadlocks, message.deadlocks.join("\n"));
      deadlocks.hidden = !message.deadlocks.length;
      curve.draw(message.lags);
      pause = message.pause * 1000;
    }
  }

  let seen = false;
  const isSeen = () => seen && document.visibilityState === "visible";
  const say = () => model.send({ type: "seen", view, seen: isSeen() });
  const observer = new IntersectionObserver((entries) => {
    seen = entries.at(-1).isIntersecting;
    say();
  });
  const again = setInterval(() => {
    if (isSeen()) say();
  }, AGAIN);
  // Nor does the kernel's watching thread answer if code holds the GIL, or if the kernel has ended.
  let asked = Date.now(), looked = asked;
  const listening = setInterval(() => {
    const now = Date.now();
    if (!isSeen() || now - looked > SILENT) asked = now; // later than it should: the browser or the computer has slept
    looked = now;
    const silence = now - Math.max(heard + pause, asked);
    if (heard && silence > SILENT) {
      warn(`no answer from the kernel for ${Math.floor(silence / 1000)} s`, "the kernel does not answer");
    }
  }, 1000);
  model.on("msg:custom", onMessage);
  document.addEventListener("visibilitychange", say);
  observer.observe(el);
  return () => {
    seen = false;
    say();
    observer.disconnect();
    clearInterval(again);
    clearInterval(listening);
    clearTimeout(forgetting);
    document.removeEventListener("visibilitychange", say);
    model.off("msg:custom", onMessage);
  };
}

export default { render };
