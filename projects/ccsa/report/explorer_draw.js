// The maps of attention: which there are, what they show, and how they are drawn.

// Colors as the 32-bit pixels of an image.
const palette = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  new Uint8Array(palette.buffer).set([...data.colors.slice(3 * i, 3 * i + 3), 255], 4 * i);
}

function panelsOf(block) {
  const {matrices, gamma} = block;
  const length = block.contributions.length;
  const spare = new Float32Array(length);
  const panel = (name, steps, factor, more) => {
    const out = new Float32Array(length);
    const values = (position, reverse) => apply(steps, position, reverse, factor, out, spare);
    return {name, values, ...more};
  };
  const several = matrices.length > 1;
  const steps = matrices.map((matrix, index) => panel(
    several ? `Application ${index + 1}` : "Attention", [matrix], null, {attention: true}));
  if (several) steps.push(panel("Composed attention", matrices, null, {attention: true}));
  steps.at(-1).composed = true;
  return [
    ...steps,
    panel("Positional part of the output", matrices, gamma, {withoutItself: true}),
    {name: "Norm of the contribution", values: () => block.contributions, fixed: true},
  ];
}

// Add the elements of a panel, and return it with what drawing needs.
function addPanel(grid, panel, view) {
  const figure = node("figure", grid);
  node("figcaption", figure, "", panel.name);
  const canvas = node("canvas", figure, "map");
  const enlarge = Math.max(1, Math.round(480 / Math.max(view.image.width, view.image.height)));
  canvas.width = Math.min(640, view.image.width * enlarge);
  canvas.height = Math.max(1, Math.round(canvas.width * view.image.height / view.image.width));
  listen(canvas);
  const scale = node("div", figure, "scale");
  const low = node("span", scale, "", "0");
  drawBar(node("canvas", scale));
  const high = node("span", scale);
  const shares = new Float64Array(framesOf(view.block));
  const numbers = node("div", figure, "numbers");
  return {...panel, canvas, low, high, shares, numbers, heat: heatOf(view.block)};
}

function drawBar(bar) {
  bar.width = 256;
  bar.height = 1;
  const colors = new ImageData(256, 1);
  new Uint32Array(colors.data.buffer).set(palette);
  bar.getContext("2d").putImageData(colors, 0, 0);
}

