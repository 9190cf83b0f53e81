"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const cells = new Map(data.cells.map((cell) => [cell.anchor, cell]));
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const state = { cell: "", image: "", mode: "", verdict: new Set(), model: new Set(), format: new Set(), gate: new Set() };
  const FILTERS = ["verdict", "model", "format", "gate"];
  const MODES = ["slider", "side", "blink", "difference", "map"];
  let active = null; // the comparison that keys act on

  // The hash holds what is seen, so that a link shows the same: #cell=...&image=4&mode=blink&format=nvfp4,mxfp8
  function readHash() {
    const text = location.hash.slice(1);
    const parts = new URLSearchParams(text.includes("=") ? text : { cell: safeDecode(text) });
    state.cell = parts.get("cell") || "";
    state.image = parts.get("image") || "";
    state.mode = parts.get("mode") || "";
    for (const name of FILTERS) state[name] = new Set((parts.get(name) || "").split(",").filter(Boolean).map(safeDecode));
  }
  function safeDecode(text) {
    try { return decodeURIComponent(text); } catch { return text; }
  }
  function writeHash() {
    const parts = new URLSearchParams();
    for (const name of ["cell", "image", "mode"]) if (state[name]) parts.set(name, state[name]);
    for (const name of FILTERS) if (state[name].size) parts.set(name, [...state[name]].map(encodeURIComponent).join(","));
    history.replaceState(null, "", `#${parts}`);
  }

  function matches(cell) {
    return FILTERS.every((name) => !state[name].size || state[name].has(cell[name]));
  }
  function applyFilters() {
    for (const button of all("[data-filter]")) {
      button.setAttribute("aria-pressed", String(state[button.dataset.filter].has(button.dataset.value)));
    }
    let shown = 0;
    for (const cell of data.cells) {
      const is = matches(cell);
      shown += is;
      document.getElementById(cell.anchor).hidden = !is;
    }
    for (const element of all("[data-cell]")) element.classList.toggle("off", !matches(cells.get(element.dataset.cell)));
    const count = document.querySelector(".count");
    if (count) count.textContent = shown === data.cells.length ? "" : `${shown} of ${data.cells.length} shown`;
  }

  // Details of cells that did not fail are packed until one of them is opened: thousands of them open in a second.
  let unpacking = null, bodies = null;
  function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("bodies").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text().then((text) => { bodies = text.split("\0"); });
  }
  function fill(cell, then = () => {}) {
    if (cell.dataset.later && !bodies) {
      unpacking = unpacking || unpack();
      unpacking.then(() => fill(cell, then));
      return;
    }
    if (!cell.dataset.ready) {
      cell.dataset.ready = "yes";
      if (cell.dataset.later) cell.append(...new DOMParser().parseFromString(bodies[cell.dataset.later], "text/html").body.childNodes);
      for (const compare of all(".compare", cell)) prepare(compare);
      for (const dot of all(".strip .dot[data-index]", cell)) dot.addEventListener("click", () => pick(cell, dot.dataset.index, true));
      for (const button of all(".pick", cell)) button.addEventListener("click", () => pick(cell, button.dataset.index, true));
      for (const box of all(".accept input", cell)) box.addEventListener("change", showAccepted);
    }
    then();
  }
  function open(anchor, { scroll = true, then = () => {} } = {}) {
    const cell = document.getElementById(anchor);
    if (!cells.has(anchor) || !cell) return;
    cell.hidden = false;
    cell.open = true;
    fill(cell, () => {
      active = cell.querySelector(".compare") || active;
      then(cell);
    });
    if (scroll) {
      cell.scrollIntoView({ block: "start" });
      cell.querySelector("summary").focus({ preventScroll: true });
    }
  }

  function prepare(compare) {
    compare.addEventListener("pointerenter", () => { active = compare; });
    compare.addEventListener("focusin", () => { active = compare; });
    for (const button of all("[data-mode]", compare)) button.addEventListener("click", () => setMode(compare, button.dataset.mode, true));
    for (const button of all("[data-zoom]", compare)) button.addEventListener("click", () => zoom(compare, button.dataset.zoom));
    const slide = compare.querySelector(".slide input");
    slide.addEventListener("input", () => cut(compare, slide.value));
    const blink = compare.querySelector(".blink");
    for (const name of ["pointerdown", "pointerup", "pointerleave"]) blink.addEventListener(name, () => show(compare, name === "pointerdown"));
    blink.addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") show(compare, true); });
    blink.addEventListener("keyup", () => show(compare, false));
    for (const group of all(".players", compare)) group.classList.contains("audio") ? inTurn(all("audio", group)) : inStep(all("video", group));
    for (const figure of all(".frames", compare)) figure.querySelector("svg").addEventListener("click", (event) => seek(compare, figure, event));
    for (const image of all("img", compare)) image.addEventListener("load", () => measure(compare));
    drag(compare);
    const first = compare.querySelector(".source");
    setImage(compare, first.dataset.index);
    setMode(compare, "slider");
  }
  function setImage(compare, index) {
    const source = all(".source", compare).find((element) => element.dataset.index === index);
    if (!source) return false;
    compare.dataset.image = index;
    for (const name of ["reference", "quantized", "map"]) {
      const pane = compare.querySelector(`.pane.${name}`), image = pane.querySelector("img"), key = source.dataset[name];
      if (!key) { image.removeAttribute("src"); continue; }
      image.src = data.embedded[key] || key;
      image.alt = `${pane.querySelector(".arm").textContent}, image ${index}: ${source.textContent.slice(0, 200)}`;
    }
    compare.querySelector(".copied").hidden = !source.dataset.copy;
    compare.querySelector(".pane.map .arm").textContent = source.dataset.map ? "LPIPS map" : "no LPIPS map of this image";
    if (source.dataset.peak) compare.querySelector(".pane.map .arm").textContent = `LPIPS map, brightest ${source.dataset.peak}`;
    compare.querySelector(".said").textContent = source.textContent;
    for (const button of all(".picks .pick", compare)) button.setAttribute("aria-pressed", String(button.dataset.index === index));
    for (const part of all(".frames, .players", compare)) part.hidden = part.dataset.index !== index;
    return true;
  }
  function pick(cell, index, note = false) {
    const compare = cell.querySelector(".compare");
    for (const element of all(".strip .dot, .values tr", cell)) element.classList.toggle("current", element.dataset.index === index);
    const row = cell.querySelector(`.values tr[data-index="${CSS.escape(index)}"]`);
    if (row) row.scrollIntoView({ block: "nearest" });
    if (!compare || !setImage(compare, index)) return;
    active = compare;
    if (note) compare.scrollIntoView({ block: "nearest" });
    state.cell = cell.id;
    state.image = index;
    writeHash();
  }
  function setMode(compare, mode, note = false) {
    if (mode === "map" && !all("[data-mode=map]", compare).length) return;
    compare.dataset.mode = mode;
    for (const button of all(".modes [data-mode]", compare)) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    compare.querySelector(".slide").hidden = mode !== "slider";
    compare.querySelector(".cut").hidden = mode !== "slider";
    compare.querySelector(".hold").hidden = mode !== "blink";
    compare.querySelector(".both").hidden = mode !== "difference";
    compare.querySelector(".pane.map").hidden = mode !== "map";
    for (const name of ["reference", "quantized"]) compare.querySelector(`.pane.${name}`).hidden = mode === "map";
    show(compare, false);
    measure(compare);
    if (!note) return;
    active = compare;
    state.cell = compare.dataset.anchor;
    state.mode = mode;
    writeHash();
  }
  const cut = (compare, percent) => compare.style.setProperty("--cut", `${percent}%`);
  const show = (compare, quantized) => compare.classList.toggle("showing", quantized);

  // Zoom and pan hold for all panes: they are set on the comparison.
  const view = new WeakMap();
  function zoom(compare, way) {
    const now = view.get(compare) || { zoom: 1, x: 0, y: 0 };
    const factor = way === "in" ? 2 : way === "out" ? 0.5 : 1 / now.zoom;
    place(compare, Math.min(32, Math.max(1, now.zoom * factor)), now.x * factor, now.y * factor);
  }
  function place(compare, scale, x, y) {
    const pane = all(".pane", compare).find((element) => element.clientWidth) || compare;
    const limit = (value, length) => Math.min(0, Math.max(length * (1 - scale), value));
    const next = { zoom: scale, x: limit(x, pane.clientWidth), y: limit(y, pane.clientHeight) };
    view.set(compare, next);
    compare.style.setProperty("--zoom", next.zoom);
    compare.style.setProperty("--x", `${next.x}px`);
    compare.style.setProperty("--y", `${next.y}px`);
    compare.classList.toggle("zoomed", scale > 1);
    compare.querySelector(".zoom output").textContent = `${scale}×`;
    measure(compare);
  }
  function measure(compare) { // enlarged pixels stay squares
    const image = all("img", compare).find((element) => element.clientWidth && element.naturalWidth);
    const scale = (view.get(compare) || { zoom: 1 }).zoom;
    if (image) compare.classList.toggle("pixels", (image.clientWidth * scale) / image.naturalWidth >= 2);
  }
  function drag(compare) {
    const stage = compare.querySelector(".stage");
    let from = null;
    stage.addEventListener("pointerdown", (event) => {
      const now = view.get(compare) || { zoom: 1, x: 0, y: 0 };
      from = { x: event.clientX - now.x, y: event.clientY - now.y, zoom: now.zoom };
      if (compare.dataset.mode === "slider" && now.zoom === 1) slide(event);
      stage.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      if (from.zoom > 1) place(compare, from.zoom, event.clientX - from.x, event.clientY - from.y);
      else if (compare.dataset.mode === "slider") slide(event);
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { from = null; });
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(compare, event.deltaY < 0 ? "in" : "out");
    }, { passive: false });
    function slide(event) {
      const box = stage.getBoundingClientRect();
      const percent = Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
      compare.querySelector(".slide input").value = percent;
      cut(compare, percent);
    }
  }

  // Both videos play, pause and seek together; one is heard: the one that is not muted.
  function inStep(videos) {
    for (const video of videos) {
      video.src = data.embedded[video.dataset.key] || video.dataset.key;
      const others = videos.filter((other) => other !== video);
      video.addEventListener("play", () => others.forEach((other) => { other.currentTime = video.currentTime; other.play(); }));
      video.addEventListener("pause", () => others.forEach((other) => { other.pause(); other.currentTime = video.currentTime; }));
      video.addEventListener("seeking", () => others.forEach((other) => {
        if (Math.abs(other.currentTime - video.currentTime) > 0.02) other.currentTime = video.currentTime;
      }));
      video.addEventListener("volumechange", () => { if (!video.muted) others.forEach((other) => { other.muted = true; }); });
    }
  }
  // Of two recordings one is heard: it starts where the other is stopped.
  function inTurn(players) {
    for (const player of players) {
      player.src = data.embedded[player.dataset.key] || player.dataset.key;
      const others = players.filter((other) => other !== player);
      player.addEventListener("play", () => others.filter((other) => !other.paused).forEach((other) => {
        other.pause();
        player.currentTime = other.currentTime;
      }));
    }
  }
  function seek(compare, figure, event) {
    const video = compare.querySelector(`.players[data-index="${CSS.escape(figure.dataset.index)}"] video`);
    const box = event.currentTarget.getBoundingClientRect();
    if (video && video.duration) video.currentTime = (video.duration * (event.clientX - box.left)) / box.width;
  }

  // What is accepted becomes a command and lines to paste; nothing is sent anywhere.
  function showAccepted() {
    const chosen = all(".accept input:checked").map((box) => cells.get(box.dataset.anchor).accept);
    const refresh = [...new Set(chosen.filter((accept) => accept.kind === "refresh").map((accept) => accept.text))];
    const bounds = [...new Set(chosen.filter((accept) => accept.kind === "bounds").map((accept) => accept.text))];
    const quoted = refresh.map((nodeid) => `'${nodeid.replaceAll("'", "'\\''")}'`);
    const lines = [];
    if (refresh.length) lines.push(`pytest ${quoted.join(" ")} --mxq-refresh`);
    if (bounds.length) lines.push("# put these keys into the markers:", ...bounds);
    const bar = document.querySelector(".accepting");
    bar.hidden = !chosen.length;
    bar.querySelector("p").textContent = `${chosen.length} accepted:`;
    bar.querySelector("pre").textContent = lines.join("\n");
  }

  async function copy(button) {
    const source = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch { // no permission, or a browser that gives files none
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  function walk(step) {
    const red = all("details.cell.bad, details.cell.unclear").filter((cell) => !cell.hidden);
    if (!red.length) return;
    const now = red.findIndex((cell) => cell.id === state.cell);
    const next = red[now < 0 ? (step > 0 ? 0 : red.length - 1) : (now + step + red.length) % red.length];
    state.cell = next.id;
    state.image = "";
    open(next.id);
    writeHash();
  }
  function nextImage(compare) {
    const indices = all(".source", compare).map((source) => source.dataset.index);
    pick(compare.closest(".cell"), indices[(indices.indexOf(compare.dataset.image) + 1) % indices.length]);
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range], [type=checkbox]), textarea")) return;
    const compare = active && active.isConnected ? active : null;
    if (event.key === "j" || event.key === "k") walk(event.key === "j" ? 1 : -1);
    else if (!compare) return;
    else if (event.key >= "1" && event.key <= "5") setMode(compare, MODES[event.key - 1], true);
    else if (event.key === "b") {
      if (compare.dataset.mode !== "blink") setMode(compare, "blink", true);
      show(compare, true);
    } else if (event.key === "n") nextImage(compare);
    else if (event.key === "+" || event.key === "=") zoom(compare, "in");
    else if (event.key === "-") zoom(compare, "out");
    else if (event.key === "0") zoom(compare, "fit");
  });
  addEventListener("keyup", (event) => { if (event.key === "b" && active) show(active, false); });
  addEventListener("beforeprint", () => { for (const cell of all("details.cell.bad, details.cell.unclear")) open(cell.id, { scroll: false }); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const link = event.target.closest('a[href^="#"]');
    if (button && button.dataset.filter) {
      const chosen = state[button.dataset.filter];
      if (!chosen.delete(button.dataset.value)) chosen.add(button.dataset.value);
      applyFilters();
      writeHash();
    } else if (button && button.classList.contains("copy")) copy(button);
    else if (button && button.classList.contains("clear")) {
      for (const box of all(".accept input:checked")) box.checked = false;
      showAccepted();
    } else if (link) {
      event.preventDefault();
      state.cell = safeDecode(link.getAttribute("href").slice(1));
      state.image = "";
      open(state.cell);
      writeHash();
    }
  });

  function follow() {
    readHash();
    applyFilters();
    const { cell, image, mode } = state;
    if (cell) open(cell, { then: (opened) => {
      const compare = opened.querySelector(".compare");
      if (!compare) return;
      if (image) pick(opened, image);
      if (MODES.includes(mode)) setMode(compare, mode);
    } });
  }
  for (const cell of all("details.cell")) cell.addEventListener("toggle", () => { if (cell.open) fill(cell); });
  for (const cell of all("details.cell[open]")) open(cell.id, { scroll: false });
  addEventListener("hashchange", follow);
  follow();
})();
