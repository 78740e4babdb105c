// The page: controls, drawing and events. window.explorer holds its state.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const state = {ready: false, held: false, u: 0.5, v: 0.5, views: [], milliseconds: 0};
window.explorer = state;
const images = data.runs[0].images;
const blockCount = Math.max(...data.runs.map((run) => run.images[0].blocks.length));

function node(tag, parent, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  parent.append(made);
  return made;
}

// Two digits that count, without exponents for large numbers: 0.034, 1.2, 240.
const short = (value) => {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return value === 0 ? "0" : String(Number(value.toPrecision(2)));
};
const percent = (value) => `${short(100 * value)} %`;

// Describe in words how much a block adds, or why its attention does not reach the output.
function gammaInWords(block) {
  const gamma = `gamma = ${short(block.gamma)}`;
  if (block.gamma === 0) {
    return `${gamma}: the block is an identity, and its attention does not reach the output.`;
  }
  const sizes = [[0.05, "little"], [0.5, "a moderate amount"], [Infinity, "much"]];
  const amount = sizes.find(([limit]) => block.relative < limit)[1];
  return `${gamma}: the block adds ${amount}; on average, the norm of what it adds is ` +
    `${percent(block.relative)} of the norm of its input.`;
}

function sizeInWords(block) {
  const [height, width] = block.size;
  const [originalHeight, originalWidth] = block.original;
  if (height === originalHeight && width === originalWidth) {
    return `The feature map has ${height} x ${width} positions.`;
  }
  return `The feature map has ${originalHeight} x ${originalWidth} positions and is reduced to ` +
    `${height} x ${width}; attention composed over reduced positions is an approximation.`;
}

// Describe how the score of a region changes when attended or random positions are replaced.
function checkInWords(check) {
  if (!check) return "";
  const score = (value) => value.toFixed(3);
  return `Does it matter? For "${check.region}" (${check.pixels} pixels), the score is ` +
    `${score(check.score)}. It becomes ${score(check.attended)} if the 5 % of the input that the ` +
    `region attends to most are replaced by the mean color, and ${score(check.random)} for a ` +
    `random 5 % (mean of 20 draws): ${short(check.ratio)} times the effect.`;
}

function panelsOf(block) {
  const {matrices, gamma} = block;
  const steps = matrices.map((matrix, index) => ({
    name: matrices.length === 1 ? "Attention" : `Application ${index + 1}`,
    values: (position, reverse) => apply([matrix], position, reverse),
    attention: true,
  }));
  const composed = {
    name: "Composed attention",
    values: (position, reverse) => apply(matrices, position, reverse),
    attention: true,
  };
  return [
    ...steps,
    ...(matrices.length > 1 ? [composed] : []),
    {
      name: "Positional part of the output",
      values: (position, reverse) => apply(matrices, position, reverse, gamma),
      withoutItself: true,
    },
    {name: "Norm of the contribution", values: () => block.contributions, fixed: true},
  ];
}

async function prepare(block) {
  if (block.matrices) return;
  const [height, width] = block.size;
  const weights = await Promise.all(block.weights.map(decode));
  block.contributions = Float64Array.from(
    await decode(block.contribution.values), (v) => v * block.contribution.scale);
  block.matrices = weights.map((values) => ({height, width, values}));
}

function loadPicture(url) {
  const picture = new Image();
  picture.src = url;
  return picture.decode().then(() => picture);
}

