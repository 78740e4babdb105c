// The data of the page, its state and small helpers. window.explorer holds the state.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const state = {
  ready: false, scheduled: false, held: false, views: [],
  u: 0.5, v: 0.5, frame: null, source: 0, // source is the frame of the position, frame the displayed one
  draws: 0, milliseconds: 0,
};
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
