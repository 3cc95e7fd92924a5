"use strict";
(() => {
  const tip = document.getElementById("tip");
  let shown = null;
  const hide = () => {
    if (shown) shown.classList.remove("on");
    shown = null;
    tip.hidden = true;
  };
  const show = (point) => {
    if (point === shown) return;
    hide();
    shown = point;
    point.classList.add("on");
    const [heading, ...lines] = point.getAttribute("aria-label").split("\n");
    tip.replaceChildren(document.createElement("b"));
    tip.firstChild.textContent = heading;
    for (const line of lines) {
      tip.append(document.createElement("div"));
      tip.lastChild.textContent = line;
    }
    tip.hidden = false;
    const at = point.getBoundingClientRect();
    const x = at.left + at.width / 2 - tip.offsetWidth / 2;
    const above = at.top - tip.offsetHeight - 10;
    tip.style.left = Math.max(6, Math.min(x, document.documentElement.clientWidth - tip.offsetWidth - 6)) + "px";
    tip.style.top = (above > 6 ? above : at.bottom + 10) + "px";
  };
  for (const drawing of document.querySelectorAll(".drawing")) {
    const points = [...drawing.querySelectorAll(".point")];
    for (const point of points) {
      // the values move from the browser's own slow tip to ours; assistive technology hears them as the name
      const title = point.querySelector("title");
      point.setAttribute("aria-label", title.textContent);
      title.remove();
      point.addEventListener("focus", () => show(point));
      point.addEventListener("blur", hide);
    }
    const nearest = (event) => {
      let best = null, least = 40;
      for (const point of points) {
        const at = point.getBoundingClientRect();
        const away = Math.hypot(at.left + at.width / 2 - event.clientX, at.top + at.height / 2 - event.clientY);
        if (away < least) [best, least] = [point, away];
      }
      if (best) show(best); else hide();
    };
    drawing.addEventListener("pointermove", nearest);
    drawing.addEventListener("pointerdown", nearest);
    drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    drawing.addEventListener("keydown", (event) => {
      const here = points.indexOf(document.activeElement);
      if (here < 0) return;
      const of = (point) => Number(point.dataset.series);
      const mine = points.filter((point) => of(point) === of(points[here]));
      const place = mine.indexOf(points[here]);
      const last = of(points[points.length - 1]);
      const other = (series) => {
        const theirs = points.filter((point) => of(point) === series);
        return theirs[Math.min(place, theirs.length - 1)];
      };
      const next = {
        ArrowLeft: () => mine[place - 1],
        ArrowRight: () => mine[place + 1],
        ArrowUp: () => other(of(points[here]) - 1),
        ArrowDown: () => other(Math.min(of(points[here]) + 1, last)),
        Home: () => mine[0],
        End: () => mine[mine.length - 1],
      }[event.key];
      if (!next) return;
      event.preventDefault();
      const target = next();
      if (!target) return;
      points[here].setAttribute("tabindex", "-1");
      target.setAttribute("tabindex", "0");
      target.focus();
    });
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("beforeprint", () => {
    for (const values of document.querySelectorAll("details.values")) values.open = true;
  });
})();
