
"use strict";
// A decision for each suspect: "" is that its label is right, a class that it is that; kept by the browser meanwhile.
const at = (id) => document.getElementById(id);
const items = [...document.querySelectorAll(".suspects li")];
const words = at("judge").dataset; // in the page's language, with places %1, %2, ...
const kept = "suspects " + words.of;
const decisions = new Map();
let now = 0;

const fill = (text, ...values) => text.replace(/%(\d)/g, (_, place) => values[place - 1]);

try {
  for (const [name, decision] of JSON.parse(localStorage.getItem(kept) || "[]")) decisions.set(name, decision);
} catch { /* a browser that keeps nothing of files */ }

function show() {
  const item = items[now], { label, suggested, fingerprint } = item.dataset;
  items.forEach((each, place) => {
    const decision = decisions.get(each.dataset.fingerprint);
    each.classList.toggle("now", place === now);
    each.classList.toggle("corrected", Boolean(decision));
    each.classList.toggle("kept", decision === "");
  });
  at("picture").className = item.querySelector(".tile").className;
  at("picture").setAttribute("aria-label", item.querySelector(".name").textContent);
  const decision = decisions.get(fingerprint);
  const decided = decision === undefined ? "" : " " + (decision ? fill(words.corrected, decision) : words.kept);
  at("question").textContent = fill(words.asked, now + 1, items.length, label, suggested) + decided;
  at("other").value = "";
  const judged = items.map((each) => decisions.get(each.dataset.fingerprint)).filter((each) => each !== undefined);
  at("progress").textContent = fill(words.judged, judged.length, items.length, judged.filter(Boolean).length);
}

function go(step) {
  now = Math.min(Math.max(now + step, 0), items.length - 1);
  show();
}

function decide(decision) {
  const { label, fingerprint } = items[now].dataset;
  if (decision === undefined) decisions.delete(fingerprint);
  else decisions.set(fingerprint, decision === label ? "" : decision);
  try {
    localStorage.setItem(kept, JSON.stringify([...decisions]));
  } catch { /* as above */ }
  go(decision === undefined ? 0 : 1);
}

// what a spreadsheet would compute gets a ' before it, as in every table of the project's
const cell = (text) => '"' + (/^[=@+-]/.test(text) ? "'" : "") + text.replaceAll('"', '""') + '"';

function save() {
  const lines = ["fingerprint,class,was,image"];
  for (const { dataset } of items) {
    const decision = decisions.get(dataset.fingerprint);
    if (decision) lines.push([dataset.fingerprint, decision, dataset.label, dataset.image].map(cell).join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  at("progress").textContent = fill(words.saved, lines.length - 1);
}

const keys = {
  Enter: () => decide(items[now].dataset.suggested),
  r: () => decide(""),
  u: () => decide(undefined),
  s: save,
  ArrowLeft: () => go(-1),
  ArrowRight: () => go(1),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  if (event.key === "Enter" && event.target.tagName === "BUTTON") return; // it is that button's
  const option = /^[0-9]$/.test(event.key) ? at("other").options[Number(event.key) + 1] : null;
  const action = option ? () => decide(option.value) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
at("accept").addEventListener("click", keys.Enter);
at("reject").addEventListener("click", keys.r);
at("undo").addEventListener("click", keys.u);
at("save").addEventListener("click", save);
at("other").addEventListener("change", () => at("other").value && decide(at("other").value));
items.forEach((item, place) => item.addEventListener("click", () => { now = place; show(); }));
show();
