// The worker's progress marks in plain words.  A step is under way from its mark to the next.

const STEPS = [
  [0, "Sending the photos"],
  [3, "Waiting for a free worker"],
  [10, "Reading the photos"],
  [20, "Fitting a body to what is seen"],
  [40, "Taking the measurements"],
  [60, "Building the 3D body"],
  [85, "Saving everything"],
];

export class ProgressView {
  constructor({ bar, text, number, steps }) {
    this.bar = bar;
    this.text = text;
    this.number = number;
    this.items = STEPS.map(([, words]) => {
      const item = document.createElement("li");
      item.textContent = words;
      return item;
    });
    steps.replaceChildren(...this.items);
  }

  /** Show that `percent` is done.  What is shown never goes back, unless `restart` says so. */
  show(percent, { restart = false } = {}) {
    this.percent = restart ? percent : Math.max(this.percent ?? 0, percent);
    const now = STEPS.findLastIndex(([mark]) => this.percent >= mark);
    const shown = Math.round(this.percent);
    this.bar.firstElementChild.style.width = `${shown}%`;
    this.bar.setAttribute("aria-valuenow", shown);
    this.number.textContent = `${shown} %`;
    // A live region: change it only when there is something new to say.
    if (this.text.textContent !== STEPS[now][1]) this.text.textContent = STEPS[now][1];
    this.items.forEach((item, index) => {
      item.className = index < now || shown >= 100 ? "past" : index === now ? "now" : "";
    });
  }
}
