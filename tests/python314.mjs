// The parameters' check under CPython 3.14 compiled for node. Usage: node python314.mjs <pyodide's folder> <checkout>
import fs from "fs";
import path from "path";
import { pathToFileURL } from "url";

const [folder, checkout] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(folder, "pyodide.mjs")));
const python = await loadPyodide({ indexURL: folder + path.sep });

function copy(from, to) {
  python.FS.mkdir(to);
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [path.join(from, entry.name), `${to}/${entry.name}`];
    if (entry.isDirectory()) copy(source, target);
    else if (/\.(py|json|ipynb)$/.test(entry.name)) python.FS.writeFile(target, fs.readFileSync(source));
  }
}
python.FS.mkdir("/checkout");
copy(path.join(checkout, "lagvae_lib"), "/checkout/lagvae_lib");
copy(path.join(checkout, "notebooks"), "/checkout/notebooks");
console.log(python.runPython(fs.readFileSync(path.join(checkout, "tests", "python314.py"), "utf8")));
