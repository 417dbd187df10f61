
"use strict";
// Without this script each cell of the matrix leads to its images below; with it they open one cell at a time.
const matrix = document.querySelector(".matrix");
const sections = [...document.querySelectorAll(".cell")];
const links = matrix ? [...matrix.querySelectorAll("a")] : [];

function show(section, link) {
  for (const each of sections) each.classList.toggle("closed", each !== section);
  for (const each of links) each.setAttribute("aria-expanded", String(each === link));
  section?.querySelector("h3").focus();
}

for (const section of sections) {
  const link = links.find((each) => each.hash === "#" + section.id);
  if (!link) continue;
  section.classList.add("closed");
  section.querySelector("h3").tabIndex = -1;
  link.setAttribute("aria-expanded", "false");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const isOpen = link.getAttribute("aria-expanded") === "true";
    show(isOpen ? null : section, isOpen ? null : link);
  });
  section.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    show(null, null);
    link.focus();
  });
}

function neighbour(cell, across, down) {
  let place = cell;
  for (;;) {
    const row = place.parentElement;
    const next = across
      ? row.children[place.cellIndex + across]
      : (down > 0 ? row.nextElementSibling : row.previousElementSibling)?.children[place.cellIndex];
    if (!next) return null;
    const link = next.querySelector("a");
    if (link) return link;
    place = next;
  }
}

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
matrix?.addEventListener("keydown", (event) => {
  const cell = event.target.closest("td");
  if (!cell || !(event.key in arrows)) return;
  event.preventDefault();
  neighbour(cell, ...arrows[event.key])?.focus();
});

