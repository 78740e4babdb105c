// Attention weights as sparse matrices over positions, see ccsa/analysis/cross_weights.py.
// A matrix is {size, values}: size is [H, W] of images and [T, H, W] of clips, and values holds
// their sum of weights for each position: first those of its first axis, then those of the others.
// Nothing is allocated while the mouse moves: results are written into arrays that are kept.

async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = (planes[i] * 256 + planes[count + i]) / 65535;
  return values;
}

// Return the length, the stride and the first weight of every axis of a size.
function axesOf(size) {
  let offset = 0;
  return size.map((length, axis) => {
    const stride = size.slice(axis + 1).reduce((a, b) => a * b, 1);
    offset += length;
    return {length, stride, offset: offset - length};
  });
}

const total = (size) => size.reduce((a, b) => a + b, 0);

// Write the row vector times the matrix into out: where the positions of the vector attend to.
function rowTimesMatrix(row, matrix, out) {
  const {axes, values, count} = matrix;
  out.fill(0);
  for (let p = 0; p < row.length; p++) {
    const factor = row[p];
    if (factor === 0) continue;
    let w = p * count;
    for (const {length, stride} of axes) {
      const start = p - (Math.floor(p / stride) % length) * stride;
      for (let i = start, n = 0; n < length; n++, i += stride) out[i] += factor * values[w++];
    }
  }
}

// Write the matrix times the column vector into out: how much every position attends to those of
// the vector.
function matrixTimesColumn(matrix, column, out) {
  const {axes, values, count} = matrix;
  out.fill(0);
  for (let q = 0; q < column.length; q++) {
    const factor = column[q];
    if (factor === 0) continue;
    for (const {length, stride, offset} of axes) {
      const own = Math.floor(q / stride) % length;
      const start = q - own * stride;
      for (let i = start, n = 0; n < length; n++, i += stride) {
        out[i] += values[i * count + offset + own] * factor;
      }
    }
  }
}

// Return a matrix with what its products need.
function matrixOf(size, values) {
  return {size, values, axes: axesOf(size), count: total(size)};
}

// Write the product of all matrices and a position into out, and return it. With gamma, each matrix
// A is replaced by I + gamma A. spare is an array of the same length.
function apply(matrices, position, reverse, gamma, out, spare) {
  // The result of the last product must be in out.
  let [vector, next] = matrices.length % 2 ? [spare, out] : [out, spare];
  vector.fill(0);
  vector[position] = 1;
  for (let i = 0; i < matrices.length; i++) {
    if (reverse) matrixTimesColumn(matrices[i], vector, next);
    else rowTimesMatrix(vector, matrices[matrices.length - 1 - i], next);
    if (gamma !== null) {
      for (let p = 0; p < next.length; p++) next[p] = vector[p] + gamma * next[p];
    }
    [vector, next] = [next, vector];
  }
  return vector;
}

// Return the sum, the entropy in bits and the mean distance of values, relative to their sum. The
// distance is in steps of the feature map and, for clips, separately in frames. shares is filled
// with the part of every frame.
function statistics(values, position, size, shares) {
  const [height, width] = size.slice(-2);
  const x = position % width;
  const y = Math.floor(position / width) % height;
  const frame = Math.floor(position / (width * height));
  const frames = values.length / (width * height);
  let sum = 0;
  let logs = 0;
  let distance = 0;
  let apart = 0;
  for (let t = 0, i = 0; t < frames; t++) {
    const before = sum;
    for (let row = 0; row < height; row++) {
      const dy = row - y;
      for (let column = 0; column < width; column++, i++) {
        const value = values[i];
        if (value <= 0) continue;
        const dx = column - x;
        sum += value;
        logs += value * Math.log2(value);
        distance += value * Math.sqrt(dx * dx + dy * dy);
      }
    }
    shares[t] = sum - before;
    apart += shares[t] * Math.abs(t - frame);
  }
  if (sum === 0) return {sum, entropy: 0, distance: 0, apart: 0};
  for (let t = 0; t < frames; t++) shares[t] /= sum;
  const entropy = Math.max(0, Math.log2(sum) - logs / sum);
  return {sum, entropy, distance: distance / sum, apart: apart / sum};
}
