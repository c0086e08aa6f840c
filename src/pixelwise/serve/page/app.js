// The page: images in, masks over them, classes, downloads.

import { ServiceError, fetchSample, listModels, segment, setToken } from "./api.js";
import { TEXTS } from "./texts.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const items = [];
let models = [];
let current = null;
let language = localStorage.getItem("language")
  ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
const t = (key, ...values) => {
  const text = TEXTS[language][key];
  return typeof text === "function" ? text(...values) : text;
};
const viewer = new Viewer($("stage"), $("canvas"), showPixel);
window.viewer = viewer; // for the console and the tests

function translate() {
  document.documentElement.lang = language;
  $("language").value = language;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
  if (current) describe();
}

function fail(error) {
  $("status").textContent = "";
  const lost = !(error instanceof ServiceError);
  if (error.status === 401) {
    $("token").hidden = false;
    $("token-value").focus();
    $("error").textContent = t("needsToken");
  } else {
    $("error").textContent = lost ? `${t("unreachable")} (${error.message})` : error.message;
  }
}

async function loadModels() {
  try {
    models = await listModels();
  } catch (error) {
    fail(error);
    return;
  }
  $("error").textContent = "";
  $("token").hidden = true;
  $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
}

// The pixels of an 8-bit gray PNG in base64.
async function decodeGray(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const gray = new Uint8Array(bitmap.width * bitmap.height);
  for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
  return { gray, width: bitmap.width, height: bitmap.height };
}

const background = (classes) => classes.find(({ name }) => name.toLowerCase() === "background")?.name;

function cleaning(classes) {
  const fill = $("fill-holes").checked && background(classes) !== undefined;
  return {
    min_area: Math.max(0, Math.floor($("min-area").valueAsNumber || 0)),
    ...(fill ? { fill_holes: true, background: background(classes) } : {}),
  };
}

async function predict(file, modelName = $("model").value) {
  const model = models.find(({ name }) => name === modelName) ?? models[0];
  const options = { model: model.name, ...cleaning(model.classes) };
  const name = file.name || "image";
  $("error").textContent = "";
  $("status").textContent = t("working", name);
  const start = performance.now();
  const busy = () => { $("status").textContent = t("busy"); };
  const response = await segment(file, options, "labels,confidence,table", busy);
  const answer = await response.json();
  const labels = await decodeGray(answer.labels);
  const confidence = await decodeGray(answer.confidence);
  let bitmap = await createImageBitmap(file).catch(() => null);
  // The service may turn an image that this browser leaves as it is.
  if (bitmap?.width !== labels.width || bitmap.height !== labels.height) bitmap = null;
  const seconds = ((performance.now() - start) / 1000).toFixed(2);
  $("status").textContent = t("done", name, seconds) + (bitmap ? "" : ` ${t("noPreview")}`);
  return {
    file, name, bitmap, options, classes: model.classes, table: answer.table.classes,
    flagged: answer.table.flagged,
    labels: labels.gray, width: labels.width, height: labels.height, confidence: confidence.gray,
    visible: model.classes.map(() => true),
  };
}

async function add(files) {
  for (const file of files) {
    try {
      if (!models.length) await loadModels();
      if (!models.length) return;
      const item = await predict(file);
      items.push(item);
      select(item);
    } catch (error) {
      fail(error);
      if (error.status === 401) return;
    }
  }
}

// Segments the current image again after an option has changed.
async function again() {
  const before = current;
  if (!before) return;
  try {
    const item = { ...await predict(before.file, before.options.model), visible: before.visible };
    items[items.indexOf(before)] = item;
    if (current === before) select(item);
  } catch (error) {
    fail(error);
  }
}

function select(item) {
  current = item;
  $("result").hidden = false;
  describe();
  viewer.show(item);
  $("strip").hidden = items.length < 2;
  $("strip").replaceChildren(...items.map(thumbnail));
}

