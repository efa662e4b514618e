"use strict";
// Everything can be read without this. With it: the theme is switched, a chart says what is under the pointer or where
// the arrow keys are, and a live page keeps itself up to date.

const root = document.documentElement;

function remembered(theme) {
  try {
    if (theme !== undefined) localStorage.setItem("xybridd-theme", theme);
    return localStorage.getItem("xybridd-theme");
  } catch { return null; } // a page from a file may have no storage
}

function setTheme(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  const button = document.getElementById("theme");
  button.textContent = `Theme: ${root.dataset.theme ?? "as the system"}`;
  button.hidden = false;
}

document.getElementById("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme ?? "system") + 1) % order.length];
  remembered(next);
  setTheme(next);
});
setTheme(remembered());

// A chart is read like a slider: its rows are the rows of its table.

function enhance(plot) {
  const figure = plot.closest("figure");
  const rows = [...figure.querySelectorAll("tbody tr")];
  const heads = [...figure.querySelectorAll("thead th")].map((head) => head.textContent);
  const reading = figure.querySelector(".reading");
  const cursor = plot.querySelector(".cursor");
  if (!rows.length) return;
  const places = rows.map((row) => Number(row.dataset.x));
  let at = rows.length - 1;
  const said = (number) => [...rows[number].cells]
    .map((cell, column) => column ? `${heads[column]} ${cell.textContent}` : cell.textContent).join(" · ");

  function show(number) {
    at = Math.max(0, Math.min(rows.length - 1, number));
    const place = `${(100 * places[at]).toFixed(2)}%`;
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.setAttribute("visibility", "visible");
    reading.textContent = said(at);
    plot.setAttribute("aria-valuenow", at);
    plot.setAttribute("aria-valuetext", said(at));
  }
  function hide() {
    if (document.activeElement === plot) return;
    cursor.setAttribute("visibility", "hidden");
    reading.textContent = "";
  }
  function nearest(share) {
    let best = 0;
    places.forEach((place, number) => {
      if (Math.abs(place - share) < Math.abs(places[best] - share)) best = number;
    });
    return best;
  }

  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-label", `${plot.dataset.label}, read by arrow keys`);
  plot.setAttribute("aria-valuemin", 0);
  plot.setAttribute("aria-valuemax", rows.length - 1);
  plot.setAttribute("aria-valuenow", at);
  plot.setAttribute("aria-valuetext", said(at));
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show(nearest((event.clientX - box.left) / box.width));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => show(at));
  plot.addEventListener("blur", hide);
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
  plot.addEventListener("keydown", (event) => {
    if (event.key in moves) show(at + moves[event.key]);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(rows.length - 1);
    else return;
    event.preventDefault();
  });
  plot.goTo = (number) => { at = Math.max(0, Math.min(rows.length - 1, number)); };
}
document.querySelectorAll(".plot").forEach(enhance);

// A live page asks for its sections anew and replaces those that changed; what was open, focused or scrolled stays so.

function replace(section, html) {
  const open = [...section.querySelectorAll("details[open]")].map((details) => details.id);
  const scrolled = [...section.querySelectorAll(".scroll")].map((frame) => [frame.scrollLeft, frame.scrollTop]);
  const focused = section.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && [...section.querySelectorAll("[tabindex], summary, a")].indexOf(focused);
  const value = focused && focused.getAttribute("aria-valuenow");
  section.innerHTML = html;
  for (const id of open) { const details = document.getElementById(id); if (details) details.open = true; }
  section.querySelectorAll(".plot").forEach(enhance);
  section.querySelectorAll(".scroll").forEach((frame, number) => {
    if (scrolled[number]) [frame.scrollLeft, frame.scrollTop] = scrolled[number];
  });
  if (focused) {
    const same = section.querySelectorAll("[tabindex], summary, a")[place];
    if (same && same.goTo && value !== null) same.goTo(Number(value));
    if (same) same.focus({ preventScroll: true });
  }
}

const live = document.getElementById("live");
if (live) {
  const shown = new Map();
  const every = Number(live.dataset.everyMs);
  const say = (text, at, gone) => {
    if (live.textContent !== text) live.textContent = text;
    document.getElementById("live-at").textContent = at;
    live.classList.toggle("gone", gone);
  };
  const update = async () => {
    let answer;
    try {
      const response = await fetch("live.json", { cache: "no-store" });
      if (!response.ok) throw new Error(response.status);
      answer = await response.json();
    } catch {
      say("xybridd dashboard has ended; what you see is what was last known", "", true);
      return;
    }
    if (answer.gone) {
      say(`The daemon is gone (${answer.gone}); this page goes on when it is back`, "", true);
      return;
    }
    const main = document.querySelector("main");
    const keys = Object.keys(answer.sections).filter((key) => key !== "covers" && key !== "links");
    const are = [...main.children].map((section) => section.id);
    if (keys.join() !== are.join()) {
      main.replaceChildren(...keys.map((key) => Object.assign(document.createElement("section"), { id: key })));
      shown.clear();
    }
    for (const [key, html] of Object.entries(answer.sections)) {
      if (shown.get(key) !== html) replace(document.getElementById(key), html);
      shown.set(key, html);
    }
    say("Live", answer.at, false);
  };
  const loop = async () => {
    if (!document.hidden) await update();
    setTimeout(loop, every);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
  loop();
}
