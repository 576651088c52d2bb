"""The page on which a picture can be dropped."""

from __future__ import annotations

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob:; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>verydeep</title>
<style>
body { font-family: sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem;
  color: #222; background: #fff; }
#drop { border: 2px dashed #777; border-radius: 8px; padding: 2rem; text-align: center;
  display: block; cursor: pointer; }
#drop.over, #file:focus + #drop { border-color: #06c; background: #eef5ff; }
#file { position: absolute; opacity: 0; }
#picture { max-width: 100%; max-height: 20rem; display: block; margin: 1rem auto; }
table { width: 100%; border-collapse: collapse; }
td { padding: .3rem; border-bottom: 1px solid #ddd; }
td.bar { width: 50%; }
td.bar div { background: #06c; height: 1rem; }
td.number { text-align: right; }
#error { color: #a00; }
</style>
</head>
<body>
<h1>Classify a picture</h1>
<input type="file" id="file" accept="image/*">
<label id="drop" for="file">Drop a picture here, or click to choose one.</label>
<img id="picture" alt="" hidden>
<p id="error" role="alert"></p>
<table aria-live="polite"><tbody id="result"></tbody></table>
<script>
"use strict";
const byId = (id) => document.getElementById(id);
const drop = byId("drop");

function cell(row, kind, text) {
  const element = row.insertCell();
  element.className = kind;
  element.textContent = text;
  return element;
}

function show(predictions) {
  for (const item of predictions) {
    const row = byId("result").insertRow();
    cell(row, "label", item.label);
    const bar = document.createElement("div");
    bar.style.width = (100 * item.probability).toFixed(1) + "%";
    cell(row, "bar", "").appendChild(bar);
    cell(row, "number", (100 * item.probability).toFixed(1) + " %");
  }
}

async function classify(file) {
  byId("error").textContent = "";
  byId("result").replaceChildren();
  const picture = byId("picture");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name;
  picture.hidden = false;
  try {
    const answer = await fetch("predict", { method: "POST", body: file,
      headers: { "Content-Type": "application/octet-stream" } });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    show(content.predictions);
  } catch (error) {
    byId("error").textContent = error.message;
  }
}

drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
});
byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) classify(event.target.files[0]);
});
</script>
</body>
</html>
"""
