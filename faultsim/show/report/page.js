"use strict";
(() => {
  const tip = document.getElementById("tip");
  let shown = [];
  const middle = (element) => {
    const at = element.getBoundingClientRect();
    return [at.left + at.width / 2, at.top + at.height / 2];
  };
  const away = (element, [x, y]) => {
    const [left, top] = middle(element);
    return Math.hypot(left - x, top - y);
  };
  const hide = () => {
    for (const point of shown) point.classList.remove("on");
    shown = [];
    tip.hidden = true;
  };
  const place = () => {
    const at = shown[0].getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    const top = at.top - tip.offsetHeight - 10;
    tip.style.left = Math.max(6, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 6)) + "px";
    tip.style.top = (top > 6 ? top : at.bottom + 10) + "px";
  };
  const add = (parent, name, text) => {
    const element = document.createElement(name);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  // several points where they lie on each other
  const show = (points) => {
    if (points.length === shown.length && points.every((point, i) => point === shown[i])) return;
    hide();
    shown = points;
    tip.replaceChildren();
    for (const point of points) {
      point.classList.add("on");
      const [heading, ...lines] = point.getAttribute("aria-label").split("\n");
      const block = add(tip, "div", "");
      add(block, "b", heading);
      for (const line of lines) add(block, "div", line);
    }
    tip.hidden = false;
    place();
  };
  for (const drawing of document.querySelectorAll(".drawing")) {
    const points = [...drawing.querySelectorAll(".point")];
    for (const point of points) {
      // the values move from the browser's own slow tip to ours; assistive technology hears them as the name
      const title = point.querySelector("title");
      point.setAttribute("aria-label", title.textContent);
      title.remove();
      point.addEventListener("focus", () => show([point]));
      point.addEventListener("blur", hide);
    }
    const nearest = (event) => {
      const pointer = [event.clientX, event.clientY];
      const best = points.reduce((a, b) => away(b, pointer) < away(a, pointer) ? b : a);
      if (away(best, pointer) > 40) return hide();
      const there = middle(best);
      show(points.filter((point) => away(point, there) < 5));
    };
    drawing.addEventListener("pointermove", nearest);
    drawing.addEventListener("pointerdown", nearest);
    drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    drawing.addEventListener("keydown", (event) => {
      const here = points.indexOf(document.activeElement);
      if (here < 0) return;
      const of = (point) => Number(point.dataset.series);
      const mine = points.filter((point) => of(point) === of(points[here]));
      const index = mine.indexOf(points[here]);
      const last = of(points[points.length - 1]);
      const other = (series) => {
        const theirs = points.filter((point) => of(point) === series);
        return theirs[Math.min(index, theirs.length - 1)];
      };
      const next = {
        ArrowLeft: () => mine[index - 1],
        ArrowRight: () => mine[index + 1],
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
  addEventListener("scroll", () => {
    if (shown.includes(document.activeElement)) place(); else hide();
  }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("beforeprint", () => {
    for (const values of document.querySelectorAll("details.values")) values.open = true;
  });
})();
