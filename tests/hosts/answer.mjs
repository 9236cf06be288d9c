// The same in every host: models and feeds in, answers out. A tensor travels as {type, dims, data}, data in base64.
const ARRAYS = {
  float32: Float32Array, float16: Uint16Array, bool: Uint8Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array,
  int64: BigInt64Array,
};

function unpack(ort, { type, dims, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
}

function pack({ type, dims, data }) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { type, dims, data: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")) };
}

const map = (object, change) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));

/**
 * Return by file its outputs by name for every feed, or what the host says instead.
 *
 * `models` has the feeds of each file, `read` returns the bytes of a file.
 */
export async function answer(ort, provider, models, read) {
  const options = { executionProviders: [provider], logSeverityLevel: 4 };
  const answers = {};
  for (const [file, feeds] of Object.entries(models)) {
    try {
      const session = await ort.InferenceSession.create(await read(file), options);
      const outputs = [];
      for (const feed of feeds) outputs.push(map(await session.run(map(feed, (tensor) => unpack(ort, tensor))), pack));
      answers[file] = outputs;
      await session.release();
    } catch (error) {
      answers[file] = String(error);
    }
  }
  return answers;
}
