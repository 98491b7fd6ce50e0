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
const FOREIGN = "What answered is not this server: see that the address is right.";
// What a gateway in front of the server answers comes without a sentence of ours.
const GATEWAY = {
  413: "The file is too large for this server: save it as a JPEG, or smaller.",
  403: "This server wants signed requests, which a browser does not send: docs/deployment.md tells how to open it.",
  429: "The server has too much to do: try again in a moment.",
  504: "The server took too long: try again.",
};
const find = (id) => document.getElementById(id);
const operatingPoints = new Map(); // by release: the server may change it, and several servers may have several
let isLearning = false;
const waiting = [];
let running = 0;

const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number";
const isReadiness = (answer) => isText(answer?.model_version) && isNumber(answer.operating_point);
const isPrediction = (answer) => isText(answer?.prediction) && isText(answer.model_version) && isNumber(answer.confidence)
  && isNumber(answer.probabilities?.PNEUMONIA) && Array.isArray(answer.warnings) && answer.warnings.every(isText);

/** Return an Error with a sentence for people, and whether trying again may help. */
function failure(sentence, mayPass) {
  return Object.assign(new Error(sentence), { mayPass });
}

/** Ask the server; return what it answers, which `isOurs` knows by its shape, or throw a failure. */
async function ask(address, isOurs, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw failure(UNREACHABLE, true);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && isOurs(answer)) return answer;
  if (response.ok) throw failure(FOREIGN, false);
  const { status } = response;
  const mayPass = status === 403 || status === 429 || status >= 500; // the same file gets the same answer otherwise
  const sentence = isText(answer?.detail) ? answer.detail : GATEWAY[status];
  throw failure(sentence ?? `The server answered ${status}${mayPass ? ": try again." : "."}`, mayPass);
}

/** Learn which release answers, and its operating point, once at a time; this also warms the server up. */
async function learnModel() {
  if (isLearning) return;
  isLearning = true;
  try {
    const answer = await ask("ready?load=1", isReadiness);
    operatingPoints.set(answer.model_version, answer.operating_point);
    find("version").textContent = answer.model_version;
    for (const xray of xrays) xray.mark();
  } catch (error) {
    find("version").textContent = error.message;
  } finally {
    isLearning = false;
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
    this.done = false;
    this.part("h2").textContent = file.name || "Pasted image";
    this.part("remove").addEventListener("click", () => this.remove());
    this.part("retry").addEventListener("click", () => this.retry());
    this.part("explain").addEventListener("click", () => this.toggleHeatmap());
    this.part("opacity").querySelector("input").addEventListener("input", (event) => this.fade(event.target.value));
    for (const [button, verb] of [["remove", "Remove"], ["retry", "Try again:"], ["explain", "Heatmap of"]]) {
      this.part(button).setAttribute("aria-label", `${verb} ${this.name}`);
    }
    this.card.setAttribute("aria-label", this.name);
    find("results").append(this.item);
  }

  get name() {
    return this.part("h2").textContent;
  }

  get card() {
    return this.item.firstElementChild;
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
    this.setDone(false);
    waiting.push(this);
    advance();
  }

  /** Ask once more for what failed. */
  retry() {
    this.card.focus(); // the button that had the focus disappears
    this.send({ explain: this.explain });
  }

  async run() {
    try {
      this.part("state").textContent = "Being looked at …";
      if (!this.isShown) await this.showFile();
      // A browser turns, brightens or blends some files otherwise than the model saw them, plain JPEGs seldom.
      const needsPreview = !this.hasPreview && (this.explain || !this.isShown || this.file.type !== "image/jpeg");
      const query = new URLSearchParams();
      if (this.explain) query.set("explain", "true");
      if (needsPreview) query.set("preview", "true");
      const form = new FormData();
      form.append("file", this.file, "xray"); // under no name of its own: it may be a patient's
      this.show(await ask(query.size ? `predict?${query}` : "predict", isPrediction, { method: "POST", body: form }));
    } catch (error) {
      this.say(error.message, error.mayPass);
    } finally {
      this.part("state").hidden = true;
      this.setDone(true);
    }
  }

  /** Show the file itself at once, where the browser can; the server's preview may come with the answer. */
  async showFile() {
    const picture = this.part("xray");
    picture.src = this.url = URL.createObjectURL(this.file);
    try {
      await picture.decode();
      this.reveal();
    } catch {
      picture.removeAttribute("src");
      this.forget();
    }
  }

  reveal() {
    this.isShown = true;
    this.part("xray").alt = `X-ray ${this.name}`;
    this.part("xray").hidden = false;
    this.part("none").hidden = true;
  }

  show(answer) {
    this.answer = answer;
    if (answer.preview) {
      this.part("xray").src = `data:image/jpeg;base64,${answer.preview}`;
      this.hasPreview = true;
      this.forget();
      this.reveal();
    }
    if (!operatingPoints.has(answer.model_version)) learnModel();
    this.part("class").textContent = answer.prediction;
    this.part("class").className = `class ${answer.prediction}`;
    this.part("confidence").textContent = `confidence ${percent(answer.confidence)}`;
    this.mark();
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

  /** Draw the probability of pneumonia as a bar, with the operating point of the release that answered, if known. */
  mark() {
    if (!this.answer) return;
    const probability = this.answer.probabilities.PNEUMONIA;
    this.part("fill").style.width = `${100 * probability}%`;
    const point = operatingPoints.get(this.answer.model_version);
    const isKnown = point !== undefined;
    this.part("point").hidden = !isKnown;
    if (isKnown) this.part("point").style.left = `${100 * point}%`;
    const text = `Probability of pneumonia ${percent(probability)}.`
      + (isKnown ? ` From ${percent(point)} on, the mark, the answer is PNEUMONIA.` : "");
    this.part("bar").setAttribute("aria-label", text);
    this.part("legend").textContent = text;
  }

  toggleHeatmap() {
    if (!this.done) return;
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

  /** Say what is wrong, beside the file, and offer to try again where that may help; null takes it back. */
  say(sentence, mayPass = false) {
    this.part("error").textContent = sentence ?? "";
    this.part("error").hidden = sentence === null;
    this.part("retry").hidden = !mayPass;
  }

  setDone(done) {
    this.done = done;
    this.card.setAttribute("aria-busy", String(!done));
    this.part("explain").setAttribute("aria-disabled", String(!done)); // `disabled` would take the focus from it
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
  waiting.length = 0;
  for (const xray of xrays) xray.forget();
  xrays.clear();
  find("results").replaceChildren();
  find("files").focus(); // once, not for each card: it has the browser lay out the page anew
  tell();
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
