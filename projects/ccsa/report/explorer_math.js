// Attention weights as sparse matrices over positions, see ccsa/analysis/cross_weights.py.
// A matrix is {height, width, values}: values holds (H + W) weights for each of the H * W positions,
// first those of its column, then those of its row.

async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = (planes[i] * 256 + planes[count + i]) / 65535;
  return values;
}

// Return the row vector times the matrix: where the positions of the vector attend to.
function rowTimesMatrix(row, matrix) {
  const {height, width, values} = matrix;
  const out = new Float64Array(row.length);
  for (let p = 0; p < row.length; p++) {
    if (row[p] === 0) continue;
    const x = p % width;
    const start = p - x;
    let w = p * (height + width);
    for (let i = x; i < out.length; i += width) out[i] += row[p] * values[w++];
    for (let i = start; i < start + width; i++) out[i] += row[p] * values[w++];
  }
  return out;
}

// Return the matrix times the column vector: how much every position attends to those of the vector.
function matrixTimesColumn(matrix, column) {
  const {height, width, values} = matrix;
  const count = height + width;
  const out = new Float64Array(column.length);
  for (let q = 0; q < column.length; q++) {
    if (column[q] === 0) continue;
    const x = q % width;
    const y = (q - x) / width;
    for (let i = x; i < out.length; i += width) out[i] += values[i * count + y] * column[q];
    for (let i = q - x; i < q - x + width; i++) {
      out[i] += values[i * count + height + x] * column[q];
    }
  }
  return out;
}

// Apply all matrices to a position. With gamma, each matrix A is replaced by I + gamma A.
function apply(matrices, position, reverse, gamma = null) {
  const {height, width} = matrices[0];
  let vector = new Float64Array(height * width);
  vector[position] = 1;
  for (const matrix of reverse ? matrices : [...matrices].reverse()) {
    const next = reverse ? matrixTimesColumn(matrix, vector) : rowTimesMatrix(vector, matrix);
    if (gamma !== null) next.forEach((v, i) => { next[i] = vector[i] + gamma * v; });
    vector = next;
  }
  return vector;
}

// Return the sum, entropy in bits and mean distance in steps of values, relative to their sum.
function statistics(values, position, width) {
  const sum = values.reduce((a, b) => a + b, 0);
  const x = position % width;
  const y = (position - x) / width;
  let entropy = 0;
  let distance = 0;
  for (let i = 0; i < values.length && sum > 0; i++) {
    const p = values[i] / sum;
    if (p <= 0) continue;
    entropy -= p * Math.log2(p);
    distance += p * Math.hypot((i % width) - x, Math.floor(i / width) - y);
  }
  return {sum, entropy, distance};
}
