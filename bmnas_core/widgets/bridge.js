// The browser's side of BrowserBridge, see base.py.

const CONTROLS = "button, select, input, textarea, a, summary, [tabindex]";
const OFF = "bmnas-off", FIXED = "#1f2328"; // edges that nobody decides
const WAIT = 300; // milliseconds after which somebody is told that the kernel is busy
const RECENT = 3000; // milliseconds for which a press may still wait for a cell that begins

// Parts of a genotype's picture that can be clicked: edges that are searched, and all nodes.
const CLICKABLE = /-c\d+_(x|y|s\d+)$|-(f\d+|c\d+_z)$/;
const openGraphs = root => {
  for (const group of root.querySelectorAll(".bmnas-graph g.node, .bmnas-graph g.edge")) {
    const path = group.querySelector("path");
    const decides = group.matches(".edge") && path?.getAttribute("stroke")?.toLowerCase() !== FIXED;
    if (group.hasAttribute("role") || !CLICKABLE.test(group.id)) continue;
    if (group.matches(".edge") && !decides) continue;
    group.setAttribute("role", "button");
    group.setAttribute("tabindex", "0");
    group.setAttribute("aria-label", group.querySelector("title")?.textContent ?? "");
    group.dataset.do = "part";
    group.dataset.at = group.id.slice(group.id.indexOf("-") + 1);
    if (decides) {
      const wide = path.cloneNode();
      wide.setAttribute("class", "bmnas-aim");
      group.append(wide);
    }
  }
};

// Menus and fields without a label are named by their tip.
const nameFields = root => {
  for (const field of root.querySelectorAll("select, input:not([type=range]), textarea")) {
    const tip = field.title || field.closest("[title]")?.title;
    const named = [...field.labels ?? []].some(label => label.textContent.trim());
    if (tip && !named && !field.ariaLabel) field.ariaLabel = tip;
  }
};

