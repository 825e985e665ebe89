// The form: units, height and weight as typed, and what is wrong with them in a sentence.

const CM_PER_INCH = 2.54;
const KG_PER_POUND = 0.45359237;

const number = (input) => {
  const text = input.value.trim().replace(",", ".");
  return text === "" ? null : Number(text);
};
const trim = (value) => String(Math.round(value * 10) / 10);

export class Form {
  constructor(element, onUnits) {
    this.element = element;
    this.fields = element.elements;
    for (const radio of element.querySelectorAll('[name="units"]'))
      radio.addEventListener("change", () => {
        this.#switchUnits();
        onUnits();
      });
    for (const name of ["heightCm", "heightFt", "heightIn"])
      this.fields[name].addEventListener("input", () => this.complain("height", ""));
    for (const name of ["weightKg", "weightLb"])
      this.fields[name].addEventListener("input", () => this.complain("weight", ""));
  }

  get imperial() {
    return this.fields.units.value === "imperial";
  }

  get heightCm() {
    if (!this.imperial) return number(this.fields.heightCm);
    const feet = number(this.fields.heightFt);
    const inches = number(this.fields.heightIn);
    if (feet == null && inches == null) return null;
    return ((feet ?? 0) * 12 + (inches ?? 0)) * CM_PER_INCH;
  }

  get weightKg() {
    if (!this.imperial) return number(this.fields.weightKg);
    const pounds = number(this.fields.weightLb);
    return pounds == null ? null : pounds * KG_PER_POUND;
  }

  fill({ heightCm, weightKg, gender }) {
    this.#setHeight(heightCm);
    this.#setWeight(weightKg ?? null);
    this.fields.gender.value = gender === "female" || gender === "male" ? gender : "";
    this.complain("height", "");
    this.complain("weight", "");
  }

  #setHeight(cm) {
    const known = cm != null && !Number.isNaN(cm);
    const inches = known ? Math.round((cm / CM_PER_INCH) * 10) / 10 : 0;
    this.fields.heightCm.value = known ? trim(cm) : "";
    this.fields.heightFt.value = known ? Math.floor(inches / 12) : "";
    this.fields.heightIn.value = known ? trim(inches % 12) : "";
  }

  #setWeight(kg) {
    const known = kg != null && !Number.isNaN(kg);
    this.fields.weightKg.value = known ? trim(kg) : "";
    this.fields.weightLb.value = known ? trim(kg / KG_PER_POUND) : "";
  }

  /** Keep what was typed when the units change. */
  #switchUnits() {
    const toImperial = this.imperial;
    const cm = toImperial ? number(this.fields.heightCm) : null;
    if (toImperial) {
      this.#setHeight(cm);
      this.#setWeight(number(this.fields.weightKg));
    } else {
      const feet = number(this.fields.heightFt);
      const inches = number(this.fields.heightIn);
      const typed = feet == null && inches == null;
      this.#setHeight(typed ? null : ((feet ?? 0) * 12 + (inches ?? 0)) * CM_PER_INCH);
      const pounds = number(this.fields.weightLb);
      this.#setWeight(pounds == null ? null : pounds * KG_PER_POUND);
    }
    for (const part of this.element.querySelectorAll(".metric")) part.hidden = toImperial;
    for (const part of this.element.querySelectorAll(".imperial")) part.hidden = !toImperial;
  }

  /** The job's fields, or null after saying what is missing and going there. */
  read() {
    const height = this.heightCm;
    const weight = this.weightKg;
    const heightProblem =
      height == null
        ? "Please tell us your height."
        : !(height >= 100 && height <= 250)
          ? this.imperial
            ? "A height between 3 ft 4 in and 8 ft 2 in, please."
            : "A height between 100 and 250 cm, please."
          : "";
    const weightProblem =
      weight != null && !(weight >= 20 && weight <= 300)
        ? this.imperial
          ? "A weight between 45 and 660 lb, please."
          : "A weight between 20 and 300 kg, please."
        : "";
    this.complain("height", heightProblem);
    this.complain("weight", weightProblem);
    if (heightProblem || weightProblem) {
      const name = heightProblem
        ? this.imperial ? "heightFt" : "heightCm"
        : this.imperial ? "weightLb" : "weightKg";
      this.fields[name].focus();
      return null;
    }
    const job = { heightCm: Math.round(height * 10) / 10 };
    if (weight != null) job.weightKg = Math.round(weight * 10) / 10;
    if (this.fields.gender.value) job.gender = this.fields.gender.value;
    return job;
  }

  complain(field, text) {
    this.element.querySelector(`#${field}-problem`).textContent = text;
    for (const input of this.element.querySelectorAll(`input[name^="${field}"]`))
      input.setAttribute("aria-invalid", String(Boolean(text)));
  }
}
