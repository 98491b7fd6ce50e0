// The page: a card for each file. Two at a time are sent to POST /predict, as the server decodes no more at once.

import { ask, isPrediction, isReadiness, isText } from "./server.js";

const AT_ONCE = 2;
// The API's warnings. One with a headline says that the model cannot judge the image: the headline replaces the class.
const WARNINGS = {
  uncalibrated: {
    sentence: "Not calibrated: the model came without a manifest, so the class and the probability may be off.",
  },
  uncertain: { sentence: "Uncertain: the probability is close to 50%, where the answer changes. Ask an expert." },
  not_a_chest_xray: {
    headline: "Not a chest X-ray?",
    sentence: "This does not look like the chest X-rays that the model was trained on: do not trust the answer.",
  },
  not_a_frontal_view: {
    headline: "Not a frontal view?",
    sentence:
      "This is not laid out like an upright frontal chest X-ray. The model knows no others: do not trust the answer.",
  },
  inverted: {
    sentence: "Bright and dark are swapped in this image, as in a negative. The model judged the inverted image.",
  },
  dicom_not_a_chest_radiograph: {
    headline: "Not a chest X-ray?",
    sentence: "The DICOM header says that this is not a chest X-ray: do not trust the answer.",
  },
  dicom_not_a_frontal_view: {
    headline: "Not a frontal view?",
    sentence: "The DICOM header says that this is not a frontal view. The model knows no others: do not trust the answer.",
  },
  dicom_for_processing: {
    headline: "Not meant for viewing?",
    sentence: "The DICOM header says that these are raw data, for processing: send the image that is meant for viewing.",
  },
};
const find = (id) => document.getElementById(id);
const xrays = new Set();
const waiting = [];
let sending = 0;

/** Ask the server to load its model, and show the release. */
async function loadModel() {
  try {
    const answer = await ask("ready?load=1", isReadiness);
    find("version").textContent = answer.model_version;
  } catch (error) {
    find("version").textContent = error.message;
  }
}

const percent = (share) => {
  if (share > 0.999 && share < 1) return "over 99.9%";
  if (share > 0.4994 && share < 0.5) return "under 50%"; // rounded, it would read like the other answer's
  return `${(100 * share).toFixed(1)}%`;
};

