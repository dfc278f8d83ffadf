"use strict";
(() => {
  const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
  const one = (selector, root) => (root || document).querySelector(selector);
  const toast = (text) => {
    const place = one(".toast");
    place.textContent = text;
    place.classList.add("on");
    setTimeout(() => place.classList.remove("on"), 1600);
  };
  const save = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    toast("copied");
  };

  // Theme: the system's until the reader chooses.
  const remembered = { get: () => { try { return localStorage.getItem("csa-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("csa-theme", value); } catch { /* a file may have no storage */ } } };
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const setTheme = (value) => {
    if (value) document.documentElement.dataset.theme = value;
    one("#theme").setAttribute("aria-pressed", String(dark()));
    paint();
  };
  one("#theme").addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    remembered.set(next);
    setTheme(next);
  });
  one("#print").addEventListener("click", () => print());
  one("#json").addEventListener("click", () => save("report.json", one("#report-data").textContent));

  // Tabs: arrow keys, Home and End; the address remembers the tab.
  const tabs = all("[role=tab]");
  const open = (tab, focus) => {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      one("#" + other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => { open(tab); history.replaceState(null, "", "#" + tab.dataset.name); scrollTo(0, 0); });
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs[(to + tabs.length) % tabs.length];
      open(next, true);
      history.replaceState(null, "", "#" + next.dataset.name);
    });
  });
  const named = () => tabs.find((tab) => "#" + tab.dataset.name === location.hash) || tabs[0];
  addEventListener("hashchange", () => open(named()));
  open(named());

  // Tables: sort by any column, copy as tab-separated text, save as JSON.
  const value = (cell) => {
    const given = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(given.replace(/^[≥≤]\s*/, "").replace(/\s.*$/, ""));
    return given === "" || given === "-" || Number.isNaN(number) ? given : number;
  };
  const rank = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? -1 : typeof b === "number" ? 1 : String(a).localeCompare(String(b)));
  for (const table of all("table")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const name = head.textContent.trim();
      if (!name) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = all("tbody tr", table).sort((a, b) => rank(value(a.cells[column]), value(b.cells[column])) * (down ? -1 : 1));
        one("tbody", table).append(...rows);
      });
    });
    const names = heads.map((head, index) => head.textContent.trim() || (index ? "column " + (index + 1) : "name"));
    const cells = () => all("tbody tr", table).map((row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/\s+/g, " ")));
    const tools = document.createElement("div");
    tools.className = "sheet-tools";
    const title = table.getAttribute("aria-label") || "table";
    for (const [label, action] of [
      ["Copy", () => copy([names, ...cells()].map((row) => row.join("\t")).join("\n"))],
      ["JSON", () => save(title.replace(/\W+/g, "-") + ".json", JSON.stringify(cells().map((row) => Object.fromEntries(row.map((cell, i) => [names[i], cell]))), null, 2))],
    ]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-label", label + ": " + title);
      button.addEventListener("click", action);
      tools.append(button);
    }
    table.closest(".sheet").after(tools);
  }

  // Sheets that scroll sideways can be reached and scrolled with the keyboard.
  const reachable = () => all(".sheet, .chart-scroll, pre").forEach((box) => {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  new ResizeObserver(reachable).observe(document.body);
  document.addEventListener("toggle", reachable, true);

  // One graph at a time, the same under Layers and under Graph.
  const frames = all(".network");
  const shown = () => frames.find((frame) => !frame.hidden);
  const choosers = all(".which");
  for (const chooser of choosers) chooser.addEventListener("change", () => {
    for (const other of choosers) other.value = chooser.value;
    for (const part of all("[data-graph]")) part.hidden = part.dataset.graph !== chooser.value;
    paint();
    reachable();
  });

  // The network: colour by a quantity, find by name, zoom and pan with mouse, touch or keys.
  const heat = (share) => `hsl(${Math.round(210 - 195 * share)} ${Math.round(45 + 40 * share)}% ${dark() ? Math.round(24 + 22 * share) : Math.round(93 - 33 * share)}%)`;
  const hues = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
  const kinds = [["convolution, matrix product", "--c0"], ["multiplication", "--c1"], ["sum", "--c3"], ["activation", "--c4"], ["resize, pooling", "--c2"], ["moves data, other", "--c5"]];
  const units = { time: "µs on this CPU", macs: "multiply-accumulates", bytes: "bytes", error: "added, relative" };
  const legend = (entries) => one("#legend").replaceChildren(...entries.map(([colour, text]) => {
    const item = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    item.append(swatch, text);
    return item;
  }));
  function paint() {
    if (!frames.length) return;
    const by = one("#colour").value;
    const nodes = all(".node", shown());
    for (const node of nodes) one("rect", node).removeAttribute("style");
    if (by === "op") return legend(kinds.map(([name, colour]) => [`var(${colour})`, name]));
    if (by === "precision") {
      const found = [...new Set(nodes.map((node) => node.dataset.precision))].sort();
      const colour = (kind) => `var(${hues[found.indexOf(kind) % hues.length]})`;
      for (const node of nodes) one("rect", node).style.cssText = `fill: color-mix(in srgb, ${colour(node.dataset.precision)} 30%, var(--card)); stroke: ${colour(node.dataset.precision)}`;
      return legend(found.map((kind) => [colour(kind), `${kind}: ${nodes.filter((node) => node.dataset.precision === kind).length}`]));
    }
    const key = { time: "timeUs", macs: "macs", bytes: "bytes", error: "error" }[by];
    const known = nodes.filter((node) => node.dataset[key] !== undefined);
    const most = Math.max(...known.map((node) => Number(node.dataset[key])), 1e-30);
    for (const node of known) one("rect", node).style.cssText = `fill: ${heat(Math.sqrt(Number(node.dataset[key]) / most))}; stroke: var(--soft)`;
    legend(known.length ? [[heat(0), "0"], [heat(0.5), "a quarter"], [heat(1), `${most < 1 ? most.toPrecision(2) : Number(most.toPrecision(3)).toLocaleString("en")} ${units[by]}`]] : [["var(--c5)", "not measured for this graph"]]);
  }
  for (const node of all(".node")) {
    const tip = document.createElementNS(node.namespaceURI, "title");
    tip.textContent = [node.dataset.name, node.dataset.op + " " + node.dataset.shape, node.dataset.module].join("\n");
    node.prepend(tip);
  }
  const find = () => {
    const wanted = one("#find").value.trim().toLowerCase();
    for (const node of all(".node")) {
      const d = node.dataset;
      node.classList.toggle("dim", wanted !== "" && ![d.name, d.module, d.op].some((text) => (text || "").toLowerCase().includes(wanted)));
    }
  };
  const views = new Map(frames.map((frame) => {
    const drawing = one("svg", frame);
    const full = { x: 0, y: 0, w: Number(drawing.dataset.width), h: Number(drawing.dataset.height) };
    let view = { ...full };
    const show = () => drawing.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
    const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const zoom = (factor, point = { x: view.x + view.w / 2, y: view.y + view.h / 2 }) => {
      const by = Math.min(Math.max(view.w * factor, 150), full.w * 1.6) / view.w;
      view = { x: point.x - (point.x - view.x) * by, y: point.y - (point.y - view.y) * by, w: view.w * by, h: view.h * by };
      show();
    };
    const pan = (dx, dy) => { view.x += dx; view.y += dy; show(); };
    const reset = () => { view = { ...full }; show(); };
    frame.addEventListener("keydown", (event) => {
      const act = { "+": () => zoom(0.7), "-": () => zoom(1.4), 0: reset, ArrowLeft: () => pan(-0.12 * view.w, 0), ArrowRight: () => pan(0.12 * view.w, 0), ArrowUp: () => pan(0, -0.12 * view.h), ArrowDown: () => pan(0, 0.12 * view.h) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    drawing.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY > 0 ? 1.15 : 0.87, at(event)); }, { passive: false });
    // One finger or the mouse moves, two fingers zoom about the other one.
    const down = new Map();
    const distance = () => { const [a, b] = [...down.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };
    drawing.addEventListener("pointerdown", (event) => down.set(event.pointerId, event));
    addEventListener("pointermove", (event) => {
      const before = down.get(event.pointerId);
      if (!before) return;
      const from = at(before), apart = down.size === 2 && distance();
      down.set(event.pointerId, event);
      if (down.size === 1) pan(from.x - at(event).x, from.y - at(event).y);
      else if (apart) zoom(apart / Math.max(distance(), 1), at([...down.values()].find((other) => other.pointerId !== event.pointerId)));
    });
    for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => down.delete(event.pointerId));
    drawing.addEventListener("click", (event) => {
      const node = event.target.closest(".node");
      if (!node) return;
      all(".chosen").forEach((other) => other.classList.remove("chosen"));
      node.classList.add("chosen");
      const d = node.dataset;
      one("#node-detail").textContent = [d.op, d.name, d.module && "module " + d.module, d.shape && "output " + d.shape, d.precision, d.macs !== "0" && d.macs && Number(d.macs).toLocaleString("en") + " multiply-accumulates", d.bytes && Number(d.bytes).toLocaleString("en") + " bytes", d.timeUs && d.timeUs + " µs on this CPU", d.error && "error " + Number(d.error).toExponential(1) + " added"].filter(Boolean).join("  ·  ");
    });
    return [frame, { zoom, reset }];
  }));
  if (frames.length) {
    one("#zoom-in").addEventListener("click", () => views.get(shown()).zoom(0.7));
    one("#zoom-out").addEventListener("click", () => views.get(shown()).zoom(1.4));
    one("#zoom-fit").addEventListener("click", () => views.get(shown()).reset());
    one("#colour").addEventListener("change", paint);
    one("#find").addEventListener("input", find);
  }
  setTheme(remembered.get());

  // On paper all parts are open, but not the tables of hundreds of rows.
  let closed = [];
  addEventListener("beforeprint", () => { closed = all("details.paper:not([open])"); closed.forEach((box) => { box.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((box) => { box.open = false; }));
})();
