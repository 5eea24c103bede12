// Elements without a framework: h() makes one, reconcile() keeps a list in step with its entries and lets what moved glide.
//
// Everything is text or a property: no HTML is parsed and no style attribute is written, as the Content-Security-Policy asks.

const SVG = "http://www.w3.org/2000/svg";
const GLIDE_MS = 420;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** An element. Of `props`, `class`, `style` (CSS properties), `data`, `on` (listeners by event) are as named; all else are attributes. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for an SVG element. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "style") setStyle(element, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else setAttribute(element, name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets an attribute; false, null and undefined remove it, true is the empty attribute. */
export function setAttribute(element, name, value) {
  const text = value === true ? "" : value;
  if (text === false || text === null || text === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(text)) element.setAttribute(name, text);
}

/** Sets CSS properties, custom ones too. */
export function setStyle(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, value);
}

/** Sets the text of an element, and touches nothing when it is the same. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` those of `entries`, in their order. A child is known by `key(entry)`, made by `create(entry)` and
 * brought up to date by `update(child, entry)`. A child that moved glides to its place, a new one fades in; the focus stays.
 */
export function reconcile(parent, entries, { key, create, update = () => {} }) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const places = calm.matches
    ? null
    : new Map([...before.values()].map((child) => [child, child.getBoundingClientRect()]));
  const focused = document.activeElement;
  const kept = new Set();
  let next = parent.firstElementChild;
  for (const entry of entries) {
    const name = String(key(entry));
    if (kept.has(name)) continue;
    kept.add(name);
    let child = before.get(name);
    if (!child) {
      child = create(entry);
      child.dataset.key = name;
    }
    update(child, entry);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const [name, child] of before) if (!kept.has(name)) child.remove();
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
  if (places) for (const child of parent.children) glide(child, places.get(child), before.size > 0);
}

function glide(child, from, fades) {
  if (!from) {
    if (fades) child.animate([{ opacity: 0 }, { opacity: 1 }], { duration: GLIDE_MS, easing: "ease-out" });
    return;
  }
  const to = child.getBoundingClientRect();
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (Math.abs(x) < 1 && Math.abs(y) < 1) return;
  child.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
    duration: GLIDE_MS,
    easing: "cubic-bezier(.2, .7, .2, 1)",
  });
}

/** Arrow keys, Home and End move between the buttons of a list, which is one stop of the Tab key. */
export function roam(list, selector) {
  const stops = () => [...list.querySelectorAll(selector)];
  list.addEventListener("keydown", (event) => {
    const all = stops();
    const at = all.indexOf(document.activeElement);
    const to = {
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      Home: 0,
      End: all.length - 1,
    }[event.key];
    if (at < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
  list.addEventListener("focusin", (event) => settle(stops(), event.target));
  return { settle: () => settle(stops()) };
}

function settle(stops, chosen) {
  const stop = stops.includes(chosen) ? chosen : (stops.find((each) => each.tabIndex === 0) ?? stops[0]);
  for (const each of stops) each.tabIndex = each === stop ? 0 : -1;
}
