// `npm run lock`: resolve package.json into a lock that any registry or mirror can serve.
// No hosts ("resolved"), no links for donations, and without msgpackr's optional native addon:
// it comes as one package per platform, and a mirror that lacks one of them makes `npm ci` fail.
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";

rmSync("node_modules", { recursive: true, force: true });
rmSync("package-lock.json", { force: true });
execFileSync("npm", ["install", "--package-lock-only", "--no-audit", "--no-fund"], { stdio: "inherit" });

const native = /(msgpackr-extract|node-gyp-build-optional-packages|detect-libc)/;
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
for (const [path, entry] of Object.entries(lock.packages)) {
  if (native.test(path)) {
    delete lock.packages[path];
    continue;
  }
  delete entry.resolved;
  delete entry.funding;
  if (entry.optionalDependencies) delete entry.optionalDependencies["msgpackr-extract"];
}
writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n");
