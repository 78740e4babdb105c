// The frames of clips: the slider, and the attention in every frame at a glance.

function framesOf(block) {
  return block.size.length === 3 ? block.size[0] : 1;
}

function frameInWords(view, frame) {
  const labelled = frame === view.pictures.labelled ? ", predicted" : "";
  return `Frame ${frame + 1}${labelled}`;
}

// Fit the slider to the clip that is shown, and hide it for images.
function fitSlider() {
  const view = state.views[0];
  const frames = view ? framesOf(view.block) : 1;
  const slider = element("frame");
  element("frames").hidden = frames === 1;
  element("clips").hidden = frames === 1;
  if (state.frame === null || state.frame >= frames) {
    state.frame = state.source = frames === 1 ? 0 : view.pictures.labelled;
  }
  slider.max = frames;
  showFrame(state.frame);
}

// Display a frame. The position stays where it is, also if it belongs to another frame.
function showFrame(frame) {
  state.frame = frame;
  const view = state.views[0];
  if (view) {
    const slider = element("frame");
    slider.value = frame + 1;
    const name = view.image.frames ? view.image.frames[frame].name : "";
    const words = `${frameInWords(view, frame)}, of ${framesOf(view.block)}`;
    slider.setAttribute("aria-valuetext", words);
    element("framename").textContent = `${words}: ${name}`;
  }
  schedule();
}

// Add the frames of a clip with the composed attention to each.
function addStrip(section, view) {
  const panel = view.panels.find((each) => each.composed);
  node("h3", section, "", `${panel.name} in every frame`);
  const grid = node("div", section, "panels small strip");
  const frames = view.pictures.frames.map((picture, frame) => {
    const figure = node("figure", grid);
    const canvas = node("canvas", figure, "map");
    canvas.width = 200;
    canvas.height = Math.max(1, Math.round((200 * view.image.height) / view.image.width));
    canvas.addEventListener("click", () => showFrame(frame));
    const background = scaled(picture, canvas.width, canvas.height);
    return {canvas, background, figure, words: node("figcaption", figure)};
  });
  view.strip = {panel, frames, heat: heatOf(view.block)};
}

function drawStrip(view, opacity) {
  const {panel, frames, heat} = view.strip;
  frames.forEach(({canvas, background, figure, words}, frame) => {
    fillHeat(heat, panel.current, frame, panel.largest);
    const context = canvas.getContext("2d");
    paint(context, background, heat.canvas, view, opacity);
    if (frame === state.source) drawMarker(context, view, frame);
    figure.classList.toggle("displayed", frame === state.frame);
    words.textContent = `${frameInWords(view, frame)}: ${percent(panel.shares[frame])}`;
  });
}

element("frame").addEventListener("input", () => showFrame(Number(element("frame").value) - 1));
