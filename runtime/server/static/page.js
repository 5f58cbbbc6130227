// The page: an image to the service, the mesh and the pictures that come back.

import { askLight, askModels, askPicture, askPrediction, NeedsKey } from "./service.js";

const element = (id) => document.getElementById(id);
const VIEW = ["azimuth", "elevation", "fov"];
const LIGHT = ["ambient", "strength", "light-azimuth", "light-elevation"];
const DEGREES = new Set(["azimuth", "elevation", "fov", "light-azimuth", "light-elevation"]);

const state = {
  file: null, // the image that is shown, or on its way
  light: null, // as predicted: [ambient, x, y, z] in world space, or numbers of another model of light
  lightChanged: false,
  view: null, // the 3D view; null where there is none
  uploads: 0, // how many files have been given, so that a late answer to an earlier one is dropped
};

// --- What is said

function say(text) {
  element("status").textContent = text;
}

function complain(error) {
  say("");
  element("error").textContent = error === null ? "" : error.message;
  if (error instanceof NeedsKey) {
    element("key-form").hidden = false;
    element("key").focus();
  }
}

// --- Sliders

const number = (id) => Number(element(id).value);

function showNumbers() {
  for (const id of [...VIEW, ...LIGHT]) {
    const text = DEGREES.has(id) ? `${Math.round(number(id))}°` : number(id).toFixed(2);
    document.querySelector(`output[for="${id}"]`).textContent = text;
    element(id).setAttribute("aria-valuetext", DEGREES.has(id) ? `${Math.round(number(id))} degrees` : text);
  }
}

const radians = (degrees) => (degrees * Math.PI) / 180;
const degrees = (angle) => (angle * 180) / Math.PI;

/** The light of the sliders, as a model takes it: ambient, then the vector to the source, as long as it is strong. */
function lightOfSliders() {
  const [ambient, strength, azimuth, elevation] = LIGHT.map(number);
  const [a, e] = [radians(azimuth), radians(elevation)];
  return [ambient, strength * Math.cos(e) * Math.sin(a), strength * Math.sin(e), strength * Math.cos(e) * Math.cos(a)];
}

function slidersTo([ambient, x, y, z]) {
  const strength = Math.hypot(x, y, z);
  element("ambient").value = ambient;
  element("strength").value = strength;
  element("light-azimuth").value = degrees(Math.atan2(x, z));
  element("light-elevation").value = strength > 0 ? degrees(Math.asin(y / strength)) : 0;
}

const lightHasSliders = () => state.light !== null && state.light.length === 4;
const currentLight = () => (state.lightChanged ? lightOfSliders() : state.light);

function enableLight(possible, why) {
  for (const id of [...LIGHT, "predicted-light"]) element(id).disabled = !possible;
  element("light-missing").hidden = possible;
  element("light-missing").textContent = why;
}

// --- The picture that the service draws. One request at a time; when it is answered, the newest settings go out.

let drawing = false;
let drawAgain = false;

async function draw() {
  drawAgain = true;
  if (drawing) return;
  drawing = true;
  while (drawAgain) {
    drawAgain = false;
    await drawOnce(state.uploads);
  }
  drawing = false;
}

/** What comes of it is shown and said, unless another file has been given meanwhile, which has words of its own. */
async function drawOnce(upload) {
  let picture = null;
  let problem = null;
  try {
    picture = await askPicture(element("model").value, state.file, settings());
  } catch (error) {
    problem = error;
  }
  if (upload !== state.uploads) return;
  if (picture !== null) showPicture(picture);
  complain(problem);
}

function settings() {
  const asked = Object.fromEntries(VIEW.map((id) => [id, element(id).value]));
  if (state.lightChanged) asked.light = lightOfSliders().map((value) => value.toFixed(5)).join(",");
  return asked;
}