// Keep keys in the widget: JupyterLab would take an x on a menu for "cut the cell". And keep the
// focus: a button that must not be pressed is marked as disabled, since one that is loses it.
const tame = root => {
  let pressed = null; // a button in the widget's HTML that has the focus
  const note = event => { pressed = event.target.closest("[data-do]"); };
  const mark = () => {
    for (const control of root.querySelectorAll(CONTROLS)) {
      control.setAttribute("data-lm-suppress-shortcuts", "true");
    }
    for (const button of root.querySelectorAll("button")) {
      const off = String(button.classList.contains(OFF));
      if (button.getAttribute("aria-disabled") !== off) button.setAttribute("aria-disabled", off);
    }
    openGraphs(root);
    nameFields(root);
    if (pressed && !pressed.isConnected && document.activeElement === document.body) {
      const { do: what, at } = pressed.dataset; // its HTML was replaced
      const again = [...root.querySelectorAll(`[data-do="${what}"]`)];
      (again.find(one => one.dataset.at === at) ?? again[0])?.focus();
    }
  };
  const observer = new MutationObserver(mark);
  const how = { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] };
  const keep = event => event.stopPropagation();
  const refuse = event => {
    if (!event.target.closest?.(`.${OFF}`)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  mark();
  observer.observe(root, how);
  root.addEventListener("keydown", keep);
  root.addEventListener("focusin", note);
  root.addEventListener("click", refuse, true);
  return () => {
    observer.disconnect();
    root.removeEventListener("keydown", keep);
    root.removeEventListener("focusin", note);
    root.removeEventListener("click", refuse, true);
  };
};

// What a saved notebook shows in place of the widget is hidden while the widget is there.
const hideStills = (el, mark) => {
  const area = el.closest(".jp-OutputArea");
  const first = area?.querySelector(`[data-bmnas-still="${mark}"]`)?.closest(".jp-OutputArea-child");
  const hidden = [];
  for (let at = first; at && !at.contains(el); at = at.nextElementSibling) hidden.push(at);
  for (const output of hidden) output.style.display = "none";
  return () => { for (const output of hidden) output.style.display = ""; };
};

// The bar stays in view only if nothing between it and what scrolls clips it.
const SCROLLERS = ".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook, .jp-Notebook, body";
const unclip = root => {
  const clipped = [];
  for (let at = root.parentElement; at && !at.matches(SCROLLERS); at = at.parentElement) {
    if (getComputedStyle(at).overflow !== "visible") clipped.push([at, at.style.cssText]);
  }
  for (const [{ style }] of clipped) [style.overflow, style.minWidth] = ["visible", "0"];
  return () => { for (const [{ style }, before] of clipped) style.cssText = before; };
};

// A stage below a bar that stays in view stays below that.
const measure = root => {
  const bar = root.querySelector(":scope > .bmnas-bar");
  if (!bar) return () => {};
  const observer = new ResizeObserver(() => {
    root.style.setProperty("--bmnas-bar", `${bar.offsetHeight}px`);
  });
  observer.observe(bar);
  return () => observer.disconnect();
};

export default {
  render({ model, el }) {
    el.innerHTML = `<div aria-live="polite" class="bmnas-kernel" hidden></div><div></div>`;
    const [note, frame] = el.children;
    let root = el;
    let gone = false, asked = 0, patience = null, pressed = -Infinity; // when, in milliseconds
    const say = text => {
      const part = root.parentElement?.closest(".bmnas-root"); // whose own bridge says it
      note.textContent = part ? "" : text;
      note.hidden = !note.textContent;
    };
    // A picture replaces the last one once all of it can be painted: images in it take a while.
    let latest = 0;
    const paint = async () => {
      if (!model.get("picture")) return;
      const number = latest += 1, next = document.createElement("div");
      next.innerHTML = model.get("picture");
      next.style.cssText = "position: absolute; visibility: hidden";
      frame.append(next);
      const images = [...next.querySelectorAll("image, img")];
      await Promise.all(images.map(image => image.decode?.().catch(() => {})));
      if (number !== latest) return next.remove();
      next.style.cssText = "";
      frame.replaceChildren(next);
    };
    // Whoever presses something while a cell runs is told that it waits: by the kernel, if it can
    // answer beside the cell, or because it does not answer.
    const BUSY = "A cell is running. What you pressed takes effect when it ends.";
    const touched = () => {
      pressed = performance.now();
      if (gone || patience !== null) return;
      asked += 1;
      model.send({ ping: asked });
      patience = setTimeout(() => say(BUSY), WAIT);
    };
    const answered = () => {
      if (gone || model.get("pong") < asked) return;
      clearTimeout(patience);
      patience = null;
      const recent = performance.now() - pressed < RECENT;
      say(model.get("busy") && (recent || !note.hidden) ? BUSY : "");
    };
    const asks = event => {
      if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
      const from = event.target.closest?.("[data-do]");
      if (!from || !model.get("does").includes(from.dataset.do)) return;
      if (event.type === "keydown" && from.matches("button")) return; // it clicks by itself
      event.preventDefault();
      event.stopPropagation();
      model.send({ do: from.dataset.do, at: from.dataset.at });
    };
    const lost = () => {
      gone = true;
      clearTimeout(patience);
      say("Kernel restarted: run this cell again.");
      root.classList.add("bmnas-gone");
      for (const control of root.querySelectorAll("button")) {
        if (!control.closest(".bmnas-stage")) control.classList.add(OFF);
      }
    };
    globalThis.bmnasPage ??= String(Math.random());
    const count = by => model.send({ page: globalThis.bmnasPage, views: by });
    model.on("change:pong change:busy", answered);
    model.on("comm_live_update", lost);
    model.on("change:picture", paint);
    paint();
    const undo = [];
    const settle = setTimeout(() => { // once the view is in the page
      root = el.closest(".bmnas-root") ?? el;
      root.addEventListener("pointerdown", touched, true);
      root.addEventListener("keydown", touched, true);
      root.addEventListener("click", asks);
      root.addEventListener("keydown", asks);
      undo.push(tame(root), hideStills(el, model.get("mark")), unclip(root), measure(root));
    }, 0);
    count(1);
    return () => {
      clearTimeout(settle);
      clearTimeout(patience);
      model.off("change:pong change:busy", answered);
      model.off("comm_live_update", lost);
      model.off("change:picture", paint);
      root.removeEventListener("pointerdown", touched, true);
      root.removeEventListener("keydown", touched, true);
      root.removeEventListener("click", asks);
      root.removeEventListener("keydown", asks);
      undo.forEach(call => call());
      if (!gone) count(-1);
    };
  },
};
