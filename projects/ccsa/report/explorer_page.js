// The page: words, controls and events.

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
  const size = block.size.join(" x ");
  const original = block.original.join(" x ");
  const frames = block.size.length === 3 ? " (frames, rows, columns)" : "";
  if (size === original) return `The feature map has ${size} positions${frames}.`;
  return `The feature map has ${original} positions${frames} and is reduced to ${size}; attention ` +
    "composed over reduced positions is an approximation.";
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

async function prepare(block) {
  if (block.matrices) return;
  const weights = await Promise.all(block.weights.map(decode));
  block.contributions = (await decode(block.contribution.values)).map(
    (v) => v * block.contribution.scale);
  block.matrices = weights.map((values) => matrixOf(block.size, values));
}

function loadPicture(url) {
  const picture = new Image();
  picture.src = url;
  return picture.decode().then(() => picture);
}

// Return the pictures of an image or of all frames of a clip, of which one has a prediction.
async function loadPictures(image) {
  const addresses = image.frames ? image.frames.map((frame) => frame.picture) : [image.picture];
  return {
    frames: await Promise.all(addresses.map(loadPicture)),
    labelled: image.labelled || 0,
    prediction: await loadPicture(image.prediction),
    truth: image.truth && await loadPicture(image.truth),
  };
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
    views.push({run, image, block, pictures: await loadPictures(image)});
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
    view.panels = panelsOf(view.block).map((panel) => addPanel(grid, panel, view));
    if (view.image.frames) addStrip(section, view);
    addBranches(section, view.image);
  }
  state.views = views.filter((view) => view.block);
  for (const control of document.querySelectorAll(".attention")) control.hidden = !state.views.length;
  fitSlider();
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

function listen(canvas) {
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    state.u = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999);
    state.v = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 0.9999);
    state.source = state.frame;
    schedule();
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
  const [height, width] = view.block.size.slice(-2);
  const [coveredHeight, coveredWidth] = view.image.covered;
  const x = view.position % width;
  const y = Math.floor(view.position / width) % height;
  const inside = (value) => Math.min(Math.max(value, 0), 0.9999);
  state.u = inside(((x + dx + 0.5) / width) * coveredWidth);
  state.v = inside(((y + dy + 0.5) / height) * coveredHeight);
  state.source = state.frame;
  // Several keys before one redraw each move the position.
  view.position = positionOf(view);
  schedule();
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
    f: () => {
      if (state.views.length) showFrame((state.frame + 1) % framesOf(state.views[0].block));
    },
    " ": () => { state.held = !state.held; schedule(); },
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
for (const id of ["question", "background", "opacity"]) element(id).addEventListener("input", schedule);
element("question").addEventListener("change", schedule);
build();
