// The explain-ready file in the browser: the map is made by the file, drawn on a canvas.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { explain, overlay, summary } from "./explain.mjs";

const get = (id) => document.getElementById(id);
ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a server that isolates the page from others

async function load(path) {
  const image = new Image();
  image.src = path;
  await image.decode();
  return image;
}

function draw(canvas, image) {
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (image instanceof ImageData) context.putImageData(image, 0, 0);
  else context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

const { width, height, data } = draw(get("scene"), await load("scene.png"));
const gray = Float32Array.from({ length: width * height }, (_, i) => data[4 * i] / 255);
const session = await ort.InferenceSession.create("digits.explain.onnx");

async function show() {
  const digit = Number(get("digit").value);
  const { shown, logit, heatmap } = await explain(ort, session, gray, [height, width], digit);
  draw(get("map"), new ImageData(overlay(gray, heatmap), width, height));
  get("said").textContent = `digit ${shown}, logit ${logit.toFixed(3)}; ${summary(heatmap, width)}`;
}

for (let digit = 0; digit < 10; digit++) get("digit").add(new Option(digit, digit));
get("digit").addEventListener("change", show);
await show();
