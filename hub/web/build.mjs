// Copies what the pages borrow from node_modules to static/vendor/, nothing more.
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "static", "vendor");
const fonts = ["vietnamese", "latin"].flatMap((subset) =>
  ["400", "600"].map((weight) => `@fontsource/be-vietnam-pro/files/be-vietnam-pro-${subset}-${weight}-normal.woff2`),
);
const files = [
  "htmx.org/dist/htmx.min.js",
  "idiomorph/dist/idiomorph.min.js",
  "uplot/dist/uPlot.iife.min.js",
  "uplot/dist/uPlot.min.css",
  ...fonts,
];
rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const file of files) copyFileSync(join(here, "node_modules", file), join(target, file.split("/").pop()));