function setLink(id, attribute, blob) {
  const old = element(id)[attribute];
  element(id)[attribute] = URL.createObjectURL(blob);
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

function showPicture(blob) {
  setLink("picture", "src", blob);
  setLink("download-picture", "href", blob);
  element("picture").alt =
    `The mesh from ${number("azimuth")} degrees around and ${number("elevation")} degrees above, drawn by the service`;
}

// --- An image goes in

async function give(file) {
  state.file = file;
  state.lightChanged = false;
  const upload = ++state.uploads;
  element("error").textContent = "";
  say(`Sending ${file.name}…`);
  element("photo").hidden = true;
  try {
    const model = element("model").value;
    if (!model) throw new Error("This service has no model that makes meshes of images.");
    const prediction = await askPrediction(model, file, settings());
    if (upload !== state.uploads) return;
    await show(prediction);
    setLink("photo", "src", file);
    element("photo").alt = `The image that was given: ${file.name}`;
    element("photo").hidden = false;
    say(`The mesh of ${file.name} is there.`);
  } catch (error) {
    if (upload !== state.uploads) return;
    element("result").hidden = true;
    complain(error);
  }
}

async function show(prediction) {
  element("result").hidden = false;
  state.light = prediction.light;
  if (lightHasSliders()) slidersTo(state.light);
  showNumbers();
  enableLight(...askLight(prediction));
  showPicture(prediction.picture);
  setLink("download-mesh", "href", prediction.mesh);
  await showMesh(await prediction.mesh.arrayBuffer());
}

// --- The mesh in three dimensions

async function showMesh(glb) {
  try {
    if (state.view === null) {
      const { MeshView } = await import("./mesh_view.js").catch(() => {
        throw new Error("this installation of the service has no three.js.");
      });
      state.view = new MeshView(element("view"));
      turn(!matchMedia("(prefers-reduced-motion: reduce)").matches);
    }
  } catch (error) {
    noView(error);
    return;
  }
  await state.view.show(glb);
  state.view.look(...VIEW.map(number));
  if (lightHasSliders()) state.view.light(state.light);
}

/** Whatever is missing, WebGL or three.js: the rest of the page goes on. */
function noView(error) {
  for (const id of ["view", "view-help", "turn"]) element(id).hidden = true;
  element("view-missing").hidden = false;
  element("view-missing").textContent =
    `The mesh cannot be shown in three dimensions here: ${error.message} It can be downloaded, and the service's ` +
    "picture shows it from any side.";
}

function turn(on) {
  if (state.view) state.view.turning = on;
  element("turn").setAttribute("aria-pressed", String(on));
}

// --- What the user does

element("file").addEventListener("change", () => {
  const [file] = element("file").files;
  if (file) give(file);
});

const drop = element("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) give(file);
  else complain(new Error("What was dropped is no file."));
});

for (const id of VIEW) {
  element(id).addEventListener("input", () => {
    turn(false);
    showNumbers();
    state.view?.look(...VIEW.map(number));
    draw();
  });
}
for (const id of LIGHT) {
  element(id).addEventListener("input", () => {
    state.lightChanged = true;
    showNumbers();
    state.view?.light(currentLight());
    draw();
  });
}
element("predicted-light").addEventListener("click", () => {
  state.lightChanged = false;
  slidersTo(state.light);
  showNumbers();
  state.view?.light(state.light);
  draw();
});
element("turn").addEventListener("click", () => turn(element("turn").getAttribute("aria-pressed") !== "true"));
element("model").addEventListener("change", () => state.file && give(state.file));
element("view").addEventListener("pointerdown", () => turn(false));
element("view").addEventListener("keydown", (event) => {
  if (state.view?.key(event.key)) {
    turn(false);
    event.preventDefault();
  }
});
element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});

async function start() {
  complain(null);
  try {
    const models = await askModels(() => element("key").value);
    element("model").replaceChildren(...models.map((name) => new Option(name)));
    element("model-field").hidden = models.length < 2;
    element("key-form").hidden = true;
    if (models.length === 0) complain(new Error("This service has no model that makes meshes of images."));
    else if (state.file) give(state.file);
  } catch (error) {
    complain(error);
  }
}

showNumbers();
start();