// Build the panels of the chosen image and block for every run.
async function build() {
  state.ready = false;
  const chosen = Number(element("image").value);
  const views = [];
  for (const run of data.runs) {
    const image = run.images[chosen];
    if (!image.blocks.length) {
      views.push({run, image});
      continue;
    }
    const block = image.blocks[Math.min(Number(element("block").value), image.blocks.length - 1)];
    await prepare(block);
    const pictures = {};
    for (const kind of ["picture", "prediction", "truth"]) {
      pictures[kind] = await loadPicture(image[kind] || image.picture);
    }
    views.push({run, image, block, pictures});
  }
  element("runs").replaceChildren();
  for (const view of views) {
    const section = node("section", element("runs"));
    if (!view.block) {
      node("h2", section, "", view.run.name);
      addBranches(section, view.image);
      continue;
    }
    node("h2", section, "", `${view.run.name}: ${view.block.path}`);
    node("p", section, "words", `${gammaInWords(view.block)} ${sizeInWords(view.block)}`);
    if (view.block.check) node("p", section, "check", checkInWords(view.block.check));
    if (view.image.hidden.length) {
      node("p", section, "", `Not shown, because they run on regions of objects: ${view.image.hidden.join(", ")}.`);
    }
    const grid = node("div", section, "panels");
    view.panels = panelsOf(view.block).map((panel) => {
      const figure = node("figure", grid);
      node("figcaption", figure, "", panel.name);
      const canvas = node("canvas", figure, "map");
      const enlarge = Math.max(1, Math.round(480 / Math.max(view.image.width, view.image.height)));
      canvas.width = Math.min(640, view.image.width * enlarge);
      canvas.height = Math.max(1, Math.round(canvas.width * view.image.height / view.image.width));
      listen(canvas);
      const scale = node("div", figure, "scale");
      const low = node("span", scale);
      const bar = node("canvas", scale);
      const high = node("span", scale);
      drawBar(bar);
      return {...panel, canvas, low, high, numbers: node("div", figure, "numbers")};
    });
    addBranches(section, view.image);
  }
  state.views = views.filter((view) => view.block);
  for (const control of document.querySelectorAll(".attention")) control.hidden = !state.views.length;
  state.ready = true;
  draw();
}

// Add the branches of squeeze-and-attention blocks and the class scores of the heads.
function addBranches(section, image) {
  if (!image.blocks.length) {
    const grid = node("div", section, "panels pictures");
    for (const [kind, name] of [["picture", "Image"], ["truth", "Ground truth"], ["prediction", "Prediction"]]) {
      if (image[kind]) addPicture(grid, name, image[kind]);
    }
  }
  for (const block of image.squeeze) {
    node("h3", section, "", `Squeeze-and-attention: ${block.path}`);
    node("p", section, "words", block.words);
    addMaps(section, block.maps);
  }
  for (const head of image.scores) {
    const details = node("details", section);
    node("summary", details, "", `Class scores of ${head.path}`);
    if (head.categories.length) {
      node("p", details, "", `Classes that the categorical output finds in the image: ${head.categories.join(", ")}.`);
    }
    for (const output of head.outputs) {
      node("h4", details, "", `${output.name}: ${output.words}`);
      addMaps(details, output.maps);
    }
    details.open = image.squeeze.length > 0;
  }
}

function addMaps(parent, maps) {
  const grid = node("div", parent, "panels small");
  for (const map of maps) {
    const figure = addPicture(grid, map.name, map.picture);
    node("div", figure, "numbers", `${short(map.low)} to ${short(map.high)}`);
  }
}

function addPicture(grid, name, address) {
  const figure = node("figure", grid);
  node("figcaption", figure, "", name);
  const picture = node("img", figure, "map");
  picture.src = address;
  picture.alt = name;
  return figure;
}

