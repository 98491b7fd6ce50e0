// The page: a card for each file, sent to POST /predict one or two at a time, as the server decodes no more at once.

const AT_ONCE = 2;
const WARNINGS = {
  uncertain: "Uncertain: a little more or less would have changed the answer. Have an expert look.",
  not_a_chest_xray: "This does not look like the chest X-rays that the model knows: do not trust the answer.",
  dicom_not_a_chest_radiograph: "By its DICOM header this is no chest radiograph: do not trust the answer.",
  dicom_not_a_frontal_view:
    "By its DICOM header this is no frontal view, and the model knows no others: do not trust the answer.",
};
const UNREACHABLE = "The server does not answer: see that it runs and that you are online, and try again.";
// What a gateway in front of the server answers comes without a sentence of ours.
const GATEWAY = {
  413: "The file is too large for this server: save it as a JPEG, or smaller.",
  403: "This server wants signed requests, which a browser does not send: docs/deployment.md tells how to open it.",
  429: "The server has too much to do: try again in a moment.",
  504: "The server took too long: try again.",
};
const find = (id) => document.getElementById(id);
const model = { version: null, operatingPoint: null };
const waiting = [];
let running = 0;

/** Ask the server; return what it answers, or throw an Error whose message is a sentence for people. */
async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error(UNREACHABLE);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Error(answer?.detail ?? GATEWAY[response.status] ?? `The server answered ${response.status}: try again.`);
}

/** Learn which release answers, and its operating point; this also warms the server up. */
async function learnModel() {
  try {
    const answer = await ask("ready?load=1");
    [model.version, model.operatingPoint] = [answer.model_version, answer.operating_point];
    find("version").textContent = model.version;
  } catch (error) {
    find("version").textContent = error.message;
  }
}

const percent = (share) => {
  if (share > 0.999 && share < 1) return "over 99.9%";
  return `${(100 * share).toFixed(1)}%`;
};

/** A file, its card, and what was said about it. */
class Xray {
  constructor(file) {
    this.file = file;
    this.item = find("result").content.firstElementChild.cloneNode(true);
    this.needsPreview = false;
    this.done = false;
    this.part("h2").textContent = file.name || "Pasted image";
    this.part("remove").addEventListener("click", () => this.remove());
    this.part("retry").addEventListener("click", () => this.send());
    this.part("explain").addEventListener("click", () => this.toggleHeatmap());
    this.part("opacity").querySelector("input").addEventListener("input", (event) => this.fade(event.target.value));
    for (const [button, verb] of [["remove", "Remove"], ["retry", "Try again:"], ["explain", "Heatmap of"]]) {
      this.part(button).setAttribute("aria-label", `${verb} ${this.name}`);
    }
    find("results").append(this.item);
  }

  get name() {
    return this.part("h2").textContent;
  }

  part(name) {
    return this.item.querySelector(name === "h2" ? name : `.${name}`);
  }

  /** Put it in the queue. */
  send({ explain = false } = {}) {
    this.explain = explain;
    this.say(null);
    this.part("state").textContent = "Waiting";
    this.part("state").hidden = false;
    this.setBusy(true);
    waiting.push(this);
    advance();
  }

  async run() {
    try {
      this.part("state").textContent = "Being looked at …";
      if (!this.isShown) await this.showFile();
      const query = new URLSearchParams();
      if (this.explain) query.set("explain", "true");
      if (this.needsPreview) query.set("preview", "true");
      const form = new FormData();
      form.append("file", this.file, "xray"); // under no name of its own: it may be a patient's
      this.show(await ask(query.size ? `predict?${query}` : "predict", { method: "POST", body: form }));
    } catch (error) {
      this.say(error.message);
    } finally {
      this.part("state").hidden = true;
      this.done = true;
      this.setBusy(false);
    }
  }

  /** Show the file itself, where the browser can; the server's preview comes with the answer where it cannot. */
  async showFile() {
    const picture = this.part("xray");
    picture.src = this.url = URL.createObjectURL(this.file);
    try {
      await picture.decode();
      this.reveal();
    } catch {
      this.needsPreview = true;
      picture.removeAttribute("src");
      this.forget();
    }
  }

