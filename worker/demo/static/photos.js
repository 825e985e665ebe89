// The two drop zones: choose or drop, look at the first bytes, show a preview.

const MAX_BYTES = 25 * 1024 * 1024;

/** What is wrong with a file, in a sentence; null when nothing is seen to be. */
export async function problemOf(file) {
  if (file.size === 0) return "This file is empty. Please choose another one.";
  if (file.size > MAX_BYTES) return "This photo is larger than 25 MB. Please choose a smaller one.";
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const text = String.fromCharCode(...head);
  const isJpeg = head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff;
  const isPng = text.startsWith("\x89PNG");
  const isWebp = text.startsWith("RIFF") && text.slice(8, 12) === "WEBP";
  const isHeif = text.slice(4, 8) === "ftyp";
  if (isJpeg || isPng || isWebp || isHeif) return null;
  return "This is not a photo that we can read. Please choose a JPEG, PNG, WebP or HEIC.";
}

/** One drop zone.  `file` is the photo that was accepted, or null. */
export class DropZone {
  constructor(element, onChange) {
    this.element = element;
    this.file = null;
    this.onChange = onChange;
    this.input = element.querySelector("input");
    this.preview = element.querySelector(".preview");
    this.hint = element.querySelector(".hint");
    this.badge = element.querySelector(".badge");
    this.removeButton = element.querySelector(".remove");
    this.problem = element.querySelector(".problem");

    this.input.addEventListener("change", () => this.input.files[0] && this.take(this.input.files[0]));
    this.removeButton.addEventListener("click", () => {
      this.clear();
      this.input.focus();
    });
    for (const kind of ["dragenter", "dragover"])
      element.addEventListener(kind, (event) => {
        event.preventDefault();
        element.classList.add("over");
      });
    for (const kind of ["dragleave", "drop"])
      element.addEventListener(kind, () => element.classList.remove("over"));
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
    this.preview.addEventListener("error", () => {
      // HEIC: most browsers cannot show it, the worker can read it.
      this.preview.hidden = true;
      this.hint.hidden = true;
      this.badge.hidden = false;
      this.badge.textContent = this.file?.name ?? "";
    });
  }

  async take(file) {
    const problem = await problemOf(file);
    this.clear();
    if (problem) return this.complain(problem);
    this.file = file;
    this.preview.src = URL.createObjectURL(file);
    this.preview.alt = `Your ${this.element.dataset.view} photo, ${file.name}`;
    this.preview.hidden = false;
    this.hint.hidden = true;
    this.removeButton.hidden = false;
    this.element.classList.add("filled");
    this.onChange(this);
  }

  clear() {
    if (this.preview.src) URL.revokeObjectURL(this.preview.src);
    this.file = null;
    this.input.value = "";
    this.preview.hidden = true;
    this.preview.removeAttribute("src");
    this.hint.hidden = false;
    this.badge.hidden = true;
    this.removeButton.hidden = true;
    this.element.classList.remove("filled");
    this.complain("");
    this.onChange(this);
  }

  complain(text) {
    this.problem.textContent = text;
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }
}