function drawBar(bar) {
  bar.width = 256;
  bar.height = 1;
  const context = bar.getContext("2d");
  const pixels = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    pixels.data.set([...data.colors.slice(3 * i, 3 * i + 3), 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

// Return the position of a block's feature map under the point (u, v) of the image, from 0 to 1.
function positionOf(view) {
  const [height, width] = view.block.size;
  const [coveredHeight, coveredWidth] = view.image.covered;
  const y = Math.min(height - 1, Math.floor((state.v / coveredHeight) * height));
  const x = Math.min(width - 1, Math.floor((state.u / coveredWidth) * width));
  return y * width + x;
}

function draw() {
  if (!state.ready) return;
  const started = performance.now();
  const reverse = element("question").value === "reverse";
  for (const view of state.views) {
    view.position = positionOf(view);
    for (const panel of view.panels) drawPanel(view, panel, reverse);
  }
  if (!state.views.length) {
    element("status").textContent = "These models have no criss-cross attention; the branches of their blocks are below.";
    return;
  }
  const {block, position} = state.views[0];
  const x = position % block.size[1];
  const y = (position - x) / block.size[1];
  element("status").textContent = `Row ${y + 1} of ${block.size[0]}, column ${x + 1} of ` +
    `${block.size[1]}${state.held ? ", held" : ""}.`;
  state.milliseconds = performance.now() - started;
}

function drawPanel(view, panel, reverse) {
  const {block, position} = view;
  const [height, width] = block.size;
  const values = panel.values(position, reverse);
  panel.current = values;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    if (!(panel.withoutItself && i === position)) largest = Math.max(largest, Math.abs(values[i]));
  }
  const heat = new ImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const step = largest ? Math.min(255, Math.round((255 * Math.abs(values[i])) / largest)) : 0;
    for (let c = 0; c < 3; c++) heat.data[4 * i + c] = data.colors[3 * step + c];
    heat.data[4 * i + 3] = 255;
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(heat, 0, 0);
  const {canvas} = panel;
  const context = canvas.getContext("2d");
  const cellWidth = (canvas.width * view.image.covered[1]) / width;
  const cellHeight = (canvas.height * view.image.covered[0]) / height;
  context.imageSmoothingEnabled = false;
  context.globalAlpha = 1;
  context.drawImage(view.pictures[element("background").value], 0, 0, canvas.width, canvas.height);
  context.globalAlpha = element("opacity").value / 100;
  context.drawImage(small, 0, 0, cellWidth * width, cellHeight * height);
  context.globalAlpha = 1;
  drawMarker(context, position % width, Math.floor(position / width), cellWidth, cellHeight);
  panel.low.textContent = "0";
  panel.high.textContent = short(largest);
  panel.numbers.textContent = inWords(panel, values, view, reverse);
}

// Draw a square around a position in black and white, visible on every color.
function drawMarker(context, x, y, cellWidth, cellHeight) {
  const width = Math.max(cellWidth, 8);
  const height = Math.max(cellHeight, 8);
  const left = (x + 0.5) * cellWidth - width / 2;
  const top = (y + 0.5) * cellHeight - height / 2;
  for (const [color, thickness] of [["black", 5], ["white", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.strokeRect(left, top, width, height);
  }
}

function inWords(panel, values, view, reverse) {
  const {block, position} = view;
  if (panel.fixed) return `At this position: ${short(values[position])}.`;
  const {sum, entropy, distance} = statistics(values, position, block.size[1]);
  if (panel.attention) {
    const total = reverse ? `Attention received: ${short(sum)}. ` : "";
    return `${total}Entropy ${entropy.toFixed(1)} bits, mean distance ${distance.toFixed(1)}.`;
  }
  const sign = values.some((value) => value < 0) ? " Absolute values are shown." : "";
  return `This position itself: ${short(values[position])}.${sign}`;
}

function listen(canvas) {
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    state.u = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999);
    state.v = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 0.9999);
    draw();
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!state.held || (event.pointerType === "touch")) point(event);
  });
  canvas.addEventListener("pointerdown", (event) => {
    state.held = event.pointerType === "mouse" && !state.held;
    point(event);
  });
}

function next(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

function move(dx, dy) {
  if (!state.views.length) return;
  const view = state.views[0];
  const [height, width] = view.block.size;
  const [coveredHeight, coveredWidth] = view.image.covered;
  const x = view.position % width;
  const y = (view.position - x) / width;
  const inside = (value) => Math.min(Math.max(value, 0), 0.9999);
  state.u = inside(((x + dx + 0.5) / width) * coveredWidth);
  state.v = inside(((y + dy + 0.5) / height) * coveredHeight);
  draw();
}

document.addEventListener("keydown", (event) => {
  const typing = ["SELECT", "INPUT"].includes(event.target.tagName);
  if (!state.ready || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowLeft: () => move(-1, 0),
    ArrowRight: () => move(1, 0),
    ArrowUp: () => move(0, -1),
    ArrowDown: () => move(0, 1),
    r: () => next(element("question")),
    n: () => next(element("image")),
    b: () => next(element("block")),
    " ": () => { state.held = !state.held; draw(); },
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

images.forEach((image, i) => { node("option", element("image"), "", image.name).value = i; });
for (let i = 0; i < blockCount; i++) {
  const paths = data.runs.map((run) => run.images[0].blocks[i]?.path).filter(Boolean);
  node("option", element("block"), "", [...new Set(paths)].join(", ")).value = i;
}
if (!data.runs.some((run) => run.images.some((image) => image.truth))) {
  element("background").querySelector('[value="truth"]').remove();
  element("notruth").hidden = false;
}
for (const id of ["image", "block"]) element(id).addEventListener("change", build);
for (const id of ["question", "background", "opacity"]) element(id).addEventListener("input", draw);
element("question").addEventListener("change", draw);
build();
