// The browser's side of BrowserBridge, see base.py.
export default {
  render({ model, el }) {
    el.innerHTML = `<div><span>time</span><input type="range" min="0" style="flex: 1"
      aria-label="time" data-lm-suppress-shortcuts="true"></div>`;  // arrow keys stay here
    const line = el.firstChild, slider = line.lastChild;
    slider.onkeydown = event => event.stopPropagation();
    let held = false, waiting = false, wanted = null;
    const update = () => {
      const last = model.get("last");
      line.style.cssText = `display: ${last < 0 ? "none" : "flex"}; gap: 8px`;
      slider.max = last;
      if (!held && wanted === null) slider.value = model.get("shown");
    };
    const ask = () => {
      if (waiting || wanted === null) return;
      waiting = true;
      model.send({ show: wanted });
      wanted = null;
    };
    const painted = () => {
      const sent = model.get("sent");
      const tell = () => {
        model.set("painted", sent);
        model.save_changes();
        waiting = false;
        ask();
      };
      document.hidden ? tell() : requestAnimationFrame(() => setTimeout(tell, 0));
    };
    globalThis.bmnasPage ??= String(Math.random());
    const count = by => model.send({ page: globalThis.bmnasPage, views: by });
    slider.oninput = () => { wanted = Number(slider.value); ask(); };
    slider.onpointerdown = () => { held = true; };
    slider.onpointerup = slider.onblur = () => { held = false; update(); };
    model.on("change:last change:shown", update);
    model.on("change:sent", painted);
    update();
    count(1);
    return () => {
      model.off("change:last change:shown", update);
      model.off("change:sent", painted);
      count(-1);
    };
  },
};
