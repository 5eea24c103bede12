// Light, dark, or as the system has it.

import { setText } from "./dom.js";

const KEY = "intentrec-theme";
const THEMES = ["system", "light", "dark"];
const NAMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Lets a button change the theme, and keeps it in this browser. */
export function followTheme(button) {
  const kept = localStorage.getItem(KEY);
  set(THEMES.includes(kept) ? kept : "system");
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    localStorage.setItem(KEY, next);
    set(next);
  });

  function set(theme) {
    document.documentElement.dataset.theme = theme;
    setText(button, NAMES[theme]);
  }
}
