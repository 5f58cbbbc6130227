// The service's endpoints, as the page calls them. Every failure is an Error with a sentence for the user.

export class NeedsKey extends Error {}

let keyOf = () => "";

const OUTPUTS = ["image", "vertices", "faces", "uvs", "uv_faces", "texture", "light"];

/** Names of the models that make meshes of images. `key` gives the API key, or "". */
export async function askModels(key) {
  keyOf = key;
  const index = await (await ask("/v2/repository/index", { method: "POST" })).json();
  const names = [...new Set(index.map((model) => model.name))];
  const described = await Promise.all(names.map(async (name) => (await ask(`/v2/models/${name}`)).json()));
  return described
    .filter((model) => OUTPUTS.every((name) => model.outputs.some((output) => output.name === name)))
    .map((model) => model.name);
}

/** What the model makes of an image: { picture, mesh } as blobs, the predicted light, whether it can be changed. */
export async function askPrediction(model, file, settings) {
  const answer = await (await render(model, file, settings, "application/json")).json();
  return {
    light: answer.light,
    lightCanChange: answer.light_can_change,
    picture: blobOf(answer.views[0].image, "image/png"),
    mesh: blobOf(answer.mesh, "model/gltf-binary"),
  };
}

/** The picture of other settings, as a blob. */
export async function askPicture(model, file, settings) {
  return (await render(model, file, settings, "image/png")).blob();
}

/** Whether the page's sliders can change the light, and why not. */
export function askLight(prediction) {
  if (prediction.light.length !== 4) return [false, "This model's light has no single direction: it cannot be changed here."];
  if (!prediction.lightCanChange) return [false, "This model draws with its predicted light alone."];
  return [true, ""];
}

function render(model, file, settings, media) {
  const query = new URLSearchParams(settings);
  const headers = { accept: media, "content-type": file.type || "application/octet-stream" };
  return ask(`/v2/models/${model}/render?${query}`, { method: "POST", headers, body: file });
}

function blobOf(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (keyOf()) headers.authorization = `Bearer ${keyOf()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const words = await response.json().then((answer) => answer.error, () => `it answered with status ${response.status}`);
  const Kind = response.status === 401 ? NeedsKey : Error;
  throw new Kind(`The service refused: ${words}`);
}