// Return a picture with one pixel for each position of a frame.
function heatOf(block) {
  const [height, width] = block.size.slice(-2);
  const image = new ImageData(width, height);
  const canvas = new OffscreenCanvas(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  return {image, canvas, pixels, context: canvas.getContext("2d")};
}

// Color one frame of values from 0 to largest.
function fillHeat(heat, values, frame, largest) {
  const {pixels} = heat;
  const start = frame * pixels.length;
  const scale = largest ? 255 / largest : 0;
  for (let i = 0; i < pixels.length; i++) {
    const step = Math.round(scale * Math.abs(values[start + i]));
    pixels[i] = palette[step < 255 ? step : 255];
  }
  heat.context.putImageData(heat.image, 0, 0);
}

// Return the position of a block's feature map under the point (u, v) of the image, from 0 to 1.
function positionOf(view) {
  const [height, width] = view.block.size.slice(-2);
  const [coveredHeight, coveredWidth] = view.image.covered;
  const y = Math.min(height - 1, Math.floor((state.v / coveredHeight) * height));
  const x = Math.min(width - 1, Math.floor((state.u / coveredWidth) * width));
  return (state.source * height + y) * width + x;
}

// Draw before the next refresh of the screen, however many events ask for it until then.
function schedule() {
  if (state.scheduled) return;
  state.scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  state.scheduled = false;
  if (!state.ready) return;
  const started = performance.now();
  if (!state.views.length) {
    element("status").textContent = "These models have no criss-cross attention; the branches of their blocks are below.";
    return;
  }
  const reverse = element("question").value === "reverse";
  const opacity = element("opacity").value / 100;
  for (const view of state.views) {
    view.position = positionOf(view);
    for (const panel of view.panels) drawPanel(view, panel, reverse, opacity);
    if (view.strip) drawStrip(view, opacity);
  }
  element("status").textContent = whereInWords(state.views[0]);
  state.draws += 1;
  state.milliseconds = performance.now() - started;
}

function whereInWords({block, position}) {
  const [height, width] = block.size.slice(-2);
  const place = `row ${Math.floor(position / width) % height + 1} of ${height}, ` +
    `column ${position % width + 1} of ${width}${state.held ? ", held" : ""}.`;
  const frames = framesOf(block);
  if (frames === 1) return `R${place.slice(1)}`;
  const other = state.frame === state.source ? "" : ` Frame ${state.frame + 1} is displayed.`;
  return `Frame ${state.source + 1} of ${frames}, ${place}${other}`;
}

function drawPanel(view, panel, reverse, opacity) {
  const {block, position} = view;
  const values = panel.values(position, reverse);
  if (!panel.fixed || !panel.current) {
    let largest = 0;
    for (let i = 0; i < values.length; i++) {
      const size = Math.abs(values[i]);
      if (size > largest && !(panel.withoutItself && i === position)) largest = size;
    }
    panel.current = values;
    panel.largest = largest;
    panel.high.textContent = short(largest);
  }
  if (!panel.fixed || panel.shown !== state.frame) {
    fillHeat(panel.heat, values, state.frame, panel.largest);
    panel.shown = state.frame;
  }
  const context = panel.canvas.getContext("2d");
  paint(context, backgroundOf(view, panel.canvas), panel.heat.canvas, view, opacity);
  drawMarker(context, view, state.frame);
  panel.numbers.textContent = inWords(panel, values, view, reverse);
}

// Draw attention over a background that has the size of the canvas.
function paint(context, background, heat, view, opacity) {
  const [coveredHeight, coveredWidth] = view.image.covered;
  const {width, height} = context.canvas;
  context.imageSmoothingEnabled = false;
  context.globalAlpha = 1;
  context.drawImage(background, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(heat, 0, 0, width * coveredWidth, height * coveredHeight);
  context.globalAlpha = 1;
}

// Return the background of the displayed frame in the size of a canvas.
function backgroundOf(view, canvas) {
  const kind = element("background").value;
  const {frames, labelled} = view.pictures;
  const special = kind !== "picture" && state.frame === labelled && view.pictures[kind];
  const picture = special || frames[state.frame];
  if (view.drawn !== picture) {
    view.drawn = picture;
    view.background = scaled(picture, canvas.width, canvas.height);
  }
  return view.background;
}

function scaled(picture, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  return canvas;
}

// Draw a square around the position in black and white, visible on every color. In other frames
// than that of the position, its outline is dashed.
function drawMarker(context, view, frame) {
  const [height, width] = view.block.size.slice(-2);
  const [coveredHeight, coveredWidth] = view.image.covered;
  const cellWidth = (context.canvas.width * coveredWidth) / width;
  const cellHeight = (context.canvas.height * coveredHeight) / height;
  const sideX = Math.max(cellWidth, 8);
  const sideY = Math.max(cellHeight, 8);
  const left = (view.position % width + 0.5) * cellWidth - sideX / 2;
  const top = (Math.floor(view.position / width) % height + 0.5) * cellHeight - sideY / 2;
  context.setLineDash(frame === state.source ? [] : [4, 4]);
  for (const [color, thickness] of [["black", 5], ["white", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.strokeRect(left, top, sideX, sideY);
  }
}

function inWords(panel, values, view, reverse) {
  const {block, position} = view;
  if (panel.fixed) return `At this position: ${short(values[position])}.`;
  if (panel.attention) {
    const found = statistics(values, position, block.size, panel.shares);
    const received = reverse ? `Attention received: ${short(found.sum)}. ` : "";
    const words = `${received}Entropy ${found.entropy.toFixed(1)} bits, mean distance ` +
      found.distance.toFixed(1);
    return framesOf(block) === 1 ? `${words}.` : `${words} and ${found.apart.toFixed(1)} frames.`;
  }
  const sign = values.some((value) => value < 0) ? " Absolute values are shown." : "";
  return `This position itself: ${short(values[position])}.${sign}`;
}