/** A file, its card on the page, and the server's answer. */
class Xray {
  constructor(file) {
    this.file = file;
    this.item = find("card").content.firstElementChild.cloneNode(true);
    this.done = false;
    this.part("h2").textContent = file.name || "Pasted image";
    this.part("remove").addEventListener("click", () => this.remove());
    this.part("retry").addEventListener("click", () => this.retry());
    this.part("explain").addEventListener("click", () => this.toggleHeatmap());
    this.slider.addEventListener("input", () => this.fadeHeatmap());
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

  get slider() {
    return this.part("opacity").querySelector("input");
  }

  part(name) {
    return this.item.querySelector(name === "h2" ? name : `.${name}`);
  }

  /** Put the file in the queue. */
  enqueue({ explain = false } = {}) {
    this.explain = explain;
    this.showError(null);
    this.part("state").textContent = "Waiting";
    this.part("state").hidden = false;
    this.setDone(false);
    waiting.push(this);
    sendNext();
  }

  retry() {
    this.card.focus(); // the button that has the focus disappears
    this.enqueue({ explain: this.explain });
  }

  /** Send the file, and show the answer or the error. */
  async send() {
    try {
      this.part("state").textContent = "Classifying …";
      if (!this.isShown) await this.showFile();
      this.showAnswer(await this.askAboutFile());
    } catch (error) {
      this.showError(error.message, error.canRetry);
    } finally {
      this.part("state").hidden = true;
      this.setDone(true);
    }
  }

  askAboutFile() {
    // A browser may rotate, brighten or blend an image differently from the server, but rarely a plain JPEG.
    const needsPreview = !this.hasPreview && (this.explain || !this.isShown || this.file.type !== "image/jpeg");
    const query = new URLSearchParams();
    if (this.explain) query.set("explain", "true");
    if (needsPreview) query.set("preview", "true");
    const form = new FormData();
    form.append("file", this.file, "xray"); // the file's own name may be a patient's
    return ask(query.size ? `predict?${query}` : "predict", isPrediction, { method: "POST", body: form });
  }

  /** Show the file before there is an answer, if the browser can; the server's preview may come with the answer. */
  async showFile() {
    const picture = this.part("xray");
    picture.src = this.url = URL.createObjectURL(this.file);
    try {
      await picture.decode();
      this.showPicture();
    } catch {
      picture.removeAttribute("src");
      this.revokeUrl();
    }
  }

  showPicture() {
    this.isShown = true;
    this.part("xray").alt = `X-ray ${this.name}`;
    this.part("xray").hidden = false;
    this.part("none").hidden = true;
  }

  showAnswer(answer) {
    if (answer.preview) this.showPreview(answer.preview);
    find("version").textContent = answer.model_version; // the server may load another release at any time
    this.part("class").textContent = answer.prediction;
    this.part("class").className = `class ${answer.prediction}`;
    this.part("confidence").textContent = `confidence ${percent(answer.confidence)}`;
    this.showProbability(answer.probabilities.PNEUMONIA);
    this.showWarnings(answer.warnings);
    this.part("verdict").hidden = false;
    this.part("explain").hidden = false;
    if (answer.heatmap) this.showHeatmap(answer.heatmap);
  }

  showPreview(jpeg) {
    this.part("xray").src = `data:image/jpeg;base64,${jpeg}`;
    this.hasPreview = true;
    this.revokeUrl();
    this.showPicture();
  }

  showWarnings(warnings) {
    const headline = warnings.map((warning) => WARNINGS[warning]?.headline).find(isText);
    this.part("headline").textContent = headline ?? "";
    this.part("headline").hidden = !headline;
    this.part("warnings").replaceChildren(...warnings.map((warning) => {
      const line = document.createElement("li");
      line.textContent = WARNINGS[warning]?.sentence ?? warning.replaceAll("_", " ");
      return line;
    }));
    this.part("warnings").hidden = warnings.length === 0;
  }

  /** Show the probability of pneumonia as a bar, with a mark at 50%, where the answer changes. */
  showProbability(probability) {
    this.part("fill").style.width = `${100 * probability}%`;
    const text = `Probability of pneumonia: ${percent(probability)}. `
      + "From 50% (the mark) upwards, the answer is PNEUMONIA.";
    this.part("bar").setAttribute("aria-label", text);
    this.part("legend").textContent = text;
  }

  toggleHeatmap() {
    if (!this.done) return;
    const isShown = this.part("explain").getAttribute("aria-pressed") === "true";
    if (!this.part("heatmap").src) this.enqueue({ explain: true });
    else this.setHeatmap(!isShown);
  }

  showHeatmap(png) {
    this.part("heatmap").src = `data:image/png;base64,${png}`;
    this.fadeHeatmap();
    this.setHeatmap(true);
  }

  setHeatmap(isShown) {
    for (const name of ["heatmap", "opacity", "colours"]) this.part(name).hidden = !isShown;
    this.part("explain").setAttribute("aria-pressed", String(isShown));
  }

  fadeHeatmap() {
    this.part("heatmap").style.opacity = this.slider.value / 100;
  }

  /** Show an error on the card, with a button to try again if that may help; null removes it. */
  showError(sentence, canRetry = false) {
    this.part("error").textContent = sentence ?? "";
    this.part("error").hidden = sentence === null;
    this.part("retry").hidden = !canRetry;
  }

  setDone(done) {
    this.done = done;
    this.card.setAttribute("aria-busy", String(!done));
    this.part("explain").setAttribute("aria-disabled", String(!done)); // `disabled` would take its focus away
    showProgress();
  }

  remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    if (waiting.includes(this)) waiting.splice(waiting.indexOf(this), 1);
    this.item.remove();
    xrays.delete(this);
    this.revokeUrl();
    (next?.querySelector(".remove") ?? find("files")).focus(); // near the button that had it
    showProgress();
  }

  revokeUrl() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }
}

/** Send the next files of the queue, AT_ONCE at most. */
function sendNext() {
  while (sending < AT_ONCE && waiting.length) {
    sending += 1;
    waiting.shift().send().finally(() => {
      sending -= 1;
      sendNext();
    });
  }
}

/** Show how many files are done; screen readers announce it. */
function showProgress() {
  const all = [...xrays];
  const done = all.filter((xray) => xray.done).length;
  find("progress").textContent = all.length ? `${done} of ${all.length} done` : "";
  find("clear").hidden = all.length < 2;
}

function add(files) {
  const added = [...files].map((file) => new Xray(file));
  for (const xray of added) xrays.add(xray); // all of them first, so that the progress counts them
  for (const xray of added) xray.enqueue();
}

find("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // otherwise choosing the same file again would do nothing
});
find("clear").addEventListener("click", () => {
  waiting.length = 0;
  for (const xray of xrays) xray.revokeUrl();
  xrays.clear();
  find("results").replaceChildren();
  find("files").focus(); // once and not for each card, as the browser lays out the page for it
  showProgress();
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
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
  add(event.dataTransfer.files);
});
loadModel();
