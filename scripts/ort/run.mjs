// Runs networks with ONNX Runtime and prints what they give.
//
// stdin: a JSON list of {model, dims, inputs}: a file, the dimensions of one
// batch, and the batch's numbers. stdout: a JSON list of {dims, outputs} or
// {error}.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const results = [];
for (const { model, dims, inputs } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, graphOptimizationLevel: "basic" });
    const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", Float32Array.from(inputs), dims) };
    const out = (await session.run(feeds))[session.outputNames[0]];
    results.push({ dims: out.dims, outputs: Array.from(out.data) });
    await session.release();
  } catch (e) {
    results.push({ error: String(e) });
  }
}
console.log(JSON.stringify(results));