function thumbnail(item) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-current", String(item === current));
  const canvas = document.createElement("canvas");
  canvas.width = 112;
  canvas.height = 64;
  if (item.bitmap) canvas.getContext("2d").drawImage(item.bitmap, 0, 0, 112, 64);
  const name = document.createElement("span");
  name.textContent = item.name;
  button.append(canvas, name);
  button.addEventListener("click", () => select(item));
  return button;
}

const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);

// The classes from the largest to the smallest; absent ones are left out.
function describe() {
  $("stage").setAttribute("aria-label", t("alternative", current.name));
  $("flagged").hidden = !current.flagged;
  $("min-area").value = current.options.min_area;
  $("fill-holes").checked = "fill_holes" in current.options;
  $("fill-holes-row").hidden = background(current.classes) === undefined;
  const rows = current.table.map((row, index) => ({ ...row, index })).filter(({ pixels }) => pixels);
  rows.sort((a, b) => b.pixels - a.pixels);
  $("classes").replaceChildren(...rows.map((row) => {
    const entry = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = current.visible[row.index];
    box.addEventListener("change", () => {
      current.visible[row.index] = box.checked;
      viewer.paintMask();
    });
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${current.classes[row.index].color.join(" ")})`;
    const name = document.createElement("span");
    name.textContent = row.class;
    const share = document.createElement("span");
    share.className = "share";
    share.textContent = percent(row.share);
    label.append(box, swatch, name, share);
    entry.append(label);
    return entry;
  }));
}

function showPixel(pixel) {
  if (!pixel || !current) {
    $("readout").textContent = "";
    return;
  }
  const [x, y] = pixel;
  const at = y * current.width + x;
  const index = current.labels[at];
  const name = current.classes[index]?.name ?? t("ignored");
  const confidence = Math.round((100 * current.confidence[at]) / 255);
  $("readout").textContent = t("readout", name, confidence, x, y);
}

const CSV_COLUMNS = ["class", "pixels", "share", "components", "largest_component", "mean_confidence"];
const cell = (value) => {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

async function download(kind) {
  const { file, name, options, table } = current;
  const stem = name.replace(/\.[^.]*$/, "");
  let blob;
  if (kind === "table") {
    const lines = [CSV_COLUMNS, ...table.map((row) => CSV_COLUMNS.map((column) => row[column]))];
    blob = new Blob([lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" });
  } else {
    blob = await (await segment(file, options, kind)).blob();
  }
  const suffix = { mask: ".png", overlay: "_overlay.png", polygons: ".geojson", table: ".csv" }[kind];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = stem + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

$("choose").addEventListener("click", () => $("files").click());
$("camera").addEventListener("click", () => $("photo").click());
for (const id of ["files", "photo"]) {
  $(id).addEventListener("change", async ({ target }) => {
    await add([...target.files]);
    target.value = "";
  });
}
$("sample").addEventListener("click", async () => {
  try {
    await add([new File([await fetchSample()], "sample.png", { type: "image/png" })]);
  } catch (error) {
    fail(error);
  }
});
document.addEventListener("paste", ({ clipboardData }) => add([...clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
$("opacity").addEventListener("input", ({ target }) => {
  viewer.opacity = target.value / 100;
  viewer.draw();
});
$("divider").addEventListener("input", ({ target }) => {
  viewer.divider = target.value / 100;
  viewer.draw();
});
for (const id of ["min-area", "fill-holes"]) $(id).addEventListener("change", again);
$("zoom-in").addEventListener("click", () => viewer.zoom(1.25));
$("zoom-out").addEventListener("click", () => viewer.zoom(0.8));
$("zoom-fit").addEventListener("click", () => viewer.fit());
$("downloads").addEventListener("click", ({ target }) => {
  if (target.dataset.download) download(target.dataset.download).catch(fail);
});
$("language").addEventListener("change", ({ target }) => {
  language = target.value;
  localStorage.setItem("language", language);
  translate();
});
$("token").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken($("token-value").value);
  await loadModels();
});
translate();
loadModels();
