// Measurements in words and in the units that the person chose.

const CM_PER_INCH = 2.54;

// The contract's keys in the order in which a tailor would read them.  shoulderCm repeats
// shoulderBreadthCm and is shown only where the two differ.
const ROWS = [
  ["heightCm", "Height", "as given"],
  ["chestCm", "Chest", ""],
  ["waistCm", "Waist", ""],
  ["hipCm", "Hips", ""],
  ["neckCm", "Neck", ""],
  ["shoulderBreadthCm", "Shoulder width", ""],
  ["shoulderCm", "Shoulder", ""],
  ["sleeveCm", "Arm length", "right"],
  ["lengthCm", "Shoulder to crotch", ""],
  ["insideLegCm", "Inside leg", ""],
  ["bicepCm", "Upper arm", "right"],
  ["forearmCm", "Forearm", "right"],
  ["wristCm", "Wrist", "right"],
  ["thighCm", "Thigh", "left"],
  ["calfCm", "Calf", "left"],
  ["ankleCm", "Ankle", "left"],
];

const inUnits = (cm, imperial) => (imperial ? cm / CM_PER_INCH : cm).toFixed(1);
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(1);

function cell(kind, text, className) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** Fill the table.  With `truth`, say for each measure what is true and how far off we are. */
export function showMeasures({ head, body, note }, measured, truth, imperial) {
  const unit = imperial ? "in" : "cm";
  const first = cell("th", "Measure");
  const titles = truth ? [`Measured, ${unit}`, "True", "Off by"] : [unit === "in" ? "Inches" : "cm"];
  const row = document.createElement("tr");
  row.append(first, ...titles.map((title) => cell("th", title)));
  for (const th of row.children) th.scope = "col";
  head.replaceChildren(row);

  const offs = [];
  body.replaceChildren();
  for (const [key, name, detail] of ROWS) {
    const value = measured[key];
    if (value == null) continue;
    if (key === "shoulderCm" && Math.abs(value - (measured.shoulderBreadthCm ?? NaN)) < 0.05) continue;
    const line = document.createElement("tr");
    line.dataset.key = key;
    const title = cell("th", name);
    title.scope = "row";
    if (detail) title.append(" ", cell("small", detail));
    line.append(title, cell("td", inUnits(value, imperial), "main"));
    if (truth) {
      const real = truth[key];
      line.append(cell("td", real == null ? "–" : inUnits(real, imperial)));
      const off = real == null ? null : value - real;
      if (off != null && key !== "heightCm") offs.push(Math.abs(off));
      const shown = off == null ? "–" : signed(Number(inUnits(off, imperial)));
      line.append(cell("td", shown, "off"));
    }
    body.append(line);
  }
  const mean = offs.reduce((sum, off) => sum + off, 0) / offs.length;
  note.textContent = offs.length
    ? `The sample person's true measurements are known: we are off by ${inUnits(mean, imperial)} ${unit} on average.`
    : "";
}

const CONFIDENCE = {
  high: "High confidence",
  medium: "Fair confidence",
  low: "Low confidence: please read the notes",
};

export function showConfidence(element, level) {
  element.dataset.level = level;
  element.textContent = CONFIDENCE[level] ?? level;
}
