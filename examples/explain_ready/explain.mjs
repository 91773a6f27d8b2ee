// One run of an explain-ready file: the same for onnxruntime-node and onnxruntime-web.

// `ort` is the runtime, `gray` holds height x width numbers in [0, 1]; digit -1 is the best one.
export async function explain(ort, session, gray, [height, width], digit) {
  const found = await session.run({
    image: new ort.Tensor("float32", gray, [1, 1, height, width]),
    class_index: new ort.Tensor("int64", BigInt64Array.of(BigInt(digit)), [1]),
  });
  const logits = Array.from(found.logits.data);
  const shown = digit >= 0 ? digit : logits.indexOf(Math.max(...logits));
  return { shown, logit: logits[shown], heatmap: found.heatmap.data };
}

// Sum and highest position, to compare one runtime with another.
export function summary(heatmap, width) {
  const peak = heatmap.indexOf(1);
  const sum = heatmap.reduce((total, value) => total + value, 0);
  return `sum ${sum.toFixed(2)}, highest at row ${Math.floor(peak / width)}, column ${peak % width}`;
}

// Red, green and blue of a value in [0, 1], from blue to red: the colour map "jet".
export function colour(value) {
  return [3, 2, 1].map((top) => 255 * Math.min(1, Math.max(0, 1.5 - Math.abs(4 * value - top))));
}

// The scene with its heatmap over it, four bytes a pixel.
export function overlay(gray, heatmap) {
  return Uint8ClampedArray.from({ length: 4 * gray.length }, (_, i) => {
    const at = Math.floor(i / 4);
    return i % 4 === 3 ? 255 : (255 * gray[at] + colour(heatmap[at])[i % 4]) / 2;
  });
}
