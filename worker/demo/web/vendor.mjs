// `npm run vendor`: copy what the page uses to ../static/vendor, licences included.
// The page's import map and style sheet name these files, so that nothing is fetched from
// elsewhere at view time.
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const vendor = join(here, "..", "static", "vendor");
const packages = {
  three: [
    "LICENSE",
    "build/three.core.js",
    "build/three.module.js",
    "examples/jsm/controls/OrbitControls.js",
    "examples/jsm/environments/RoomEnvironment.js",
    "examples/jsm/loaders/GLTFLoader.js",
    "examples/jsm/utils/BufferGeometryUtils.js", // GLTFLoader imports these two
    "examples/jsm/utils/SkeletonUtils.js",
  ],
  "@fontsource-variable/figtree": [
    "LICENSE",
    "files/figtree-latin-wght-normal.woff2",
    "files/figtree-latin-ext-wght-normal.woff2",
  ],
};

rmSync(vendor, { recursive: true, force: true });
for (const [name, files] of Object.entries(packages)) {
  for (const file of files) {
    const target = join(vendor, name.split("/").at(-1), file);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(join(here, "node_modules", name, file), target);
  }
}
