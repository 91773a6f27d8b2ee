// Opens the page in a browser without a window and keeps a picture of it: node look.mjs [digit]
// The variable CHROMIUM is the path of the browser.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const KINDS = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  try {
    const body = await readFile(new URL(`.${path === "/" ? "/index.html" : path}`, import.meta.url));
    response.writeHead(200, { "content-type": KINDS[extname(path || ".html")] ?? "text/html" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, ready));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu"],
});
try {
  const page = await browser.newPage({ viewport: { width: 740, height: 580 } });
  page.on("pageerror", (error) => console.error(error));
  page.on("console", (message) => message.type() === "error" && console.error(message.text()));
  await page.goto(`http://localhost:${server.address().port}/`);
  const said = (words) => page.waitForSelector(`#said:has-text("${words}")`, { timeout: 60_000 });
  await said("logit");
  if (process.argv[2]) {
    await page.selectOption("#digit", process.argv[2]);
    await said(`digit ${process.argv[2]},`);
  }
  console.log((await page.textContent("#said")).replace("; ", "\n"));
  await page.screenshot({ path: fileURLToPath(new URL("page.png", import.meta.url)) });
  console.log("page.png: what the page shows");
} finally {
  await browser.close();
  server.close();
}
