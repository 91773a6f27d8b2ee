// The explain-ready file in Node: node use.mjs [digit]

import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { explain, overlay, summary } from "./explain.mjs";

const here = (name) => new URL(name, import.meta.url);
const { width, height, data } = PNG.sync.read(readFileSync(here("scene.png")));
const gray = Float32Array.from({ length: width * height }, (_, i) => data[4 * i] / 255);

const session = await ort.InferenceSession.create(readFileSync(here("digits.explain.onnx")));
const digit = Number(process.argv[2] ?? -1);
const { shown, logit, heatmap } = await explain(ort, session, gray, [height, width], digit);
console.log(`digit ${shown}, logit ${logit.toFixed(3)}`);
console.log(summary(heatmap, width));

for (let row = 0; row < height; row += 4) {
  const cells = Array.from({ length: width / 2 }, (_, i) => heatmap[row * width + 2 * i]);
  console.log(cells.map((value) => " .:-=+*#%@"[Math.floor(9.99 * value)]).join(""));
}
const picture = new PNG({ width, height });
picture.data.set(overlay(gray, heatmap));
writeFileSync(here("use-node.png"), PNG.sync.write(picture));
console.log("use-node.png: Grad-CAM over the scene");