  reveal() {
    this.isShown = true;
    this.needsPreview = false;
    this.part("xray").alt = `X-ray ${this.name}`;
    this.part("xray").hidden = false;
    this.part("none").hidden = true;
  }

  show(answer) {
    if (answer.preview) {
      this.part("xray").src = `data:image/jpeg;base64,${answer.preview}`;
      this.reveal();
    }
    if (answer.model_version !== model.version) learnModel().then(() => this.mark(answer));
    this.part("class").textContent = answer.prediction;
    this.part("class").className = `class ${answer.prediction}`;
    this.part("confidence").textContent = `confidence ${percent(answer.confidence)}`;
    this.mark(answer);
    this.part("said").hidden = false;
    this.part("warnings").replaceChildren(...answer.warnings.map((warning) => {
      const line = document.createElement("li");
      line.textContent = WARNINGS[warning] ?? warning.replaceAll("_", " ");
      return line;
    }));
    this.part("warnings").hidden = answer.warnings.length === 0;
    this.part("explain").hidden = false;
    if (answer.heatmap) this.showHeatmap(answer.heatmap);
  }

  /** Draw the probability of pneumonia as a bar, with the operating point on it. */
  mark(answer) {
    const probability = answer.probabilities.PNEUMONIA;
    this.part("fill").style.width = `${100 * probability}%`;
    const point = model.operatingPoint;
    this.part("point").hidden = point === null;
    if (point !== null) this.part("point").style.left = `${100 * point}%`;
    const text = `Probability of pneumonia ${percent(probability)}`
      + (point === null ? "." : `; from the operating point, ${percent(point)}, on the answer is PNEUMONIA.`);
    this.part("bar").setAttribute("aria-label", text);
    this.part("legend").textContent = text;
  }

  toggleHeatmap() {
    const shown = this.part("explain").getAttribute("aria-pressed") === "true";
    if (!this.part("heatmap").src) this.send({ explain: true });
    else this.setHeatmap(!shown);
  }

  showHeatmap(png) {
    this.part("heatmap").src = `data:image/png;base64,${png}`;
    this.fade(this.part("opacity").querySelector("input").value);
    this.setHeatmap(true);
  }

  setHeatmap(shown) {
    for (const name of ["heatmap", "opacity", "colours"]) this.part(name).hidden = !shown;
    this.part("explain").setAttribute("aria-pressed", String(shown));
  }

  fade(value) {
    this.part("heatmap").style.opacity = value / 100;
  }

  /** Say what is wrong, beside the file; null takes it back. */
  say(sentence) {
    this.part("error").textContent = sentence ?? "";
    this.part("error").hidden = sentence === null;
    this.part("retry").hidden = sentence === null;
  }

  setBusy(busy) {
    this.item.firstElementChild.setAttribute("aria-busy", String(busy));
    this.part("explain").disabled = busy;
    tell();
  }

  remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    if (waiting.includes(this)) waiting.splice(waiting.indexOf(this), 1);
    this.item.remove();
    xrays.delete(this);
    this.forget();
    (next?.querySelector(".remove") ?? find("files")).focus(); // where the keyboard was
    tell();
  }

  forget() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }
}

const xrays = new Set();

/** Send what waits, as far as the server takes it at once. */
function advance() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    waiting.shift().run().finally(() => {
      running -= 1;
      advance();
    });
  }
}

/** Tell how far it is, also to those who do not see the cards. */
function tell() {
  const all = [...xrays];
  const done = all.filter((xray) => xray.done).length;
  find("progress").textContent = all.length ? `${done} of ${all.length} done` : "";
  find("clear").hidden = all.length < 2;
}

function take(files) {
  const added = [...files].map((file) => new Xray(file));
  for (const xray of added) xrays.add(xray);
  for (const xray of added) xray.send();
}

find("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
find("clear").addEventListener("click", () => {
  for (const xray of [...xrays]) xray.remove();
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
learnModel();
